"""Where documents are looked for: a run of the workdir, or the folder of a `mutirao data` command.

Such a folder is a workdir of its own with one run in it and `result.json`, which names that run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError
from mutirao.core.files import read_json
from mutirao.core.manifest import Manifest, check_format
from mutirao.core.runs import Run, find_run, load_run
from mutirao.core.workdir import Workdir
from mutirao.run.show import manifests

FORMAT = 1
RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """A run and what is finished of it."""

    workdir: Workdir
    run: Run
    manifests: dict[str, Manifest]
    record: dict[str, Any]  # result.json, {} for a run of a recipe


def open_result(workdir: Workdir, word: str) -> Result:
    """`word` is a folder with result.json, else a run as `find_run` takes it.

    Raises RecipeError (exit 2) where neither is there, or nothing was cleaned yet.
    """
    if (Path(word) / RESULT).is_file():
        found = open_folder(Path(word))
    else:
        run = _run(workdir, word)
        found = Result(workdir, run, manifests(workdir, run), {})
    if "clean" not in found.manifests and "pack" in found.manifests:
        hint = "`data show`, `explain` and `export` take results that were made of text."
        raise RecipeError(f"{word} holds tokens, no documents", hint=hint, code="no-documents")
    if "clean" not in found.manifests:
        raise RecipeError(
            f"{word} has no documents yet: its stage clean has not finished",
            hint="Run the same command again; it goes on where it stopped.",
            code="not-done",
        )
    return found


def open_folder(folder: Path) -> Result:
    """The result in a folder. Raises RecipeError if its run is gone."""
    record = read_record(folder)
    here = Workdir(folder.absolute())
    try:
        run = load_run(here.run(record["run"]))
    except FileNotFoundError:
        hint = "Run the command that made it again."
        raise RecipeError("The folder has lost its run", str(folder), hint, "no-result") from None
    return Result(here, run, manifests(here, run), record)


def read_record(folder: Path) -> dict[str, Any]:
    record = read_json(folder / RESULT)
    check_format(record, FORMAT, folder / RESULT)
    return record


def refuse_result(workdir: Workdir, run: Run) -> None:
    """Raises RecipeError where the run belongs to a `mutirao data` command: its recipe would go on
    to train a model."""
    if not (workdir.root / RESULT).is_file():
        return
    record = read_record(workdir.root)
    if record["run"] == run.id:
        again = f"mutirao data {record['command']} INPUT... --output {workdir.root}"
        raise RecipeError(
            f"{run.id} is the result of `mutirao data {record['command']}`, not a run of a recipe",
            str(workdir.root),
            f"Give the command that made it again; it goes on where it stopped: {again}",
            "not-a-run",
        )


def _run(workdir: Workdir, word: str) -> Run:
    """A run; a word that looks like a folder gets a sentence about folders."""
    if os.sep in word and not Path(word).is_dir():
        raise RecipeError("There is no such folder", word, _hint(), "no-result")
    if os.sep in word:
        raise RecipeError(
            "The folder holds no result of a `mutirao data` command", word, _hint(), "no-result"
        )
    try:
        return find_run(workdir, word)
    except RecipeError as error:
        if error.code == "ambiguous-run":
            raise
        kind = "is a folder without a result" if Path(word).is_dir() else "is no folder"
        hint = f"{error.hint} {_hint()}".strip()
        raise RecipeError(
            f"{error.problem}, and {word} {kind}", error.where, hint, error.code
        ) from None


def _hint() -> str:
    return "Runs: `mutirao runs list`."
