"""Ray Train: place the workers, start them, start them again when one dies or the machines change.

In: a stage job and the plan for the workers. Out: nothing; what training made is in the run's
folder. The checkpoints are ours, so Ray is told of none and its restarted group finds the newest;
any number of workers between `min_workers` and `workers` divides the same global batch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupTimeoutError,
)
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from mutirao.core.errors import EnvironmentProblem, UserError
from mutirao.core.job import StageJob
from mutirao.core.metrics import read_metrics
from mutirao.core.recipe import Train
from train_jobs.ranks import TIMEOUT_S
from train_jobs.worker import clear_error, left_error, train_worker

RESIZE_S = 30.0  # between looks whether there is room for more workers
NO_ROOM = 10  # minutes without room for the workers before the run ends


def fit(job: StageJob, plan: dict[str, Any]) -> None:
    """One TorchTrainer; Ray must be initialised. A dead worker restarts the whole group.

    Raises the UserError of a worker; EnvironmentProblem where workers died too often (code
    workers-died, stalled) or there is no room for them (no-room)."""
    train = job.recipe.train
    gpus = ray.cluster_resources().get("GPU", 0)
    check_room(train, gpus)
    clear_error(job.run_dir)
    before = len(stalls(job.run_dir))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=plan,
        scaling_config=scaling(train, gpus),
        torch_config=TorchConfig(backend="nccl" if gpus > 0 else "gloo", timeout_s=TIMEOUT_S),
        run_config=RunConfig(
            name=f"attempt-{os.getpid()}-{time.time_ns()}",  # never Ray's own resume: ours is exact
            storage_path=str((job.run_dir / "ray_train").resolve()),
            failure_config=FailureConfig(
                max_failures=train.max_restarts, controller_failure_limit=NO_ROOM
            ),
        ),
    )
    error = in_thread(trainer.fit)
    if (left := left_error(job.run_dir)) is not None:
        raise left
    if error is not None:
        raise user_error(error) or died(job, error, stalls(job.run_dir)[before:]) or error


def scaling(train: Train, gpus: float) -> ScalingConfig:
    """As many workers as there is room for, from min_workers to workers; 0: all or none."""
    elastic = 0 < train.min_workers < train.workers
    return ScalingConfig(
        num_workers=(train.min_workers, train.workers) if elastic else train.workers,
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": 1, "GPU": 1} if gpus > 0 else {"CPU": 1},
        elastic_resize_monitor_interval_s=RESIZE_S,
    )


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


def check_room(train: Train, gpus: float) -> None:
    """Ray would wait for resources that the cluster does not have."""
    have = int(gpus) if gpus else int(ray.cluster_resources().get("CPU", 0))
    field = "min_workers" if train.min_workers else "workers"
    need = train.min_workers or train.workers
    if need > have:
        raise EnvironmentProblem(
            f"train.{field} is {need}, but Ray has {have} {'GPUs' if gpus else 'CPUs'}",
            f"train.{field}",
            f"Set --set train.{field}={max(1, have)}; the run continues the same either way.",
            "no-room",
        )


def stalls(run_dir: Path) -> list[str]:
    """Who stood still so far, as the heartbeats said it."""
    return [row["detail"] for row in read_metrics(run_dir, "event") if row["what"] == "stall"]


def died(job: StageJob, error: Exception, stalled: list[str]) -> EnvironmentProblem | None:
    """Ray's error about workers that died, or for which there was no room, as one sentence."""
    again = "Run the same command again to continue from the last checkpoint."
    train, where = job.recipe.train, str(job.run_dir)
    cause = getattr(error, "controller_failure", None)
    if isinstance(cause, WorkerGroupStartupTimeoutError | InsufficientClusterResourcesError):
        problem = f"There was no room for the workers of train.workers={train.workers}"
        hint = f"{again} train.min_workers lets it go on with fewer."
        return EnvironmentProblem(problem, where, hint, "no-room")
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return None
    often = f"after {train.max_restarts} restarts (train.max_restarts)"
    if stalled:
        problem = f"Training stood still, also {often}: {stalled[-1]}"
        return EnvironmentProblem(problem, where, again, "stalled")
    rank, cause = sorted(failures.items())[0]
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    problem = f"A worker died, also {often}: rank {rank}: {first}"
    return EnvironmentProblem(problem, where, again, "workers-died")


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
