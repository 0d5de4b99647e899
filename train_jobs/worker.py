"""What one training process does before the loop: threads, environment, then the loop itself.

Light to import: Ray pickles `train_worker` by name, and torch loads only where training happens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutirao.core import errors
from mutirao.core.errors import UserError
from mutirao.core.files import read_json, write_json
from mutirao.core.model_size import ModelShape
from mutirao.core.recipe import Recipe
from train_jobs.build_extensions import use_built_extensions

ERROR = "ranks/error.json"
FORMAT = 1


def train_worker(config: dict[str, Any]) -> None:
    """Entry point of a Ray Train worker; Ray has made the process group and takes it down.

    Ray starts the group again whatever went wrong. What a person has to mend would only be met
    again, so it is written down, the next group ends at once, and `fit` raises it."""
    run_dir = Path(config["run_dir"])
    if (run_dir / ERROR).exists():
        return
    try:
        prepare(config["threads"])
        from train_jobs.loop import train

        train(plan_of(config))
    except UserError as error:
        leave_error(run_dir, error)
        raise


def leave_error(run_dir: Path, error: UserError) -> None:
    record = {"format": FORMAT, "type": type(error).__name__, "arguments": error.__reduce__()[1]}
    (run_dir / ERROR).parent.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / ERROR, record)


def left_error(run_dir: Path) -> UserError | None:
    """The UserError that a worker of the last group wrote down."""
    path = run_dir / ERROR
    if not path.exists():
        return None
    record = read_json(path)
    return getattr(errors, record["type"], UserError)(*record["arguments"])


def clear_error(run_dir: Path) -> None:
    (run_dir / ERROR).unlink(missing_ok=True)


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
        tokenizer_dir=Path(config["tokenizer_dir"]),
        origin=Path(config["origin"]) if config.get("origin") else None,
    )
