"""Ray Train: place the workers, start them, start them again when one dies.

In: a stage job and the plan for the workers. Out: nothing; what training made is in the run's
folder. The checkpoints are ours, so Ray is told of none and its restarted group finds the newest.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from mutirao.core.errors import EnvironmentProblem, UserError
from mutirao.core.job import StageJob
from train_jobs.worker import train_worker


def fit(job: StageJob, plan: dict[str, Any]) -> None:
    """One TorchTrainer; Ray must be initialised. A dead worker restarts the whole group."""
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
    error = in_thread(trainer.fit)
    if error is not None:
        raise user_error(error) or error


def in_thread(work: Callable[[], Any]) -> Exception | None:
    """Run `work` beside the main thread, which stays free for our signal handlers: Ray would put
    its own on Ctrl-C, one that aborts without a checkpoint. Returns the exception, if any."""
    problems: list[Exception] = []

    def target() -> None:
        try:
            work()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.5)
    return problems[0] if problems else None


def check_room(workers: int, gpus: float) -> None:
    """Ray would wait for ever for resources that the cluster does not have."""
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
