"""Where an attempt begins: the model of the seed, of `train.from`, or of the newest checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mutirao.core.errors import RecipeError
from mutirao.core.files import write_json
from mutirao.core.identity import differences, section_identity
from mutirao.core.model_size import sequences_per_pass, shape_record
from mutirao.core.recipe import Train
from train_jobs import checkpoint, ranks
from train_jobs.engine import DeepSpeedEngine, Engine, build_engine
from train_jobs.model import build_model

if TYPE_CHECKING:
    from train_jobs.loop import Plan


def begin_engine(plan: Plan, pack_hash: str) -> tuple[Engine, checkpoint.Checkpoint | None]:
    """The engine with its weights, and the checkpoint of this run that they came from."""
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
    if saved:
        engine.restore(saved)
    return engine, saved


def passes_per_step(train: Train, world: int) -> tuple[int, int]:
    """Sequences per pass and passes per step on each rank."""
    micro = sequences_per_pass(train, world)
    return micro, -(-train.global_batch // (world * micro))


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
