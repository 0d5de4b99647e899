"""Run data stages in this process, without Ray, on made-up or bundled text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest, commit
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe
from mutirao.core.stages import BY_NAME, DATA_STAGES

STOCK = (
    "a casa da praia que o pescador fez com madeira do mato para morar e não sair mais dela "
    "em dias de chuva como os que vieram depois por causa do vento sul na costa"
)


def make_job(
    root: Path, stage: str, recipe: Recipe, done: dict[str, Manifest], use_ray: bool = False
) -> StageJob:
    directory = root / "store" / stage / "key"
    directory.mkdir(parents=True, exist_ok=True)
    inputs = {name: m for name, m in done.items() if name in BY_NAME[stage].inputs}
    quiet = Progress(quiet=True)
    return StageJob(stage, recipe, directory, inputs, root / "run", quiet, use_ray, root)


def run_stages(
    root: Path,
    recipe: Recipe,
    until: str = "pack",
    use_ray: bool = False,
    without: tuple[str, ...] = (),
) -> dict[str, Manifest]:
    """The committed manifests of all stages up to `until`, as the composer makes them."""
    from data_jobs.decontaminate import evaluation_sets
    from data_jobs.pipeline import STAGES

    done: dict[str, Manifest] = {}
    for stage in DATA_STAGES:
        if stage in without or (stage == "decontaminate" and not evaluation_sets(recipe, root)):
            continue
        result = STAGES[stage](make_job(root, stage, recipe, done, use_ray))
        content = {
            "stage": stage,
            "output_version": BY_NAME[stage].output_version,
            "parts": [vars(part) for part in result.parts],
            "counts": result.counts,
            "info": result.info,
        }
        done[stage] = commit(root / "store" / stage / "key", content, {"notes": result.notes})
        if stage == until:
            break
    return done


def sentence(number: int, words: int = 60) -> str:
    """A made-up Portuguese text, different for each number."""
    stock = re.findall(r"\w+", STOCK)
    picked = [stock[(number * 7 + k * (3 + number % 5)) % len(stock)] for k in range(words)]
    marks = [f"caso{number}n{k}" if k % 4 == 0 else word for k, word in enumerate(picked)]
    return " ".join(marks) + "."


def jsonl(rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


@pytest.fixture
def stages(tmp_path):
    """stages(recipe fields, files={name: bytes}, until=...) -> {stage: Manifest}."""

    def run(files: dict[str, bytes] | None = None, until: str = "pack", **fields):
        for name, data in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        fields.setdefault("sources", [{"path": name} for name in files or {}])
        return run_stages(tmp_path, Recipe(**fields), until)

    return run


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory):
    """All stages over a part of the bundled sample, once for the whole session."""
    root = tmp_path_factory.mktemp("sample")
    return run_stages(root, sample_recipe())


def sample_recipe(**fields) -> Recipe:
    return Recipe(
        sources=[
            {"path": "sample://docs.jsonl.gz"},
            {"path": "sample://chapters/*", "name": "chapters"},
            {"path": "sample://*.warc.gz", "name": "web"},
            {"path": "sample://other_languages.jsonl.gz"},
        ],
        clean={"shard_bytes": 1_000_000},
        tokenizer={"vocab_size": 1024},
        **fields,
    )


@pytest.fixture(scope="session")
def helpers():
    """The functions above, for tests that build their own jobs."""
    import types

    return types.SimpleNamespace(
        make_job=make_job,
        run_stages=run_stages,
        sentence=sentence,
        jsonl=jsonl,
        sample_recipe=sample_recipe,
        Recipe=Recipe,
    )
