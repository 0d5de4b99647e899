"""The training loop, one story from top to bottom; under Ray Train, under torchrun, or alone.

In: a `Plan` (recipe, shape, committed token shards, the run's folder). Out: checkpoints and metrics
in the run's folder, the last checkpoint being the result. Every rank runs `train`; what a step does
follows from its number, so a restart anywhere gives the same weights as no restart.
Reading order: this, then loader.py (what a step reads), engine.py, guard.py, checkpoint.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.model_size import ModelShape
from mutirao.core.recipe import Recipe
from train_jobs import ranks
from train_jobs.begin import begin_engine, passes_per_step, training_identity
from train_jobs.checkpoint import Saver
from train_jobs.engine import LEFT_OUT, Engine, Outcome, tensors
from train_jobs.guard import Guard, RollBack, note_rollback
from train_jobs.heartbeat import Heartbeat
from train_jobs.heldout import heldout_losses
from train_jobs.integrity import check_weights, same_loss_again
from train_jobs.loader import Batch, Loader
from train_jobs.schedule import learning_rate, total_steps
from train_jobs.watch import Log, Report, StopFlag


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    shape: ModelShape
    pack_dir: Path
    run_dir: Path
    origin: Path | None = None  # where `train.from` leads: a checkpoint's or a Llama's folder


@dataclass
class Training:
    """What is in hand while an attempt goes on."""

    plan: Plan
    pack: Manifest
    loader: Loader
    engine: Engine
    guard: Guard
    saver: Saver
    log: Log
    pulse: Heartbeat
    stop: StopFlag
    micro: int  # sequences per pass
    passes: int  # per step
    step: int  # optimizer steps that are done

    def close(self) -> None:
        for part in (self.saver, self.log, self.pulse, self.stop):
            part.close()


def train(plan: Plan, report: Report = lambda row: None) -> int:
    """Run from the newest sound checkpoint to the end; returns the step reached.

    Fewer than `total_steps` means that somebody asked to stop. Raises UserError (disk full, nothing
    but bad steps) and RecipeError (the checkpoints are of another recipe).
    """
    while True:
        try:
            return attempt(plan, report)
        except RollBack as cause:  # every rank raises it at the same step
            note_rollback(plan.run_dir, cause, plan.recipe.train.guard)


def attempt(plan: Plan, report: Report) -> int:
    """From the newest checkpoint on. Raises RollBack where the guard wants to start again there."""
    steps = total_steps(plan.recipe.train, plan.shape.context)
    run = begin(plan, report)
    try:
        while run.step < steps and not run.stop.asked:
            loss, outcome, rate = one_step(run, steps)
            last = run.step == steps or run.stop.asked
            watch(run, loss, outcome, rate, last)
            if last or run.step % run.plan.recipe.train.checkpoint_every == 0:
                save(run)
        run.saver.finish()
        return run.step
    finally:
        run.close()


def begin(plan: Plan, report: Report) -> Training:
    """Model, engine and position: new from the seed, or as the newest sound checkpoint has them."""
    train, context = plan.recipe.train, plan.shape.context
    pack = read_manifest(plan.pack_dir)
    assert pack is not None, plan.pack_dir
    pulse = Heartbeat(plan.run_dir, train.stall_s)
    engine, saved = begin_engine(plan, pack.content_hash)
    step = saved.step if saved else 0
    guard = Guard(train.guard, saved.state.get("guard") if saved else None)
    engine.guard_with(guard)
    return Training(
        plan,
        pack,
        Loader(pack, plan.recipe, context, plan.run_dir),
        engine,
        guard,
        Saver(plan.run_dir, train),
        Log(plan, step, report),
        pulse,
        StopFlag(plan.run_dir),
        *passes_per_step(train, ranks.world()),
        step,
    )


def one_step(run: Training, steps: int) -> tuple[float, Outcome, float]:
    """One optimizer step: (global loss in nats per token, what became of it, learning rate)."""
    train, step = run.plan.recipe.train, run.step
    rate = learning_rate(train, step, steps)
    run.pulse.at(step, "reading")
    batch = run.loader.batch(step, ranks.rank(), ranks.world())
    tokens = real_tokens(run, batch)
    run.step += 1
    if not tokens:  # all of it is on the skip list, or has no answer to learn
        _, run.stop.asked = agree(run, 0.0, False)
        return float("nan"), LEFT_OUT, rate
    run.pulse.at(step, "computing")
    every = train.guard.recompute_every
    mine, sound = forward_backward(run, batch, tokens, twice=every > 0 and run.step % every == 0)
    run.pulse.at(step, "waiting for all ranks")
    loss, run.stop.asked = agree(run, mine, not sound)
    outcome = run.engine.step(rate, loss)  # the guard decides inside, on all ranks alike
    run.guard.note(run.step, loss, outcome, run.loader.range(step))
    return loss, outcome, rate


def real_tokens(run: Training, batch: Batch) -> int:
    """Tokens of the global batch that count in the loss: arithmetic, where every token counts."""
    known = run.loader.real_tokens(run.step)
    if known is not None:
        return known
    return int(ranks.total([float(batch.weights.sum())], run.engine.device)[0])


def forward_backward(run: Training, batch: Batch, tokens: int, twice: bool) -> tuple[float, bool]:
    """Gradients of the global mean loss of one step; returns this rank's part of that loss, and
    whether a repeated first pass (`twice`) gave the same.

    A token weighs 1 / (real tokens of the global batch), so the result does not depend on how
    ranks and passes divide the batch. Engines average over ranks, hence the factor `world`.
    """
    mine, sound = 0.0, True
    scale = ranks.world() / tokens
    for number in range(run.passes):
        inputs = tensors(batch.rows(number * run.micro, run.micro), run.engine.device)
        loss = run.engine.accumulate(inputs, scale, last=number == run.passes - 1)
        if twice and number == 0:
            sound = same_loss_again(run.engine, inputs, loss, scale)
        mine += float(loss) / ranks.world()
    return mine, sound


def agree(run: Training, mine: float, faulty: bool) -> tuple[float, bool]:
    """The global loss and whether any rank wants to stop: one collective, equal on every rank.

    Raises what went wrong on any rank since the last step: RollBack for a pass that gave another
    loss the second time, UserError for a checkpoint that could not be written.
    """
    said = [mine, float(run.stop.look()), float(faulty), float(run.saver.failed)]
    loss, stops, faults, failures = ranks.total(said, run.engine.device)
    if failures:
        run.saver.finish()
    if faults:
        raise RollBack.of_ranks("compute-fault", run.step, faulty)
    return loss, stops > 0


def watch(run: Training, loss: float, outcome: Outcome, rate: float, last: bool) -> None:
    train = run.plan.recipe.train
    run.log.step(run.step, loss, outcome, rate, run.guard)
    if last or run.step % train.log_every == 0:
        run.log.flush()
    if run.step % train.eval_every == 0 or last:
        run.pulse.at(run.step, "held-out loss")
        run.log.heldout(run.step, heldout_losses(run.engine, run.pack, run.plan.shape.context))
    every = train.guard.weights_every
    if every and run.step % every == 0:
        check_weights(run.engine, run.step)


def save(run: Training) -> None:
    """Only weights that agree are kept, so a rollback never leads to ones that do not."""
    run.pulse.at(run.step, "saving")
    check_weights(run.engine, run.step)
    state = {
        "adam_step": run.engine.adam_step(),
        "cursor": {
            "pack": run.pack.content_hash,
            "sequences": run.step * run.plan.recipe.train.global_batch,
            "streams": run.loader.read_so_far(run.step),
            "skips": run.loader.skips.ranges,
        },
        "guard": run.guard.state(),
        "scaler": run.engine.scaler_state(),
        # Nothing is drawn after the weights: order and dropout-free steps follow from the seed.
        "rng": {"seed": run.plan.recipe.seed},
        "identity": training_identity(run.plan),
    }
    stall_s = run.saver.begin(run.step, run.engine.slices(), run.engine.shapes(), state)
    run.log.saving(run.step, stall_s)
