"""The train stage: hand the loop to Ray Train (or run it here), then turn its last checkpoint into
the stage's result.

In: the committed `pack`, the recipe, the run's folder. Out: `model.safetensors` (final fp32 weights
under Hugging Face names), `config.json`, `losses.jsonl` (step and loss, nothing that depends on
the clock); info holds the mix of token streams, and so does `mix.json` in the run's folder from the
first step on. Ray Train places, starts and restarts the workers; checkpoints are ours, so a
restarted group continues from the newest one by itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from mutirao.core.files import canonical_json, write_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part, write_part
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
from mutirao.core.run_steps import kept_steps, origin_record
from mutirao.core.stop import clear_stop
from train_jobs.check import check_training
from train_jobs.evaluate import run_evaluate, unigram_bits_per_byte
from train_jobs.export import run_export
from train_jobs.follow import following, stopped, stopping_on_signals
from train_jobs.schedule import total_sequences, total_steps
from train_jobs.skips import guard_summary


def run_train(job: StageJob) -> StageResult:
    """Raises RecipeError (too few tokens, other recipe), Stopped (exit 75), UserError."""
    recipe, pack = job.recipe, job.inputs["pack"]
    shape = resolve(recipe.model, pack.content["info"]["vocab_size"])
    steps = total_steps(recipe.train, shape.context)
    job.progress.say(f"  train: {describe(recipe, shape, steps)}")
    started = time.monotonic()
    reached = reached_step(job.run_dir)
    if reached >= steps:
        reached = sound_step(job)
    if reached < steps:
        check_training(job, shape)
        check_checkpoint(job, shape)
        clear_stop(job.run_dir)
        with stopping_on_signals(job.run_dir, job.progress.say):
            launch(job, shape, steps, reached)
        reached = reached_step(job.run_dir)
    if reached < steps:
        raise stopped(job.run_dir, reached, steps)
    return result(job, shape, steps, time.monotonic() - started)


def check_checkpoint(job: StageJob, shape: ModelShape) -> None:
    """Raises RecipeError, naming every field in which the newest checkpoint that can be read is of
    another one."""
    from train_jobs import checkpoint
    from train_jobs.begin import check_same_recipe
    from train_jobs.loop import Plan

    if saved := next(checkpoint.readable(job.run_dir, job.progress.say), None):
        pack = job.inputs["pack"]
        plan = Plan(job.recipe, shape, pack.directory, job.run_dir)
        check_same_recipe(saved, plan, pack.content_hash)


def sound_step(job: StageJob) -> int:
    """The step of the newest checkpoint that verifies, 0 if there is none."""
    from train_jobs import checkpoint

    found = checkpoint.newest(job.run_dir, job.progress.say)
    return found.step if found else 0


def launch(job: StageJob, shape: ModelShape, steps: int, reached: int) -> None:
    """Train from step `reached` on, in Ray's workers or in this process."""
    from train_jobs.loader import plan_mix
    from train_jobs.origin import begins_at

    pack = job.inputs["pack"]
    origin = begins_at(job, shape, reached)
    mix = plan_mix(pack, job.recipe, shape.context, origin_record(job.run_dir).get("streams"))
    write_json(job.run_dir / "mix.json", mix.record())
    for share in mix.shares:
        if share.tokens and share.weight and not share.sequences:
            job.progress.say(
                f"  {share.name}: {share.tokens:,} tokens, less than a context: unread"
            )
    plan = {
        "recipe": job.recipe.model_dump(by_alias=True),
        "shape": shape_record(shape),
        "pack_dir": str(pack.directory.resolve()),
        "run_dir": str(job.run_dir.resolve()),
        "tokenizer_dir": str(job.inputs["tokenizer"].directory.resolve()),
        "origin": str(origin or ""),
        "threads": worker_threads(job.recipe.train.workers) if job.use_ray else 0,
    }
    job.progress.start(steps, "train", "steps")
    job.progress.advance(reached)
    try:
        with following(job, steps, reached) as look:
            if job.use_ray:
                from train_jobs.fit import fit

                fit(job, plan)
            else:
                from train_jobs.worker import run_here

                run_here(plan, look)
    finally:
        job.progress.finish()


def result(job: StageJob, shape: ModelShape, steps: int, wall_s: float) -> StageResult:
    from train_jobs import checkpoint
    from train_jobs.begin import check_same_recipe
    from train_jobs.export import write_config, write_weights
    from train_jobs.loader import plan_mix
    from train_jobs.loop import Plan

    saved = checkpoint.newest(job.run_dir, job.progress.say)
    assert saved is not None and saved.step == steps
    # A training that had ended before this attempt never went through the loop's own check.
    plan = Plan(job.recipe, shape, job.inputs["pack"].directory, job.run_dir)
    check_same_recipe(saved, plan, job.inputs["pack"].content_hash)
    losses = step_losses(job.run_dir)
    pack = job.inputs["pack"]
    parts = [
        write_weights(job.directory, saved.shapes, saved.full, "fp32"),
        write_config(job.directory, shape, pack.content["info"]["eos_id"]),
        write_losses(job.directory, losses),
    ]
    tokens = total_sequences(job.recipe.train, shape.context) * shape.context
    already = origin_record(job.run_dir).get("streams")
    info = {
        "shape": shape_record(shape),
        "parameters": parameter_count(shape),
        "flops_per_token": flops_per_token(shape),
        "tokens": tokens,
        "steps": steps,
        "mix": plan_mix(pack, job.recipe, shape.context, already).record(),
        "guard": guard_summary(job.run_dir)[0],
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
        **guard_summary(run_dir)[1],
    }


def write_losses(directory: Path, losses: dict[int, float | None]) -> Part:
    def write(stream) -> int:
        for step, loss in losses.items():
            stream.write(canonical_json({"step": step, "loss": loss}) + b"\n")
        return len(losses)

    return write_part(directory, "losses.jsonl", write)


def describe(recipe: Recipe, shape: ModelShape, steps: int) -> str:
    train = recipe.train
    deepspeed = train.engine == "deepspeed"
    where = f"DeepSpeed ZeRO {train.zero_stage}" if deepspeed else "PyTorch"
    return (
        f"{parameter_count(shape):,} parameters, {train.tokens:,} tokens in {steps:,} steps, "
        f"{train.workers} worker{'s' * (train.workers > 1)}, {where}"
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
    """The step of the newest committed checkpoint, 0 if there is none (by name, not verified)."""
    return max(kept_steps(run_dir), default=0)


STAGES = {"train": run_train, "evaluate": run_evaluate, "export": run_export}
