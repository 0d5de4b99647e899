"""The folder that a `mutirao data` command writes: what it may hold, and what is linked into it.

In: a planned command. Out: an error where the folder holds something else; hard links (copies on
another disk) of finished stages and of the tokenizer.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError
from mutirao.core.identity import differences, identity
from mutirao.core.manifest import MANIFEST, Manifest
from mutirao.core.recipe import Recipe
from mutirao.core.runs import RECORD, load_run
from mutirao.core.takedown import FOLDER as TAKEDOWN
from mutirao.core.workdir import Workdir
from mutirao.run.results import RESULT, read_record


def check_output(output: Path) -> None:
    """Raises RecipeError unless the folder is new, empty, or holds a result."""
    if output.exists() and not output.is_dir():
        raise RecipeError("--output is a file, not a folder", str(output), code="bad-output")
    if output.is_dir() and not (output / RESULT).is_file() and any(output.iterdir()):
        hint = "Choose a new or empty folder."
        raise RecipeError("--output is full of other files", str(output), hint, "bad-output")


def check_same(folder: Path, record: dict[str, Any], recipe: Recipe) -> None:
    """Raises RecipeError if the folder holds the result of other input or settings than `record`
    (as it will be written to result.json) asks for."""
    if not (folder / RESULT).is_file():
        return
    before = read_record(folder)
    same = ("run", "stages", "assets")
    if [before.get(k, {}) for k in same] == [record[k] for k in same]:
        return
    raise RecipeError(
        f"--output holds another result: {_what_differs(folder, before, record, recipe)}",
        str(folder),
        "Choose another --output, or remove the folder to make it anew.",
        "other-result",
    )


def _what_differs(
    folder: Path, before: dict[str, Any], record: dict[str, Any], recipe: Recipe
) -> str:
    if before["command"] != record["command"]:
        return f"that of `mutirao data {before['command']}`"
    path = Workdir(folder).run(before["run"]) / RECORD
    if path.exists():
        rows = _changes(load_run(path.parent).recipe(), recipe)
        if rows:
            return "; ".join(rows[:2])
    if before["run"] == record["run"]:
        changed = differences(before.get("assets", {}), record["assets"])
        names = sorted({row.split(":")[0] for row in changed})
        if names:
            return f"other files are named now ({', '.join(names[:2])})"
    return "the input has other files or another content now"


def _changes(old: Recipe, new: Recipe) -> list[str]:
    """Identity fields that differ, with their values written out."""
    names = {row.split(":")[0] for row in differences(identity(old), identity(new))}
    rows = differences(
        old.model_dump(mode="json", by_alias=True), new.model_dump(mode="json", by_alias=True)
    )
    return [row for row in rows if any(row.startswith((f"{n}:", f"{n}.")) for n in names)]


def take_over(
    workdir: Workdir, taken: dict[str, Manifest], earlier: Path | None
) -> dict[str, Manifest]:
    """Hard links of the stages in `taken`, and what was forgotten in the folder `earlier`."""
    given = {}
    for name, manifest in taken.items():
        target = workdir.artefact(name, manifest.directory.name)
        link_result(manifest, target)
        given[name] = Manifest(target, manifest.content, manifest.provenance)
    if earlier is not None:
        _copy_takedowns(earlier / TAKEDOWN, workdir.root / TAKEDOWN)
    return given


def _copy_takedowns(listed: Path, target: Path) -> None:
    """What was forgotten there must not come back here."""
    if listed.is_dir() and not target.exists():
        target.mkdir(mode=0o700)
        for name in ("key", "list.json"):
            if (listed / name).exists():
                shutil.copy2(listed / name, target / name)


def link_result(manifest: Manifest, target: Path) -> None:
    """The same committed result in another store, its manifest last."""
    if (target / MANIFEST).exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    names = [part.path for part in manifest.parts]
    for name in [*names, *(f"{name}.part.json" for name in names), MANIFEST]:
        _link(manifest.directory / name, target / name)


def link_tokenizer(manifest: Manifest, target: Path) -> None:
    """The files of a tokenizer at a short path, which `transformers` opens as it is."""
    target.mkdir(parents=True, exist_ok=True)
    for part in manifest.parts:
        _link(manifest.directory / part.path, target / part.path)


def _link(source: Path, copy: Path) -> None:
    if not source.exists() or copy.exists():
        return
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)
