"""`mutirao data clean|exact|...|pack`: some stages over plain files, without a recipe.

In: files, folders, globs or URLs, or the folder of an earlier such command (then the documents that
it kept). Out: a folder that is a workdir of its own with one run: the stages of the command
(plain_stages.py), made by the same composer as any run, and `result.json`. An earlier result is
taken over by hard links, so ids, names and the way of each document through the stages stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError
from mutirao.core.files import make_output_folder, write_json
from mutirao.core.manifest import Manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.runs import run_id
from mutirao.core.workdir import Workdir
from mutirao.run.assets import assets_of, evaluation_sets
from mutirao.run.check import check_recipe
from mutirao.run.plain_output import check_output, check_same, link_tokenizer, take_over
from mutirao.run.plain_recipe import (
    Flags,
    carried_recipe,
    check_clean,
    made_tokenizer,
    recipe_for,
    tokenized_recipe,
)
from mutirao.run.plain_stages import COMMANDS, PRETOKENIZED, plan_stages
from mutirao.run.results import FORMAT, RESULT, Result, open_folder
from mutirao.run.sources import fingerprints

RAY_BYTES = 200_000_000  # Ray takes 5 s to start: smaller inputs stay in this process
NAMED = ("neardup", "decontaminate", "tokenizer", "pack")  # read files that a flag can name
TOKENIZER = "tokenizer"  # of the folder: the same files as in the store


@dataclass(frozen=True)
class Task:
    """One command, ready to run."""

    command: str
    loaded: LoadedRecipe
    workdir: Workdir
    stages: tuple[str, ...]
    sources: list[dict[str, Any]]
    run: str  # its id
    earlier: Result | None = None  # the folder that was given as INPUT
    taken_over: dict[str, Manifest] = field(default_factory=dict)  # its results that stand here
    assets: dict[str, dict[str, str]] = field(default_factory=dict)  # of NAMED, by content

    @property
    def input_bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.sources)

    @property
    def record(self) -> dict[str, Any]:
        """result.json, but for whether it is done."""
        return {
            "format": FORMAT,
            "kind": "result",
            "command": self.command,
            "run": self.run,
            "stages": list(self.stages),
            "assets": self.assets,
        }


def prepare(
    command: str,
    inputs: tuple[str, ...],
    output: Path,
    language: str,
    flags: Flags,
    overrides: tuple[str, ...],
    pretokenized: bool = False,
) -> Task:
    """Look at the input and at what the folder holds; nothing is written.

    Raises RecipeError (exit 2) for wrong input, and for a folder that holds something else.
    """
    check_output(output)
    if "tokenizer.path" in flags:
        flags = {**flags, "tokenizer.path": made_tokenizer(flags["tokenizer.path"])}
    folders = [entry for entry in inputs if (Path(entry) / RESULT).is_file()]
    if folders and len(inputs) > 1:
        hint = "Give the source files together, or one folder."
        raise RecipeError("One result folder at a time", ", ".join(folders), hint, "bad-input")
    workdir = Workdir(output.absolute())
    if folders and not pretokenized:
        task = _over_folder(command, folders[0], workdir, language, flags, overrides)
    else:
        make = tokenized_recipe if pretokenized else recipe_for
        loaded = make(command, inputs, language, flags, overrides)
        stages = PRETOKENIZED if pretokenized else COMMANDS[command]
        known = output / "cache" if (output / RESULT).is_file() else None
        task = _task(
            command, loaded, workdir, stages, fingerprints(loaded.recipe, loaded.base, known)
        )
    check_same(output, task.record, task.loaded.recipe)
    return task


def _over_folder(
    command: str,
    folder: str,
    workdir: Workdir,
    language: str,
    flags: Flags,
    overrides: tuple[str, ...],
) -> Task:
    """Over an earlier result: what stands for the sources are the documents themselves, since the
    files they came from need not be there any more."""
    earlier = open_folder(Path(folder))
    if not earlier.record["done"]:
        hint = "Run the command that makes it again; it goes on where it stopped."
        raise RecipeError("The result is not finished", folder, hint, "not-done")
    found = earlier.manifests
    if Path(folder).resolve() == workdir.root.resolve():
        hint = "Choose another --output."
        raise RecipeError("--output is the folder given as INPUT", folder, hint, "bad-output")
    against = [Path(name).resolve() for name in flags.get("neardup.against") or ()]
    if Path(folder).resolve() in against:
        hint = "Every document would be dropped for itself: give INPUT or --against another folder."
        raise RecipeError("--against is the folder given as INPUT", folder, hint, "bad-input")
    if "clean" not in found:
        raise RecipeError("The folder holds tokens, no text", folder, code="bad-input")
    stages, taken = plan_stages(command, list(found), bool(flags.get("tokenizer.path")))
    check_clean(found["clean"], stages, taken)
    loaded = carried_recipe(earlier, command, language, flags, overrides, folder, taken)
    hashes = [m.content_hash for name, m in found.items() if name != command]
    size = found["clean"].counts["text_bytes_out"]
    sources = [
        {"sha256": digest, "bytes": size if n == 0 else 0} for n, digest in enumerate(hashes)
    ]
    return _task(command, loaded, workdir, stages, sources, earlier, {n: found[n] for n in taken})


def _task(
    command: str,
    loaded: LoadedRecipe,
    workdir: Workdir,
    stages: tuple[str, ...],
    sources: list[dict[str, Any]],
    earlier: Result | None = None,
    taken: dict[str, Manifest] | None = None,
) -> Task:
    recipe, base, taken = loaded.recipe, loaded.base, taken or {}
    made = [name for name in stages if name not in taken]
    if command == "decontaminate" and not evaluation_sets(recipe, base):
        hint = "Give --against FILE (text or jsonl), or a --language whose pack names sets."
        raise RecipeError("There is nothing to compare with", hint=hint, code="no-evaluation")
    if recipe.neardup.quality and "neardup" in made and "filter" not in stages:
        where = f"neardup.quality: {recipe.neardup.quality}"
        hint = "Run `mutirao data filter` first and give its folder as INPUT."
        raise RecipeError("The filter's values are not there", where, hint, "no-filter")
    if command == "pack" and "tokenizer" in made and not recipe.tokenizer.path:
        hint = "Give --tokenizer PATH, or as INPUT the folder of `mutirao data tokenizer`."
        raise RecipeError("Which tokenizer?", hint=hint, code="no-tokenizer")
    check_recipe(recipe, base, made)
    assets = {name: assets_of(name, recipe, base) for name in made if name in NAMED}
    assets = {name: found for name, found in assets.items() if found}
    identifier = run_id(recipe, [entry["sha256"] for entry in sources])
    return Task(command, loaded, workdir, stages, sources, identifier, earlier, taken, assets)


def run_task(task: Task, progress: Progress, use_ray: bool | None = None) -> Result:
    """Make what is missing of the result. use_ray None: as the size of the input asks for.

    Raises UserError as `execute` does; the same command then goes on where it stopped.
    """
    from mutirao.run.execute import Options, execute

    folder = task.workdir.root
    make_output_folder(folder)
    before = task.earlier.workdir.root if task.earlier else None
    given = take_over(task.workdir, task.taken_over, before)
    write_json(folder / RESULT, {**task.record, "done": False})
    big = task.input_bytes >= RAY_BYTES
    options = Options(use_ray=big if use_ray is None else use_ray, stages=task.stages, report=False)
    execute(task.loaded, task.workdir, options, progress, task.sources, given)
    found = open_folder(folder)
    if "tokenizer" in found.manifests:
        link_tokenizer(found.manifests["tokenizer"], folder / TOKENIZER)
    write_json(folder / RESULT, {**task.record, "done": True})
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
