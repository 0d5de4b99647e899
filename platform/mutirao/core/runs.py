"""A run's record, `runs/<id>/run.json`: what was asked, what each stage became, how it ended.

The id is the recipe's name and the first eight digits of the hash of its identity, so the same
recipe finds its run again and a changed identity field makes another.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError, nearest
from mutirao.core.files import canonical_json, read_json, sha256_hex, write_bytes, write_json
from mutirao.core.identity import differences, identity
from mutirao.core.manifest import check_format
from mutirao.core.recipe import Recipe
from mutirao.core.recipe_file import dump_recipe, parse_recipe
from mutirao.core.workdir import Workdir

FORMAT = 1
RECORD = "run.json"


def run_id(recipe: Recipe, source_hashes: list[str], origin_hash: str = "") -> str:
    """`<name>-<8 hex digits>` of the identity fields, the content of the sources and that of the
    weights which `train.from` names."""
    known = {"identity": identity(recipe), "sources": source_hashes}
    if origin_hash:
        known["origin"] = origin_hash
    return f"{recipe.name}-{sha256_hex(canonical_json(known))[:8]}"


@dataclass
class Run:
    directory: Path
    record: dict[str, Any]

    @property
    def id(self) -> str:
        return self.record["id"]

    @property
    def status(self) -> str:
        return self.record["status"]

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """By stage name: {key, key_parts, status: done|running, content_hash when done}."""
        return self.record["stages"]

    def recipe(self) -> Recipe:
        path = self.directory / "recipe.yaml"
        return parse_recipe(path.read_text(encoding="utf-8"), str(path))

    def save(self) -> None:
        self.record["updated"] = time.time()
        write_json(self.directory / RECORD, self.record)


def open_run(workdir: Workdir, identifier: str, recipe: Recipe, base: Path) -> Run:
    """The run's record, made if it is new; execution fields of the recipe may have changed."""
    directory = workdir.run(identifier)
    path = directory / RECORD
    if path.exists():
        run = load_run(directory)
    else:
        record = {
            "format": FORMAT,
            "kind": "run",
            "id": identifier,
            "created": time.time(),
            "status": "new",
            "reason": "",
            "attempts": 0,
            "stages": {},
        }
        run = Run(directory, record)
    directory.mkdir(parents=True, exist_ok=True)
    run.record["base"] = str(base)
    run.record["identity"] = identity(recipe)
    write_bytes(directory / "recipe.yaml", dump_recipe(recipe).encode("utf-8"))
    return run


def load_run(directory: Path) -> Run:
    path = directory / RECORD
    record = read_json(path)
    check_format(record, FORMAT, path)
    return Run(directory, record)


def all_runs(workdir: Workdir) -> list[Run]:
    """Every run of the workdir, the newest first."""
    if not workdir.runs.is_dir():
        return []
    found = [load_run(p.parent) for p in workdir.runs.glob(f"*/{RECORD}")]
    return sorted(found, key=lambda run: -run.record["created"])


def find_run(workdir: Workdir, word: str) -> Run:
    """A run by its id, by an unambiguous beginning of it, or the newest run of that recipe name."""
    runs = all_runs(workdir)
    for run in runs:
        if run.id == word:
            return run
    named = [run for run in runs if run.id.rsplit("-", 1)[0] == word]
    if named:
        return named[0]
    begun = [run for run in runs if run.id.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        names = ", ".join(run.id for run in begun)
        raise RecipeError(f"{word!r} could be several runs: {names}", code="ambiguous-run")
    if not runs:
        hint = "Start one with `mutirao run demo`."
        raise RecipeError(f"There are no runs in {workdir.root}", hint=hint, code="no-runs")
    raise RecipeError(
        f"There is no run {word!r}",
        str(workdir.runs),
        nearest(word, [r.id for r in runs]),
        "no-run",
    )


def nearest_relative(
    workdir: Workdir, recipe: Recipe, identifier: str
) -> tuple[Run, list[str]] | None:
    """The newest other run of the same recipe name, and the identity fields in which it differs."""
    for run in all_runs(workdir):
        if run.id != identifier and run.id.rsplit("-", 1)[0] == recipe.name:
            return run, differences(run.record.get("identity", {}), identity(recipe))
    return None
