"""`python -m data_jobs.compile_kernels`: compile the numba kernels once, at install.

Numba keeps compiled kernels beside their source (or in the user's cache folder where that cannot be
written); without them each worker of the first run compiles for half a minute. Runs the stages that
have kernels on two near-duplicates, so that every kernel meets the types it will meet in a run.
"""

from __future__ import annotations

import io
import tempfile
import time
from importlib import resources
from pathlib import Path

from data_jobs.cleaning.extract import page_text
from data_jobs.pipeline import STAGES
from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest, commit
from mutirao.core.progress import Progress
from mutirao.core.recipe import Decontaminate, NearDup, Recipe, Source

COMPILED = ("ingest", "clean", "langid", "filter", "exact", "neardup", "decontaminate")


def compile_kernels() -> float:
    """Returns the seconds it took."""
    began = time.monotonic()
    page_text("<p>Uma página</p>")
    with tempfile.TemporaryDirectory() as folder:
        base, text = Path(folder), _text()
        for name in ("um", "dois"):
            (base / f"{name}.txt").write_text(
                f"{text} {name} \N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"
            )
        (base / "exame.txt").write_text("Uma pergunta de exame que não está no texto acima. " * 3)
        recipe = Recipe(
            sources=(Source(path=("um.txt", "dois.txt"), name="t"),),
            neardup=NearDup(paragraphs="drop"),
            decontaminate=Decontaminate(against=("exame.txt",)),
        )
        done: dict[str, Manifest] = {}
        for stage in COMPILED:
            done[stage] = _run(stage, recipe, base, done)
        closure = NearDup(survivors="closure")
        _run("neardup", recipe.model_copy(update={"neardup": closure}), base, done, "closure")
    return time.monotonic() - began


def _text() -> str:
    """A chapter of the bundled sample: the filter keeps it."""
    chapters = resources.files("mutirao.sample") / "chapters"
    return min(chapters.iterdir(), key=lambda file: file.name).read_text("utf-8")[:5_000]


def _run(
    stage: str, recipe: Recipe, base: Path, done: dict[str, Manifest], key: str = "once"
) -> Manifest:
    directory = base / "store" / stage / key
    directory.mkdir(parents=True)
    quiet = Progress(io.StringIO(), quiet=True)
    job = StageJob(
        stage, recipe, directory, dict(done), base / "run", quiet, use_ray=False, base=base
    )
    result = STAGES[stage](job)
    parts = [vars(part) for part in result.parts]
    content = {"stage": stage, "parts": parts, "counts": result.counts, "info": result.info}
    return commit(directory, content, {})


if __name__ == "__main__":
    print(f"numba kernels ready ({compile_kernels():.1f} s)")
