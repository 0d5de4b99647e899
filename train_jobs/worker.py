"""What one training process does before the loop: threads, environment, then the loop itself.

Light to import: Ray pickles `train_worker` by name, and torch loads only where training happens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutirao.core.model_size import ModelShape
from mutirao.core.recipe import Recipe
from train_jobs.build_extensions import use_built_extensions


def train_worker(config: dict[str, Any]) -> None:
    """Entry point of a Ray Train worker; Ray has made the process group and takes it down."""
    prepare(config["threads"])
    from train_jobs.loop import train

    train(plan_of(config))


def run_here(config: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """The same in this process, with one rank and no Ray."""
    prepare(config["threads"])
    from train_jobs import ranks
    from train_jobs.loop import train

    plan = plan_of(config)
    if plan.recipe.train.engine == "deepspeed":
        with ranks.group():
            train(plan, report)
    else:
        train(plan, report)


def prepare(threads: int) -> None:
    """threads: for torch on this worker, 0 to leave its own choice."""
    use_built_extensions()
    import torch

    if threads and not torch.cuda.is_available():
        torch.set_num_threads(threads)


def plan_of(config: dict[str, Any]) -> Any:
    from train_jobs.loop import Plan

    return Plan(
        Recipe.model_validate(config["recipe"]),
        ModelShape(**config["shape"]),
        Path(config["pack_dir"]),
        Path(config["run_dir"]),
    )
