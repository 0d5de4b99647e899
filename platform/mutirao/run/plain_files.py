"""`mutirao data clean|exact|langid|filter`: one judgement over plain files, without a recipe.

In: files, folders, globs or URLs, or the folder of an earlier such command (then the documents that
it kept). Out: a folder that is a workdir of its own with one run: the stages `ingest`, `clean` and
the judgement, made by the same composer as any run, and `result.json`. An earlier result is taken
over by hard links, so ids, names and the way of each document through the stages stay.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mutirao.core.errors import RecipeError
from mutirao.core.files import make_output_folder, write_json
from mutirao.core.languages import load_pack
from mutirao.core.manifest import MANIFEST, Manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe, differences, identity
from mutirao.core.recipe_file import LoadedRecipe, dump_recipe, parse_recipe
from mutirao.core.runs import RECORD, load_run, run_id
from mutirao.core.stages import STAGE_NAMES
from mutirao.core.takedown import FOLDER as TAKEDOWN
from mutirao.core.workdir import Workdir
from mutirao.run.check import check_recipe
from mutirao.run.results import FORMAT, RESULT, Result, open_folder, read_record
from mutirao.run.sources import fingerprints

COMMANDS = ("clean", "exact", "langid", "filter")
RAY_BYTES = 200_000_000  # Ray takes 5 s to start: smaller inputs stay in this process


@dataclass(frozen=True)
class Task:
    """One command, ready to run."""

    command: str
    loaded: LoadedRecipe
    workdir: Workdir
    stages: tuple[str, ...]
    sources: list[dict[str, Any]]
    run: str  # its id
    earlier: Result | None  # the folder that was given as INPUT

    @property
    def input_bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.sources)

    @property
    def taken_over(self) -> dict[str, Manifest]:
        """The results of INPUT that stand for their stages; the command's own is made anew."""
        found = self.earlier.manifests if self.earlier else {}
        names = [n for n in self.stages if n in found and (n == "clean" or n != self.command)]
        return {name: found[name] for name in names}


def prepare(
    command: str, inputs: tuple[str, ...], output: Path, language: str, overrides: tuple[str, ...]
) -> Task:
    """Look at the input and at what the folder holds; nothing is written.

    Raises RecipeError (exit 2) for wrong input, and for a folder that holds something else.
    """
    folders = [entry for entry in inputs if (Path(entry) / RESULT).is_file()]
    if folders and len(inputs) > 1:
        hint = "Give the source files together, or one folder."
        raise RecipeError("One result folder at a time", ", ".join(folders), hint, "bad-input")
    check_output(output)
    made = {"ingest", "clean", command}
    earlier = open_folder(Path(folders[0])) if folders else None
    if earlier:
        loaded, sources = _carried(earlier, command, language, overrides, folders[0])
        made |= set(earlier.record["stages"])
    else:
        loaded = recipe_for(command, inputs, language, overrides)
        known = output / "cache" if (output / RESULT).is_file() else None
        sources = fingerprints(loaded.recipe, loaded.base, known)
    stages = tuple(name for name in STAGE_NAMES if name in made)
    check_recipe(loaded.recipe, loaded.base, stages)
    identifier = run_id(loaded.recipe, [entry["sha256"] for entry in sources])
    task = Task(command, loaded, Workdir(output.absolute()), stages, sources, identifier, earlier)
    _check_same(task)
    return task


def recipe_for(
    command: str, inputs: tuple[str, ...], language: str, overrides: tuple[str, ...]
) -> LoadedRecipe:
    """The recipe that these inputs stand for: one source each, all else at its default."""
    if not language:
        hint = "Such as --language pt; a code without a pack measures and drops next to nothing."
        raise RecipeError("Which language? Give --language CODE", hint=hint, code="no-language")
    tree = {
        "name": command,
        "language": load_pack(language).language,
        "sources": [{"path": entry, **_name(entry, inputs)} for entry in inputs],
    }
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    recipe = parse_recipe(text, "the command line", overrides)
    return LoadedRecipe(recipe, text, "the command line", Path.cwd())


def _name(entry: str, inputs: tuple[str, ...]) -> dict[str, str]:
    """A name only where two inputs end alike: else documents may bring their own source."""
    stems = [Path(one).name.split(".")[0] for one in inputs]
    stem = Path(entry).name.split(".")[0]
    if stems.count(stem) < 2:
        return {}
    return {"name": f"{stem or 'input'}-{inputs.index(entry) + 1}"}


def run_task(task: Task, progress: Progress, use_ray: bool | None = None) -> Result:
    """Make what is missing of the result. use_ray None: as the size of the input asks for.

    Raises UserError as `execute` does; the same command then goes on where it stopped.
    """
    from mutirao.run.execute import Options, execute

    folder = task.workdir.root
    make_output_folder(folder)
    given = _take_over(task)
    record = {
        "format": FORMAT,
        "kind": "result",
        "command": task.command,
        "run": task.run,
        "stages": list(task.stages),
        "done": False,
    }
    write_json(folder / RESULT, record)
    big = task.input_bytes >= RAY_BYTES
    options = Options(use_ray=big if use_ray is None else use_ray, stages=task.stages, report=False)
    execute(task.loaded, task.workdir, options, progress, task.sources, given)
    write_json(folder / RESULT, {**record, "done": True})
    return open_folder(folder)


def finished(task: Task) -> Result | None:
    """The result if an earlier call has finished it and its files are still there."""
    if not (task.workdir.root / RESULT).is_file():
        return None
    found = open_folder(task.workdir.root)
    if not found.record["done"] or not set(task.stages) <= set(found.manifests):
        return None
    files = [path for manifest in found.manifests.values() for path in manifest.paths()]
    return found if all(path.exists() for path in files) else None


def check_output(output: Path) -> None:
    """Raises RecipeError unless the folder is new, empty, or holds a result."""
    if output.exists() and not output.is_dir():
        raise RecipeError("--output is a file, not a folder", str(output), code="bad-output")
    if output.is_dir() and not (output / RESULT).is_file() and any(output.iterdir()):
        hint = "Choose a new or empty folder."
        raise RecipeError("--output is full of other files", str(output), hint, "bad-output")


def _check_same(task: Task) -> None:
    """Raises RecipeError if the folder holds the result of other input or settings."""
    folder = task.workdir.root
    if not (folder / RESULT).is_file():
        return
    record = read_record(folder)
    if record["run"] == task.run and record["stages"] == list(task.stages):
        return
    raise RecipeError(
        f"--output holds another result: {_what_differs(task, record)}",
        str(folder),
        "Choose another --output, or remove the folder to make it anew.",
        "other-result",
    )


def _what_differs(task: Task, record: dict[str, Any]) -> str:
    if record["command"] != task.command:
        return f"that of `mutirao data {record['command']}`"
    path = task.workdir.run(record["run"]) / RECORD
    if path.exists():
        before = load_run(path.parent).recipe()
        rows = _changes(before, task.loaded.recipe)
        if rows:
            return "; ".join(rows[:2])
    return "the input has other files or another content now"


def _changes(old: Recipe, new: Recipe) -> list[str]:
    """Identity fields that differ, with their values written out."""
    names = {row.split(":")[0] for row in differences(identity(old), identity(new))}
    rows = differences(old.model_dump(mode="json"), new.model_dump(mode="json"))
    return [row for row in rows if any(row.startswith((f"{n}:", f"{n}.")) for n in names)]


def _carried(
    earlier: Result, command: str, language: str, overrides: tuple[str, ...], folder: str
) -> tuple[LoadedRecipe, list[dict[str, Any]]]:
    """The recipe of an earlier result with changes, and what stands for its sources: the documents
    themselves, since the files they came from need not be there any more."""
    if not earlier.record["done"]:
        hint = "Run the command that makes it again; it goes on where it stopped."
        raise RecipeError("The result is not finished", folder, hint, "not-done")
    _check_overrides(command, overrides, folder)
    recipe = earlier.run.recipe()
    if language and load_pack(language).language != recipe.language:
        raise RecipeError(
            f"{folder} was made for {recipe.language}, not {load_pack(language).language}",
            hint="Leave out --language, or begin with the source files.",
            code="other-language",
        )
    text = dump_recipe(recipe.model_copy(update={"name": command}))
    base = Path(earlier.run.record["base"])
    loaded = LoadedRecipe(parse_recipe(text, folder, overrides), text, folder, base)
    hashes = [m.content_hash for name, m in earlier.manifests.items() if name != command]
    size = earlier.manifests["clean"].counts["text_bytes_out"]
    return loaded, [{"sha256": digest, "bytes": size} for digest in hashes]


def _check_overrides(command: str, overrides: tuple[str, ...], folder: str) -> None:
    """Cleaned documents are not read again: only the judgement itself can be set."""
    allowed = {command, "ray", "energy"} - {"clean"}
    for override in overrides:
        section = override.split("=")[0].split(".")[0].strip()
        if section not in allowed:
            raise RecipeError(
                f"--set {section} has no effect on documents that were read before",
                folder,
                f"Set values of: {', '.join(sorted(allowed))}; or begin with the source files.",
                "bad-override",
            )


def _take_over(task: Task) -> dict[str, Manifest]:
    """Hard links (copies on another disk) of the finished stages of the folder given as INPUT."""
    given = {}
    for name, manifest in task.taken_over.items():
        target = task.workdir.artefact(name, manifest.directory.name)
        link_result(manifest, target)
        given[name] = Manifest(target, manifest.content, manifest.provenance)
    if task.earlier is not None:
        _copy_takedowns(task.earlier.workdir.root / TAKEDOWN, task.workdir.root / TAKEDOWN)
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
        source, copy = manifest.directory / name, target / name
        if not source.exists() or copy.exists():
            continue
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)
