"""A training step under PyTorch's profiler: `--set train.profile=[50,51]`.

In: the steps that the recipe names. Out, of rank 0: `runs/<id>/profile/step-50.json`, a Chrome
trace (chrome://tracing, ui.perfetto.dev), and a row of kind profile with the operations that took
most, which the driver says. A recorded step is slower than others; nothing else is touched.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from train_jobs import ranks

if TYPE_CHECKING:
    from train_jobs.heartbeat import Heartbeat
    from train_jobs.loop import Plan
    from train_jobs.watch import Log

FOLDER = "profile"
TOP = 10


@contextlib.contextmanager
def profiled(plan: Plan, log: Log, pulse: Heartbeat, step: int) -> Iterator[None]:
    """Record what happens inside, if `step` (as in the logs) is to be recorded."""
    if ranks.rank() or step not in plan.recipe.train.profile:
        yield
        return
    pulse.at(step - 1, "profile")
    cuda = torch.cuda.is_available()
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if cuda else [])]) as found:
        began = time.monotonic()
        yield
        if cuda:
            torch.cuda.synchronize()
        wall_s = time.monotonic() - began
        pulse.at(step, "profile")
    with log.timed("beside_s"):
        path = write_trace(found, plan.run_dir / FOLDER / f"step-{step}.json")
    where = str(path.relative_to(plan.run_dir))
    log.note("profile", step, file=where, wall_s=wall_s, top=busiest(found, cuda))


def write_trace(found: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    found.export_chrome_trace(str(part))
    os.replace(part, path)
    return path


def busiest(found: Any, cuda: bool) -> list[list[Any]]:
    """[[operation, calls, own seconds]] of the TOP operations, on the GPU where there is one."""
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = sorted(found.key_averages(), key=lambda one: -getattr(one, own))
    return [[one.key, one.count, getattr(one, own) / 1e6] for one in rows[:TOP]]
