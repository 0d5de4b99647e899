"""The train stage: hand the loop to Ray Train (or run it here), then turn its last checkpoint into
the stage's result.

In: the committed `pack`, the recipe, the run's folder. Out: `model.safetensors` (final fp32 weights
under Hugging Face names), `config.json`, `losses.jsonl` (step and loss, nothing that depends on the
clock). Ray Train places, starts and restarts the workers; checkpoints are ours, so a restarted group
continues from the newest one by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutirao.core.errors import EnvironmentProblem, Stopped, UserError
from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Manifest, Part, write_part
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.model_size import (
    ModelShape,
    flops_per_token,
    memory_per_worker,
    parameter_count,
    resolve,
    shape_record,
)
from mutirao.core.recipe import Recipe
from mutirao.core.stop import clear_stop, request_stop, stop_reason
from train_jobs.evaluate import run_evaluate, unigram_bits_per_byte
from train_jobs.export import run_export
from train_jobs.schedule import total_sequences, total_steps

WORKER_START_S = 60.0  # imports and process group; measured in docs/decisions/0007


def run_train(job: StageJob) -> StageResult:
    """Raises RecipeError (too few tokens, other recipe), Stopped (exit 75), UserError."""
    recipe, pack = job.recipe, job.inputs["pack"]
    shape = resolve(recipe.model, pack.content["info"]["vocab_size"])
    steps = total_steps(recipe.train, shape.context)
    job.progress.say(f"  train: {describe(recipe, shape, steps)}")
    started = time.monotonic()
    reached = reached_step(job.run_dir)
    if reached < steps:
        clear_stop(job.run_dir)
        with stopping_on_signals(job.run_dir, job.progress.say):
            launch(job, shape, steps, reached)
        reached = reached_step(job.run_dir)
    if reached < steps:
        raise stopped(job.run_dir, reached, steps)
    return result(job, shape, steps, time.monotonic() - started)


def launch(job: StageJob, shape: ModelShape, steps: int, reached: int) -> None:
    """Train from step `reached` on, in Ray's workers or in this process."""
    from train_jobs.loader import TokenStream, check_enough

    pack = job.inputs["pack"]
    check_enough(len(TokenStream(pack.paths("train"), pack.directory)), job.recipe, shape.context)
    plan = {
        "recipe": job.recipe.model_dump(),
        "shape": shape_record(shape),
        "pack_dir": str(pack.directory.resolve()),
        "run_dir": str(job.run_dir.resolve()),
        "threads": worker_threads(job.recipe.train.workers) if job.use_ray else 0,
    }
    job.progress.start(steps, "train", "steps")
    job.progress.advance(reached)
    try:
        if job.use_ray:
            with following(job, reached):
                fit(job, plan)
        else:
            from train_jobs.worker import run_here

            run_here(plan, advancing(job, reached))
    finally:
        job.progress.finish()


def fit(job: StageJob, plan: dict[str, Any]) -> None:
    """One TorchTrainer; Ray must be initialised. A dead worker restarts the whole group."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from train_jobs.worker import train_worker

    train = job.recipe.train
    gpus = ray.cluster_resources().get("GPU", 0)
    check_room(train.workers, gpus)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=plan,
        scaling_config=ScalingConfig(
            num_workers=train.workers, use_gpu=gpus > 0, resources_per_worker={"CPU": 1}
        ),
        torch_config=TorchConfig(backend="nccl" if gpus > 0 else "gloo"),
        run_config=RunConfig(
            name=f"attempt-{os.getpid()}-{time.time_ns()}",  # never Ray's own resume: ours is exact
            storage_path=str((job.run_dir / "ray_train").resolve()),
            failure_config=FailureConfig(max_failures=train.max_restarts),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise user_error(error) or error from error


def check_room(workers: int, gpus: float) -> None:
    """Ray would wait for ever for resources that the cluster does not have."""
    import ray

    have = int(gpus) if gpus else int(ray.cluster_resources().get("CPU", 0))
    if workers > have:
        raise EnvironmentProblem(
            f"train.workers is {workers}, but Ray has {have} {'GPUs' if gpus else 'CPUs'}",
            "train.workers",
            f"Set --set train.workers={max(1, have)}; the run continues the same either way.",
            "no-room",
        )


def user_error(error: BaseException) -> UserError | None:
    """The UserError that a worker raised, out of whatever Ray wrapped it in."""
    failures = getattr(error, "worker_failures", None) or {}
    for inner in [error, *failures.values()]:
        seen: BaseException | None = inner
        while seen is not None:
            if isinstance(seen, UserError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def result(job: StageJob, shape: ModelShape, steps: int, wall_s: float) -> StageResult:
    from train_jobs import checkpoint
    from train_jobs.export import write_config, write_weights

    saved = checkpoint.newest(job.run_dir, job.progress.say)
    assert saved is not None and saved.step == steps
    losses = step_losses(job.run_dir)
    pack = job.inputs["pack"]
    parts = [
        write_weights(job.directory, saved.shapes, saved.full, "fp32"),
        write_config(job.directory, shape, pack.content["info"]["eos_id"]),
        write_losses(job.directory, losses),
    ]
    tokens = total_sequences(job.recipe.train, shape.context) * shape.context
    info = {
        "shape": shape_record(shape),
        "parameters": parameter_count(shape),
        "flops_per_token": flops_per_token(shape),
        "tokens": tokens,
        "steps": steps,
        "skipped_steps": saved.state["skipped"],
        "final_loss": losses[steps],
        "unigram_bits_per_byte": unigram_bits_per_byte(pack, shape.vocab_size),
    }
    counts = {"tokens": tokens, "steps": steps}
    return StageResult(parts, counts, info, notes(job.run_dir, tokens, wall_s))


def notes(run_dir: Path, tokens: int, wall_s: float) -> dict[str, Any]:
    """Provenance: what depends on the clock and on the machine. tokens_per_s is the median."""
    rates = sorted(row["tokens_per_s"] for row in read_metrics(run_dir))
    ends = read_metrics(run_dir, "end")
    return {
        "wall_s": wall_s,
        "tokens_per_s": rates[len(rates) // 2] if rates else 0.0,
        "cpu_s_rank0": ends[-1]["cpu_s"] if ends else 0.0,
        "attempts": len(read_metrics(run_dir, "attempt")),
    }


def write_losses(directory: Path, losses: dict[int, float]) -> Part:
    def write(stream) -> int:
        for step, loss in losses.items():
            row = {"step": step, "loss": loss if abs(loss) < float("inf") else None}
            stream.write(canonical_json(row) + b"\n")
        return len(losses)

    return write_part(directory, "losses.jsonl", write)


def describe(recipe: Recipe, shape: ModelShape, steps: int) -> str:
    train, where = recipe.train, recipe.train.engine
    if where == "deepspeed":
        where = f"DeepSpeed ZeRO {train.zero_stage}"
    return (
        f"{parameter_count(shape):,} parameters, {train.tokens:,} tokens in {steps:,} steps, "
        f"{train.workers} workers, {where}"
    )


def dry_run(recipe: Recipe, vocab_size: int, cuda: bool = False) -> dict[str, Any]:
    """What the train stage would need; no torch, no Ray. Bytes are estimates per worker."""
    shape = resolve(recipe.model, vocab_size)
    return {
        "shape": shape_record(shape),
        "parameters": parameter_count(shape),
        "steps": total_steps(recipe.train, shape.context),
        "tokens_per_step": recipe.train.global_batch * shape.context,
        "flops": flops_per_token(shape) * recipe.train.tokens,
        "memory_per_worker": memory_per_worker(shape, recipe.train, cuda),
    }


def worker_threads(workers: int) -> int:
    """Threads a worker on this machine may use without taking another's core."""
    return max(1, (os.cpu_count() or 1) // workers)


def reached_step(run_dir: Path) -> int:
    """The step of the newest committed checkpoint, 0 if there is none (names only, not verified)."""
    found = (run_dir / "checkpoints").glob("step-*/manifest.json")
    return max((int(path.parent.name.split("-")[1]) for path in found), default=0)


def stopped(run_dir: Path, reached: int, steps: int) -> Stopped:
    reason = stop_reason(run_dir) or "the training loop ended early"
    clear_stop(run_dir)
    return Stopped(
        f"Training stopped at step {reached:,} of {steps:,}: {reason}",
        str(run_dir / "checkpoints"),
        "Run the same command again to continue from there.",
        "interrupted" if reason == "SIGINT" else "stopped",
    )


@contextlib.contextmanager
def stopping_on_signals(run_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C asks for finish-and-checkpoint; the second Ctrl-C acts now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and stop_reason(run_dir):
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        request_stop(run_dir, name)
        say(f"  {name}: finishing the step and writing a checkpoint (Ctrl-C again: stop now)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def advancing(job: StageJob, reached: int) -> Callable[[dict[str, Any]], None]:
    """Moves the progress to the step of a row; a restarted attempt does not move it back."""
    seen = reached

    def show(row: dict[str, Any]) -> None:
        nonlocal seen
        if row["step"] > seen:
            note = f"loss {row['loss']:.3f}, {row['tokens_per_s']:,.0f} tokens/s"
            job.progress.advance(row["step"] - seen, note)
            seen = row["step"]

    return show


@contextlib.contextmanager
def following(job: StageJob, reached: int, every_s: float = 1.0) -> Iterator[None]:
    """While Ray Train blocks this thread, another reads the metrics segments for the progress."""
    done, show = threading.Event(), advancing(job, reached)

    def follow() -> None:
        while not done.wait(every_s):
            rows = read_metrics(job.run_dir)
            if rows:
                show(rows[-1])

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


STAGES = {"train": run_train, "evaluate": run_evaluate, "export": run_export}
