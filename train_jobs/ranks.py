"""The few things ranks say to one another; one process without a group says them to itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Of a collective, behind the heartbeat: it must outlast what one rank may legitimately do alone.
TIMEOUT_S = 1200


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """The value of every rank, in order of rank, on every rank."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


def broadcast(value: Any) -> Any:
    """The value of rank 0 on every rank."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def total(values: list[float], device: torch.device) -> list[float]:
    """Sums over the ranks in float64, one collective; the same numbers on every rank."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor.tolist()


@contextlib.contextmanager
def group(number: int = 0, count: int = 1, rendezvous: str = "") -> Iterator[None]:
    """A process group outside Ray Train: `rendezvous` is a file path that all ranks share.

    The group is taken down at the end: a process that exits with an open group can abort there.
    """
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    os.environ.update(RANK=str(number), WORLD_SIZE=str(count), LOCAL_RANK=str(number))
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # a timeout ends the process
    limit = timedelta(seconds=TIMEOUT_S)
    if rendezvous:
        place = f"file://{rendezvous}"
        dist.init_process_group(
            backend, init_method=place, rank=number, world_size=count, timeout=limit
        )
    else:
        dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore())
    try:
        yield
        barrier()
    finally:
        _destroy_group()


def _destroy_group() -> None:
    """Through DeepSpeed where it has been at work: it keeps groups of its own, and the next
    training of this process would meet the old ones."""
    used = sys.modules.get("deepspeed.comm.comm")
    if used is not None and used.cdb is not None:
        used.destroy_process_group()
    else:
        dist.destroy_process_group()
