"""Memory of cards and machines: what a training needs, what is there, and what would fit.

In: the shape, the recipe's `train` section, bytes. Out: an error that says what was needed, what
was free, who else holds the card, and the `--set` that fits at the same global batch. The thinking
is pure; torch, NVML and psutil are asked at the end of the file.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mutirao.core.errors import EnvironmentProblem
from mutirao.core.model_size import ModelShape, memory_per_worker, sequences_per_pass
from mutirao.core.recipe import Train

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
PROCESS_BYTES = 600_000_000  # of a worker beside the model: Python, torch, DeepSpeed, Ray
# Cheapest first: each lessens the memory of a worker and leaves the result as it is.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"gradient_checkpointing": True},
    {"zero_stage": 3},
    {"gradient_checkpointing": True, "zero_stage": 3},
    {"gradient_checkpointing": True, "zero_stage": 3, "offload": "optimizer"},
)


@dataclass(frozen=True)
class Place:
    """A card (or the machine, on CPU) as it was when memory ran out; bytes."""

    name: str
    used: int  # by this worker
    free: int
    total: int
    others: tuple[tuple[int, str, int], ...] = ()  # (pid, name, bytes) of other processes


def out_of_memory(
    shape: ModelShape, train: Train, cuda: bool, place: Place, wanted: int
) -> EnvironmentProblem:
    """wanted: bytes that could not be had. What fits is by the estimate of `memory_per_worker`,
    raised by the ratio of what was needed here to what it says of this recipe."""
    needed = place.used + wanted
    estimate = memory_per_worker(shape, train, cuda)["total"]
    fit = settings_that_fit(shape, train, cuda, place.used + place.free, needed / estimate)
    hint = [as_command(fit, "the result stays the same, and the run continues")]
    if place.others:
        held = ", ".join(f"{name} (pid {pid}, {_gb(size)})" for pid, name, size in place.others)
        hint.insert(0, f"Others hold memory of it: {held}.")
    return EnvironmentProblem(
        f"Out of memory: the training held {_gb(place.used)} and wanted {_gb(wanted)} more, where "
        f"{_gb(place.free)} of {_gb(place.total)} were free",
        place.name,
        "\n  ".join(hint),
        "out-of-memory",
    )


def check_host_memory(shape: ModelShape, train: Train, total: int | None = None) -> None:
    """For workers that compute on this machine's CPUs: raises EnvironmentProblem where they cannot
    fit. total: bytes of the machine (default: its memory or the container's limit)."""
    total = machine_bytes() if total is None else total
    smallest = train.micro_batch == "auto"
    asked = train.model_copy(update={"micro_batch": 1}) if smallest else train
    needed = memory_per_worker(shape, asked, cuda=False)["total"] + PROCESS_BYTES
    if needed * train.workers <= total:
        return
    capacity = total // train.workers - PROCESS_BYTES
    fit = settings_that_fit(shape, train, False, capacity)
    raise EnvironmentProblem(
        f"{train.workers} workers need about {_gb(needed * train.workers)}, "
        f"and this machine has {_gb(total)}",
        "train.workers",
        as_command(fit, "the result stays the same"),
        "no-memory",
    )


def settings_that_fit(
    shape: ModelShape, train: Train, cuda: bool, capacity: int, ratio: float = 1.0
) -> dict[str, Any] | None:
    """Fields of `train` with which a worker stays under `capacity` bytes, the cheapest that do;
    None where none does. ratio: by how much the estimate is to be raised, at least 1."""
    for way in WAYS:
        if not _possible(way, train, cuda):
            continue
        changed = train.model_copy(update=way)
        for micro in _halves(sequences_per_pass(train, train.workers)):
            trial = changed.model_copy(update={"micro_batch": micro})
            estimate = memory_per_worker(shape, trial, cuda)["total"]
            if trial != train and estimate * max(1.0, ratio) <= capacity:
                return {"micro_batch": micro, **_changes(way, train)}
    return None


def as_command(fit: dict[str, Any] | None, meanwhile: str) -> str:
    if fit is None:
        return "No setting makes it fit: take a smaller model, more workers or a larger machine."
    shown = {k: str(v).lower() if isinstance(v, bool) else v for k, v in fit.items()}
    sets = " ".join(f"--set train.{name}={value}" for name, value in shown.items())
    return f"This fits by the estimate: {sets} ({meanwhile})."


def _possible(way: dict[str, Any], train: Train, cuda: bool) -> bool:
    sharded = train.engine == "deepspeed" and train.workers > 1
    if way and not _changes(way, train):
        return False
    if "zero_stage" in way and not sharded:
        return False
    return "offload" not in way or cuda


def _changes(way: dict[str, Any], train: Train) -> dict[str, Any]:
    return {name: value for name, value in way.items() if getattr(train, name) != value}


def _halves(most: int) -> Iterator[int]:
    while most >= 1:
        yield most
        most //= 2


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


@contextlib.contextmanager
def saying_what_fits(shape: ModelShape, train: Train) -> Iterator[None]:
    """Turns torch's error of a full card into EnvironmentProblem (code out-of-memory)."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        place = card() if torch.cuda.is_available() else host()
        cuda = torch.cuda.is_available()
        raise out_of_memory(shape, train, cuda, place, wanted_bytes(str(error))) from error


def wanted_bytes(message: str) -> int:
    """Of torch's "Tried to allocate 2.00 GiB"; 0 where it does not say."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", message)
    units = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    return int(float(found[1]) * units[found[2]]) if found else 0


def machine_bytes() -> int:
    """Memory of this machine, or of this container where it has less."""
    sizes = [psutil.virtual_memory().total]
    for path in map(Path, CGROUP_LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def host() -> Place:
    memory = psutil.virtual_memory()
    used = psutil.Process().memory_info().rss
    return Place(f"memory of {socket.gethostname()}", used, memory.available, memory.total)


def card() -> Place:
    """The card of this worker."""
    import torch

    free, total = torch.cuda.mem_get_info()
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    name = f"{properties.name}, card {torch.cuda.current_device()} of {socket.gethostname()}"
    others = tuple(holders(f"GPU-{properties.uuid}"))
    return Place(name, torch.cuda.memory_reserved(), free, total, others)


def holders(uuid: str, library: Any = None) -> Iterator[tuple[int, str, int]]:
    """(pid, name, bytes) of the other processes on a card; none where NVML does not tell."""
    try:
        library = library or importlib.import_module("pynvml")
        library.nvmlInit()
        handle = library.nvmlDeviceGetHandleByUUID(uuid)
        running = list(library.nvmlDeviceGetComputeRunningProcesses(handle))
    except Exception:  # no driver, no such card, no permission: the report goes on without it
        return
    for process in running:
        if process.pid != os.getpid():
            yield process.pid, _process_name(process.pid), process.usedGpuMemory or 0


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:  # another container's
        return "a process"
