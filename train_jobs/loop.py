"""The training loop, one story from top to bottom; under Ray Train, under torchrun, or alone.

In: a `Plan` (recipe, shape, committed token shards, the run's folder). Out: checkpoints and metrics
in the run's folder, the last checkpoint being the result. Every rank runs `train`; what a step does
follows from its number, so a restart anywhere gives the same weights as no restart.
Reading order: this, then loader.py (what a step reads), engine.py, guard.py, checkpoint.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.model_size import ModelShape
from mutirao.core.recipe import Recipe
from train_jobs import ranks
from train_jobs.begin import begin_engine, training_identity
from train_jobs.engine import LEFT_OUT, Engine, Outcome, tensors
from train_jobs.guard import Guard
from train_jobs.heartbeat import Heartbeat
from train_jobs.heldout import heldout_losses
from train_jobs.integrity import check_weights, free_memory, same_loss_again
from train_jobs.loader import Batch, Loader
from train_jobs.memory import saying_what_fits
from train_jobs.profile import profiled
from train_jobs.prompts import sample_texts
from train_jobs.rollback import RollBack, note_rollback
from train_jobs.saver import Saver
from train_jobs.schedule import learning_rate, total_steps
from train_jobs.signs import WAITING
from train_jobs.watch import Log, Report, StopFlag


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    shape: ModelShape
    pack_dir: Path
    run_dir: Path
    tokenizer_dir: Path | None = None  # for sample texts
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
    due: bool = False  # a checkpoint

    def close(self) -> None:
        for part in (self.saver, self.log, self.pulse, self.stop):
            part.close()


def train(plan: Plan, report: Report = lambda row: None) -> int:
    """Run from the newest sound checkpoint to the end; returns the step reached.

    Fewer than `total_steps` means that somebody asked to stop. Raises UserError (disk full, nothing
    but bad steps) and RecipeError (the checkpoints are of another recipe).
    """
    back: dict[str, Any] | None = None
    while True:
        try:
            with saying_what_fits(plan.shape, plan.recipe.train):
                return attempt(plan, report, back)
        except RollBack as cause:  # every rank raises it at the same step
            settings, batch = plan.recipe.train.guard, plan.recipe.train.global_batch
            back = note_rollback(plan.run_dir, cause, settings, batch)
        free_memory()  # here nothing holds the engine of the attempt before


def attempt(plan: Plan, report: Report, back: dict[str, Any] | None = None) -> int:
    """From the newest checkpoint on, after a rollback (`back`) with a word about it.

    Raises RollBack where the guard wants to start again there."""
    steps = total_steps(plan.recipe.train, plan.shape.context)
    run = begin(plan, report)
    if back:
        run.log.event(what="rollback", to_step=run.step, **back)
    try:
        while run.step < steps and not run.stop.asked:
            with profiled(plan, run.log, run.pulse, run.step + 1):
                loss, outcome, rate = one_step(run, steps)
            last = run.step == steps or run.stop.asked
            watch(run, loss, outcome, rate, last)
            run.due |= run.step % run.plan.recipe.train.checkpoint_every == 0
            # Not among bad steps, so that a rollback leads to before them.
            if last or (run.due and not run.guard.bad):
                save(run)
                run.due = False
        run.saver.finish()
        note_written(run)
        return run.step
    except RollBack:
        run.pulse.at(run.step, "saving")
        run.saver.finish()  # back to the newest checkpoint, which may not be whole yet
        raise
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
    loader = Loader(pack, plan.recipe, context, plan.run_dir)
    loader.skips = ranks.broadcast(loader.skips)  # one list, whatever a rank sees of the folder
    guard.leave_out(loader.skips)
    return Training(
        plan,
        pack,
        loader,
        engine,
        guard,
        Saver(plan.run_dir, train),
        Log(plan, step, report),
        pulse,
        StopFlag(plan.run_dir),
        engine.micro,
        engine.passes,
        step,
    )


def one_step(run: Training, steps: int) -> tuple[float, Outcome, float]:
    """One optimizer step: (global loss in nats per token, what became of it, learning rate)."""
    train, step = run.plan.recipe.train, run.step
    rate = learning_rate(train, step, steps)
    run.pulse.at(step, "reading")
    with run.log.timed("data_s"):
        batch = run.loader.batch(step, ranks.rank(), ranks.world())
    tokens = real_tokens(run, batch)
    run.step += 1
    if not tokens:  # all of it is on the skip list, or has no answer to learn
        _, run.stop.asked = agree(run, 0.0, False)
        return float("nan"), LEFT_OUT, rate
    run.pulse.at(step, "computing")
    every = train.guard.recompute_every
    mine, sound = forward_backward(run, batch, tokens, twice=every > 0 and run.step % every == 0)
    run.pulse.at(step, WAITING)
    loss, run.stop.asked = agree(run, mine, not sound)
    if train.guard.weights_every and run.step % train.guard.weights_every == 0:
        check_weights(run.engine, run.step)  # before the update, which would write over a fault
    run.guard.whole = run.loader.real_sequences(step) == train.global_batch
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
    losses, sound = [], True
    scale = ranks.world() / tokens
    for number in range(run.passes):
        inputs = tensors(batch.rows(number * run.micro, run.micro), run.engine.device)
        loss = run.engine.accumulate(inputs, scale, last=number == run.passes - 1)
        if twice and number == 0:
            sound = same_loss_again(run.engine, inputs, loss, scale)
        losses.append(loss)  # read at the end: reading waits for the card
    return sum(map(float, losses)) / ranks.world(), sound


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
    note_written(run)
    if last or run.step % train.log_every == 0:
        run.log.flush()
    if run.step % train.eval_every == 0 or last:
        run.pulse.at(run.step, "held-out loss")
        with run.log.timed("beside_s"):
            found = heldout_losses(run.engine, run.pack, run.plan.shape.context, train)
        run.log.heldout(run.step, found)
    if train.sample_every and (run.step % train.sample_every == 0 or last):
        run.pulse.at(run.step, "sample texts")
        with run.log.timed("beside_s"):
            about = (run.pack, run.plan.shape.context, run.plan.tokenizer_dir)
            texts = sample_texts(run.engine, *about)
        run.log.note("sample", run.step, texts=texts)


def save(run: Training) -> None:
    """Only weights that agree are kept, so a rollback never leads to ones that do not."""
    run.pulse.at(run.step, "saving")
    run.log.flush()  # what comes before a checkpoint is not done again, so it is written now
    if run.plan.recipe.train.guard.weights_every:
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


def note_written(run: Training) -> None:
    """How long the write beside the training took, once the checkpoint is whole."""
    for row in run.saver.written():
        run.log.note("checkpoint", **row)
