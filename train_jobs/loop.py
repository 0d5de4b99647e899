"""The training loop, one story from top to bottom; under Ray Train, under torchrun, or alone.

In: a `Plan` (recipe, shape, committed token shards, the run's folder). Out: checkpoints and metrics
in the run's folder, the last checkpoint being the result. Every rank runs `train`; what a step does
follows from its number, so a restart anywhere gives the same weights as no restart.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mutirao.core.errors import RecipeError
from mutirao.core.files import write_json
from mutirao.core.identity import differences, section_identity
from mutirao.core.manifest import read_manifest
from mutirao.core.model_size import ModelShape, shape_record
from mutirao.core.recipe import Recipe
from train_jobs import checkpoint, ranks
from train_jobs.engine import DeepSpeedEngine, Engine, build_engine
from train_jobs.guard import SkipCount
from train_jobs.loader import Loader, heldout_batches
from train_jobs.model import build_model, token_losses
from train_jobs.schedule import learning_rate, total_steps
from train_jobs.watch import Log, Report, StopFlag

HELDOUT_SEQUENCES = 64  # of the loss shown while training; `evaluate` reads all of them


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    shape: ModelShape
    pack_dir: Path
    run_dir: Path


def train(plan: Plan, report: Report = lambda row: None) -> int:
    """Run from the newest sound checkpoint to the end; returns the step reached.

    Fewer than `total_steps` means that somebody asked to stop. Raises UserError (disk full, loss
    not finite) and RecipeError (the checkpoints are of another recipe).
    """
    t, context = plan.recipe.train, plan.shape.context
    steps = total_steps(t, context)
    pack = read_manifest(plan.pack_dir)
    assert pack is not None, plan.pack_dir
    loader = Loader(pack, plan.recipe, context)
    engine, step, skips = start(plan, pack.content_hash)
    log = Log(plan.run_dir, t, context, step, report)
    stop = StopFlag(plan.run_dir)

    while step < steps and not stop.asked:
        loss = forward_backward(engine, loader, t, step)
        loss, asked = agree(loss, stop, engine.device)
        outcome = engine.step(learning_rate(t, step, steps), loss)
        step += 1
        skips.note(outcome.skipped, step)

        last = step == steps or asked
        saving = last or step % t.checkpoint_every == 0
        log.step(step, loss, outcome.grad_norm, learning_rate(t, step - 1, steps), skips.total)
        if step % t.log_every == 0 or saving:
            log.flush()
        if step % t.eval_every == 0 or step == steps:
            log.heldout(step, *heldout_loss(engine, pack, context, t.micro_batch or 8))
        if saving:
            save(plan, engine, step, skips.total, pack.content_hash)
    log.close()
    stop.restore()
    return step


def forward_backward(engine: Engine, loader: Loader, train, step: int) -> float:
    """Gradients of the global mean loss of one step; returns this rank's part of that loss.

    A sequence's tokens weigh 1 / (real tokens of the global batch), a number that every rank knows
    from the step, so the result does not depend on how ranks and passes divide the batch.
    """
    inputs, labels, weights = loader.batch(step, ranks.rank(), ranks.world())
    tokens = loader.real_sequences(step) * loader.context
    micro, passes = passes_per_step(train, ranks.world())
    mine = 0.0
    for number in range(passes):
        here = slice(number * micro, (number + 1) * micro)
        ids, targets, weight = _tensors(
            engine.device, micro, inputs[here], labels[here], weights[here]
        )

        def loss_of(logits, targets=targets, weight=weight):
            summed = (token_losses(logits, targets) * weight[:, None]).sum()
            return summed * (ranks.world() / tokens)

        loss = engine.accumulate(ids, loss_of, last=number == passes - 1)
        mine += float(loss) / ranks.world()
    return mine


def agree(mine: float, stop: StopFlag, device: torch.device) -> tuple[float, bool]:
    """The global loss and whether any rank wants to stop: one collective, equal on every rank."""
    loss, votes = ranks.total([mine, float(stop.look())], device)
    stop.asked = votes > 0
    return loss, stop.asked


def start(plan: Plan, pack_hash: str) -> tuple[Engine, int, SkipCount]:
    """Model, engine and position: new from the seed, or as the newest sound checkpoint has them."""
    train = plan.recipe.train
    model = build_model(plan.shape, plan.recipe.seed)
    if train.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    found = ranks.broadcast(_newest_folder(plan.run_dir) if ranks.rank() == 0 else None)
    saved = checkpoint.Checkpoint(found) if found else None
    if saved:
        check_same_recipe(saved, plan, pack_hash)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(saved.full(name))
    engine = build_engine(model, train, *passes_per_step(train, ranks.world()))
    if isinstance(engine, DeepSpeedEngine) and ranks.rank() == 0:
        write_json(plan.run_dir / "deepspeed.json", engine.config)
    if not saved:
        return engine, 0, SkipCount()
    engine.restore(saved)
    return engine, saved.step, SkipCount(saved.state["skipped"])


def save(plan: Plan, engine: Engine, step: int, skipped: int, pack_hash: str) -> None:
    consumed = step * plan.recipe.train.global_batch
    state = {
        "adam_step": engine.adam_step(),
        "cursor": {"pack": pack_hash, "sequences": consumed},
        "skipped": skipped,
        # Nothing is drawn after the weights: order and dropout-free steps follow from the seed.
        "rng": {"seed": plan.recipe.seed},
        "identity": training_identity(plan),
    }
    shapes = model_shapes(engine)
    checkpoint.save(plan.run_dir, step, engine.slices(), shapes, state, plan.recipe.train.keep_last)


def model_shapes(engine: Engine) -> dict[str, list[int]]:
    """Full shapes by name; ZeRO 3 leaves a parameter empty and keeps its shape aside."""
    named = engine.module.named_parameters()
    return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in named}


@torch.no_grad()
def heldout_loss(engine: Engine, pack, context: int, rows: int) -> tuple[float, int]:
    """Mean loss in nats per token over the first held-out sequences, and how many tokens."""
    eos = pack.content["info"]["eos_id"]
    engine.module.eval()
    summed, tokens = 0.0, 0.0
    for number, batch in enumerate(heldout_batches(pack, context, rows, eos, HELDOUT_SEQUENCES)):
        # ZeRO 3 gathers each layer on all ranks together, so every rank walks through every batch.
        mine = number % ranks.world() == ranks.rank()
        if not mine and not hasattr(next(engine.module.parameters()), "ds_id"):
            continue
        ids, labels, weights = (torch.from_numpy(a).to(engine.device) for a in batch)
        losses = token_losses(engine.forward(ids), labels) * weights
        summed += float(losses.sum()) * mine
        tokens += float(weights.sum()) * mine
    engine.module.train()
    summed, tokens = ranks.total([summed, tokens], engine.device)
    return summed / max(1.0, tokens), int(tokens)


def passes_per_step(train, world: int) -> tuple[int, int]:
    """Sequences per pass and passes per step on each rank."""
    share = -(-train.global_batch // world)
    micro = min(train.micro_batch or share, share)
    return micro, -(-share // micro)


def training_identity(plan: Plan) -> dict[str, Any]:
    """What makes it this training. The shape besides the recipe: a preset's name may come to mean
    other dimensions with another version."""
    return {
        **section_identity(plan.recipe, ("model", "train", "mix", "seed")),
        "shape": shape_record(plan.shape),
    }


def check_same_recipe(saved: checkpoint.Checkpoint, plan: Plan, pack_hash: str) -> None:
    changed = differences(saved.state["identity"], training_identity(plan))
    if saved.state["cursor"]["pack"] != pack_hash:
        changed.append("pack: other token shards")
    if changed:
        raise RecipeError(
            f"The checkpoints of this run are of another recipe: {'; '.join(changed)}",
            str(saved.folder),
            "Undo the change to continue, or start another run with --new.",
            "other-recipe",
        )


def _newest_folder(run_dir: Path) -> Path | None:
    found = checkpoint.newest(run_dir, lambda line: print(line, file=sys.stderr, flush=True))
    return found.folder if found else None


def _tensors(device: torch.device, micro: int, *arrays) -> list[torch.Tensor]:
    """Tensors on the device with `micro` rows: a short last pass is filled up, weight 0."""
    found = []
    for array in arrays:
        tensor = torch.from_numpy(array).to(device)
        missing = micro - tensor.size(0)
        if missing:
            tensor = torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))])
        found.append(tensor)
    return found
