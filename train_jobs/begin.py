"""Where an attempt begins: the model of the seed, of `train.from`, or of the newest checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutirao.core.errors import RecipeError
from mutirao.core.files import write_json
from mutirao.core.identity import differences, section_identity
from mutirao.core.model_size import shape_record
from mutirao.core.run_steps import origin_record
from train_jobs import checkpoint, ranks
from train_jobs.engine import Engine, build_engine
from train_jobs.micro_batch import passes_per_step, sequences_at_once
from train_jobs.model import build_model
from train_jobs.origin import check_shape, load_weights, note_origin, open_origin

if TYPE_CHECKING:
    from train_jobs.loop import Plan


def begin_engine(plan: Plan, pack_hash: str) -> tuple[Engine, checkpoint.Checkpoint | None]:
    """The engine with its weights, and the checkpoint of this run that they came from."""
    train = plan.recipe.train
    model = build_model(plan.shape, plan.recipe.seed, train)
    if train.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    found = ranks.broadcast(_newest_folder(plan.run_dir) if ranks.rank() == 0 else None)
    saved = checkpoint.Checkpoint(found) if found else None
    if saved:
        check_same_recipe(saved, plan, pack_hash)
    source = saved or (begin_from(plan, pack_hash) if plan.origin else None)
    if source:
        load_weights(model, source)
    micro = sequences_at_once(model, plan.shape, train, plan.run_dir)
    engine = build_engine(model, train, *passes_per_step(train, ranks.world(), micro))
    if engine.config and ranks.rank() == 0:
        write_json(plan.run_dir / "deepspeed.json", engine.config)
    if source and (saved or train.from_optimizer):
        engine.restore(source)
    return engine, saved


def begin_from(plan: Plan, pack_hash: str) -> Any:
    """The weights that `train.from` leads to, where the run has no checkpoint of its own. Raises
    UserError on every rank alike."""
    assert plan.origin is not None
    check_shape(plan.origin, plan.shape)
    note_origin(plan.run_dir, plan.origin, plan.recipe, pack_hash, plan.shape.context)
    return open_origin(plan.origin)


def training_identity(plan: Plan) -> dict[str, Any]:
    """What makes it this training. The shape besides the recipe: a preset's name may come to mean
    other dimensions with another version."""
    return {
        **section_identity(plan.recipe, ("model", "train", "mix", "seed")),
        "shape": shape_record(plan.shape),
        **({"origin": origin["sha256"]} if (origin := origin_record(plan.run_dir)) else {}),
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
