"""Checks before a training is launched: what would only fail later, or train on the wrong thing.

In: the stage's job and the model's shape; for `check`, the recipe alone, before any stage. Out:
nothing, or one RecipeError, DataError or EnvironmentProblem with its cure. No Ray; torch only to
look at this machine. The bytes of the token shards are hashed, and their ids compared with the
vocabulary, once for each run (`ranks/pack.json` notes it): 1.0 CPU s a GB, on all cores. Later
launches compare sizes and times of change.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from mutirao.core import schemas
from mutirao.core.errors import DataError, EnvironmentProblem, RecipeError, UserError
from mutirao.core.files import disk_problem, read_json, sha256_file, write_json
from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest, Part
from mutirao.core.model_size import ModelShape, load_preset, parameter_count
from mutirao.core.recipe import Recipe, Train
from train_jobs.deepspeed_config import check_keys
from train_jobs.exporters import check_exporters
from train_jobs.kernels import check_kernels
from train_jobs.schedule import total_sequences, total_steps

FORMAT = 1
CHECKED = "ranks/pack.json"
CHECKPOINT_BYTES = 12  # a parameter: fp32 weight and two moments


def check_training(job: StageJob, shape: ModelShape) -> None:
    """Raises the first problem it finds, the cheapest to look for first."""
    train, pack = job.recipe.train, job.inputs["pack"]
    check_settings(train, shape.context)
    check_machine(job.recipe, shape, job.use_ray)
    check_tokenizer(pack, job.inputs.get("tokenizer"))
    check_folder(job.run_dir, shape, train)
    check_shards(pack, shape.vocab_size, job.run_dir, job.progress.say)


def check(recipe: Recipe) -> None:
    """What the recipe alone tells, on any machine. Raises RecipeError."""
    check_settings(
        recipe.train, recipe.model.context or load_preset(recipe.model.preset)["context"]
    )


def check_settings(train: Train, context: int) -> None:
    """Combinations that the recipe's types allow and training does not."""
    check_keys(train)
    for wrong, problem, field, hint in _settings(train, context):
        if wrong:
            raise RecipeError(problem, field, hint, "bad-train")


def _settings(train: Train, context: int) -> Iterator[tuple[bool, str, str, str]]:
    batch, sequences = train.global_batch, total_sequences(train, context)
    yield (
        train.min_workers > train.workers,
        f"train.min_workers is {train.min_workers}, but train.workers is {train.workers}",
        "train.min_workers",
        f"Set --set train.min_workers={train.workers} at most.",
    )
    yield (
        train.workers > batch,
        f"train.workers is {train.workers}, but a step has {batch} sequences (train.global_batch)",
        "train.workers",
        f"Set --set train.workers={batch} at most: more would have nothing to do.",
    )
    yield (
        sequences < batch,
        f"train.tokens of {train.tokens:,} make {sequences:,} sequences of {context:,} tokens, "
        f"fewer than the {batch:,} of one global batch",
        "train.tokens",
        f"Give {batch * context:,} tokens at least, or a smaller train.global_batch.",
    )
    steps = total_steps(train, context)
    named = [step for step in train.profile if not 0 < step <= steps]
    yield (
        bool(named),
        f"train.profile names step {named[0] if named else 0:,}, and the steps are 1 to {steps:,}",
        "train.profile",
        f"Set, say, --set train.profile=[{min(50, steps)}].",
    )
    yield (
        train.from_optimizer and not train.from_,
        "train.from_optimizer takes moments over, and there is no train.from to take them from",
        "train.from_optimizer",
        "Set train.from to RUN@STEP, or train.from_optimizer to false.",
    )
    torch = train.engine == "torch"
    yield (
        torch and train.offload != "none",
        f"train.offload is {train.offload}, which train.engine torch has not",
        "train.offload",
        "Set train.engine to deepspeed, or train.offload to none.",
    )
    yield (
        torch and bool(train.deepspeed),
        "train.deepspeed has keys, but train.engine is torch",
        "train.deepspeed",
        "Set train.engine to deepspeed, or take the keys out.",
    )


def check_machine(recipe: Recipe, shape: ModelShape, use_ray: bool) -> None:
    """Packages and, where the workers run on this machine, its GPU or the memory that they need;
    those of a cluster look for themselves. Raises EnvironmentProblem, RecipeError."""
    check_exporters(recipe.train)
    if use_ray and (recipe.ray.address or os.environ.get("RAY_ADDRESS")):
        return
    import torch

    from train_jobs.memory import check_host_memory

    check_kernels(recipe.train, torch.cuda.is_available())
    workers = recipe.train.workers if use_ray else 1
    if not torch.cuda.is_available() and workers <= (os.cpu_count() or 1):  # more get no CPU anyway
        check_host_memory(shape, recipe.train.model_copy(update={"workers": workers}))


def check_tokenizer(pack: Manifest, tokenizer: Manifest | None) -> None:
    """The token shards must be of the tokenizer that is exported with the model."""
    if tokenizer is None:
        return
    packed_with = pack.content.get("inputs", {}).get("tokenizer")
    problem = ""
    if packed_with and packed_with != tokenizer.content_hash:
        problem = (
            f"{packed_with[:12]} made the shards, {tokenizer.content_hash[:12]} is the tokenizer's"
        )
    for name in ("vocab_size", "eos_id"):
        ours, theirs = (one.content["info"].get(name) for one in (pack, tokenizer))
        if not problem and None not in (ours, theirs) and ours != theirs:
            problem = f"{name} {ours} in the shards, {theirs} in the tokenizer"
    if problem:
        raise DataError(
            f"The token shards are of another tokenizer: {problem}",
            str(pack.directory),
            "Run with --redo pack, which writes them again.",
            "other-tokenizer",
        )


def check_folder(run_dir: Path, shape: ModelShape, train: Train) -> None:
    """Raises UserError (cannot-write), EnvironmentProblem (disk-full) for the run's folder."""
    probe = run_dir / f".write-{os.getpid()}"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise disk_problem(error, run_dir) from error
    held = sum(path.stat().st_size for path in run_dir.glob("checkpoints/*/*"))
    need = (train.keep_last + 1) * CHECKPOINT_BYTES * parameter_count(shape) - held
    free = shutil.disk_usage(run_dir).free
    if need > free:
        raise EnvironmentProblem(
            f"{train.keep_last + 1} checkpoints (train.keep_last and the one being written) need "
            f"{need / 1e9:,.1f} GB more, and {free / 1e9:,.1f} GB are free",
            str(run_dir),
            "Free space, choose another --workdir, or lower train.keep_last.",
            "disk-full",
        )


def check_shards(
    pack: Manifest, vocab_size: int, run_dir: Path, say: Callable[[str], None] = lambda line: None
) -> None:
    """Every token file as the pack wrote it, and no id beyond the model's vocabulary.

    Raises DataError (no-tokens, damaged-shard, bad-id) that names the file."""
    parts = [part for part in pack.parts if part.path.endswith(".tokens.arrow")]
    for side in ("train", "heldout"):
        if not any(part.rows for part in parts if part.path.startswith(side)):
            raise DataError(
                f"No {side} tokens in the pack", str(pack.directory), "Give more text.", "no-tokens"
            )
    before = _checked(run_dir)
    found: dict[str, Any] = {
        "format": FORMAT,
        "pack": pack.content_hash,
        "vocab_size": vocab_size,
        "files": {part.path: _state(pack, part) for part in parts},
    }
    same = all(before.get(name) == found[name] for name in ("pack", "vocab_size"))
    known = before.get("files", {}) if same else {}
    left = [part for part in parts if known.get(part.path) != found["files"][part.path]]
    size = sum(part.bytes for part in left)
    if size > 1e9:
        say(f"  checking {size / 1e9:,.1f} GB of token shards, once for this run")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda part: check_shard(pack, part, vocab_size), left))
    if left:
        write_json(run_dir / CHECKED, found)


def _checked(run_dir: Path) -> dict[str, Any]:
    """What an earlier launch noted, {} if there is nothing that can be read."""
    try:
        return read_json(run_dir / CHECKED)
    except (FileNotFoundError, UserError):
        return {}


def _state(pack: Manifest, part: Part) -> list[int]:
    """[bytes, time of change in ns] of a file. Raises DataError where the size is another."""
    path = pack.directory / part.path
    try:
        about = path.stat()
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    wanted = pack.redacted.get(part.path, {"bytes": part.bytes})["bytes"]
    if about.st_size != wanted:
        raise _damaged(path, f"{about.st_size:,} bytes instead of {wanted:,}")
    return [about.st_size, about.st_mtime_ns]


def check_shard(pack: Manifest, part: Part, vocab_size: int) -> None:
    """Hash, rows and largest id of one token file, which is mapped, not loaded."""
    path = pack.directory / part.path
    wanted = pack.redacted.get(part.path, {"sha256": part.sha256})["sha256"]
    if sha256_file(path) != wanted:
        raise _damaged(path, "its content does not match its hash")
    column = schemas.read_ipc(path, "tokens")["token"]
    if not len(column):
        return
    largest = pc.max(column).as_py()
    if largest >= vocab_size:
        raise DataError(
            f"Token id {largest:,} is beyond the model's vocabulary of {vocab_size:,}",
            str(path),
            "Leave out model.vocab_size, or make the shards again with --redo pack.",
            "bad-id",
        )


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"A token shard is damaged: {what}",
        str(path),
        "Run with --redo pack, which writes it again.",
        "damaged-shard",
    )
