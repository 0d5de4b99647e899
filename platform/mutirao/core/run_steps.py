"""A word -> a checkpoint: RUN@STEP on the command line, and what `train.from` names.

In: the workdir and the word. Out: folders, and the hash of what is in them, which enters the key
and the run's id in place of the word. Reads JSON; the weights of a Llama from elsewhere are only
hashed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mutirao.core.errors import DataError, RecipeError
from mutirao.core.files import canonical_json, read_json, sha256_file, sha256_hex
from mutirao.core.recipe import Recipe
from mutirao.core.runs import Run, all_runs, find_run
from mutirao.core.workdir import Workdir

RECORD = "origin.json"  # runs/<id>/origin.json: where a run began that did not begin from its seed
FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """folder: of a checkpoint or of a Llama; it may be gone, if a run began there already."""

    folder: Path
    sha256: str


def find_checkpoint(workdir: Workdir, word: str) -> tuple[Run, Path]:
    """The run and the folder of the checkpoint that RUN@STEP names; of RUN alone, the newest.

    Raises RecipeError with the steps that are there.
    """
    name, step = split_word(word)
    run = find_run(workdir, name)
    there = kept_steps(run.directory)
    if there and step is None:
        step = max(there)
    if step not in there:
        raise no_checkpoint(run.directory, step)
    return run, checkpoint_folder(run.directory, step)


def split_word(word: str) -> tuple[str, int | None]:
    """RUN@STEP -> (RUN, STEP); RUN -> (RUN, None)."""
    name, at, step = word.rpartition("@")
    return (name, int(step)) if at and step.isdecimal() else (word, None)


def kept_steps(run_dir: Path) -> list[int]:
    """Steps of the committed checkpoints of a run, in order; their files are not looked at."""
    found = (run_dir / "checkpoints").glob("step-*/manifest.json")
    return sorted(int(path.parent.name.split("-")[1]) for path in found)


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def no_checkpoint(run_dir: Path, step: int | None) -> RecipeError:
    there = kept_steps(run_dir)
    what = "no checkpoint yet" if step is None else f"no checkpoint of step {step:,}"
    steps = ", ".join(map(str, there[-10:]))
    more = f"the last of {len(there)}" if len(there) > 10 else "all that are there"
    return RecipeError(
        f"Run {run_dir.name} has {what}",
        str(run_dir / "checkpoints"),
        f"Steps: {steps} ({more}). train.keep_every keeps more of them."
        if there
        else "The first one comes after train.checkpoint_every steps.",
        "no-checkpoint",
    )


def find_origin(word: str, base: Path, workdir: Workdir) -> Origin:
    """What `train.from` names: RUN@STEP, or a folder (relative to `base`). An origin that is gone
    is known from the runs that began there.

    Raises RecipeError where it is neither there nor known.
    """
    folder = base / Path(word).expanduser()
    name, step = split_word(word)
    try:
        if not folder.is_dir():
            if step is None:
                raise _no_origin(word, workdir)
            folder = find_checkpoint(workdir, f"{name}@{step}")[1]
        return Origin(folder.resolve(), origin_sha256(folder))
    except RecipeError:
        known = _known(word, workdir)
        if known is None:
            raise
        return known


def origin_sha256(folder: Path) -> str:
    """Of a checkpoint: of its weights, moments and place in the data. Of a Llama: of its
    configuration and weights. Raises RecipeError for any other folder."""
    if (folder / "manifest.json").is_file():
        record = read_json(folder / "manifest.json")
        if record.get("kind") == "checkpoint":
            files = sorted(({k: file[k] for k in ("sha256", "slices")} for file in record["files"]),
                           key=canonical_json)  # fmt: skip
            state = {key: record["state"].get(key) for key in ("adam_step", "cursor")}
            return sha256_hex(canonical_json({"files": files, **state}))
    weights = llama_files(folder)
    return sha256_hex(
        canonical_json({p.name: _file_sha256(p) for p in (folder / "config.json", *weights)})
    )


def llama_files(folder: Path) -> list[Path]:
    """The safetensors of a Hugging Face folder: those that its index names, else all. Raises
    RecipeError."""
    problem = ""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
        found = [folder / name for name in names]
        problem = next((f"{p.name} is missing" for p in found if not p.is_file()), "")
    else:
        found = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        problem = "there is no config.json"
    elif not found:
        problem = "there are no *.safetensors"
    if problem:
        hint = (
            "Give a folder with config.json and *.safetensors of a Llama, or RUN@STEP. Pickled "
            "weights (*.bin) are never opened: save_pretrained of transformers writes safetensors."
        )
        raise RecipeError(f"train.from: {problem}", str(folder), hint, "no-origin")
    return found


def origin_record(run_dir: Path) -> dict[str, Any]:
    """{from, folder, sha256, step, streams} of a run that began from other weights, else {}.

    streams: sequences of each token stream that its origin had read and this run does not read
    again, None where that means nothing (other data, no `from_optimizer`)."""
    try:
        return read_json(run_dir / RECORD)
    except FileNotFoundError:
        return {}


def is_checkpoint(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def streams_read(folder: Path, recipe: Recipe, pack_hash: str, context: int) -> list[int] | None:
    """Sequences of each stream that the origin in `folder` had read, where the recipe goes on
    behind them; None without `from_optimizer`, and where the order is another: other token shards,
    seed or context. Raises DataError for a checkpoint of an earlier version, which does not know.
    """
    if not recipe.train.from_optimizer or not is_checkpoint(folder):
        return None
    state = read_json(folder / "manifest.json")["state"]
    cursor, shape = state["cursor"], state["identity"].get("shape", {})
    if (cursor["pack"], state["rng"]["seed"]) != (pack_hash, recipe.seed):
        return None
    if shape.get("context", context) != context:
        return None
    if "streams" not in cursor:
        raise DataError(
            "The checkpoint does not say what it had read of each token stream",
            str(folder),
            "An earlier version wrote it. Set train.from_optimizer: false to begin the data anew.",
            "old-checkpoint",
        )
    return cursor["streams"]


def _no_origin(word: str, workdir: Workdir) -> RecipeError:
    hint = "Give RUN@STEP or a folder with config.json and *.safetensors."
    try:
        run = find_run(workdir, word)
    except RecipeError:
        return RecipeError(
            f"train.from: {word} is no folder and no RUN@STEP", "train.from", hint, "no-origin"
        )
    steps = kept_steps(run.directory)
    if steps:
        hint = f"Name one of its steps, such as {word}@{steps[-1]}."
    return RecipeError(f"train.from: {word} names no step", "train.from", hint, "no-origin")


def _known(word: str, workdir: Workdir) -> Origin | None:
    for run in all_runs(workdir):
        record = origin_record(run.directory)
        if record.get("from") == word:
            return Origin(Path(record["folder"]), record["sha256"])
    return None


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(256)
def _sha256_of(path: Path, size: int, changed: int) -> str:
    return sha256_file(path)
