"""How many sequences go through the model at once: as the recipe says, or as many as fit.

`train.micro_batch: auto` is answered once and kept in the run's folder (micro_batch.json), so a
resumed run divides its batch as before and ends with the same bits. On a card real passes are made,
two times larger each, until memory runs out; on CPU the estimate is held against the memory that
is free. Weights, moments and random numbers stay as they are.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from mutirao.core.files import read_json, write_json
from mutirao.core.model_size import (
    ModelShape,
    memory_per_worker,
    sequences_per_pass,
    shape_record,
)
from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.engine import agreed_precision, autocast, device
from train_jobs.memory import PROCESS_BYTES

FORMAT = 1
NAME = "micro_batch.json"
# What the answer depends on, beside the workers, the shape and the device.
SETTINGS = (
    *("engine", "zero_stage", "offload", "gradient_checkpointing", "compile", "attention"),
    *("kernels", "dtype", "global_batch", "document_mask"),
)
SPARE = 0.05  # of a card, left free: fragments, the communication's buffers


def passes_per_step(train: Train, world: int, micro: int) -> tuple[int, int]:
    """(sequences per pass, passes per step) on each rank; the last pass is filled up, so the same
    number of passes is made of as few sequences as will do."""
    share = -(-train.global_batch // world)
    passes = -(-share // micro)
    return micro if train.micro_batch != "auto" else -(-share // passes), passes


def sequences_at_once(
    model: torch.nn.Module, shape: ModelShape, train: Train, run_dir: Path
) -> int:
    """On every rank the same. Raises torch.OutOfMemoryError where not even one sequence fits."""
    most = sequences_per_pass(train, ranks.world())
    if train.micro_batch != "auto":
        return most
    about = _about(train, shape)
    known = ranks.broadcast(_known(run_dir, about) if ranks.rank() == 0 else None)
    if known:
        return known
    found = min(ranks.gather(_fitting(model, shape, train, most, agreed_precision(train))))
    if ranks.rank() == 0:
        write_json(run_dir / NAME, {"format": FORMAT, "micro_batch": found, "for": about})
    return found


def _fitting(
    model: torch.nn.Module, shape: ModelShape, train: Train, most: int, precision: str
) -> int:
    where = device()
    if where.type == "cuda":
        aside = held_bytes(shape, train)
        return probe(model, shape, most, where, aside, precision, train.document_mask)
    here = ranks.gather(socket.gethostname()).count(socket.gethostname())
    return by_estimate(shape, train, most, psutil.virtual_memory().available // here)


def by_estimate(shape: ModelShape, train: Train, most: int, available: int) -> int:
    """The largest micro-batch, by doubling, whose estimate is at most half of `available` bytes;
    at least 1. The other half is for the data, the checkpoint's copy and an estimate too low."""

    def fits(micro: int) -> bool:
        trial = train.model_copy(update={"micro_batch": micro})
        needed = memory_per_worker(shape, trial, cuda=False)["total"] + PROCESS_BYTES
        return needed <= available / 2

    return max(1, largest(most, fits))


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """The last of 1, 2, 4, ..., most that fits; 0 if 1 does not."""
    found, trial = 0, 1
    while fits(trial):
        found = trial
        if trial == most:
            break
        trial = min(2 * trial, most)
    return found


def probe(
    model: torch.nn.Module,
    shape: ModelShape,
    most: int,
    where: torch.device,
    held: int = 0,
    precision: str = "fp32",
    document_mask: bool = False,
) -> int:
    """The largest micro-batch, by doubling, whose forward and backward pass fits on `where` beside
    `held` bytes. Raises torch.OutOfMemoryError where 1 does not."""
    full: list[torch.OutOfMemoryError] = []

    def fits(micro: int) -> bool:
        try:
            one_pass(model, shape, micro, where, precision, document_mask)
        except torch.OutOfMemoryError as error:
            full.append(error.with_traceback(None))  # its frames hold the tensors of the pass
            return False
        finally:
            model.zero_grad(set_to_none=True)
            _give_back(where)
        return True

    before = next(model.parameters()).device
    cards = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(cards):
        model.to(where)
        aside = torch.empty(held, dtype=torch.uint8, device=where)
        found = largest(most, fits)
        del aside
        model.to(before)
        _give_back(where)
    if not found:
        raise full[0]
    return found


def one_pass(
    model: torch.nn.Module,
    shape: ModelShape,
    micro: int,
    where: torch.device,
    precision: str,
    document_mask: bool,
) -> None:
    """Forward and backward of `micro` whole sequences, in the precision of the training."""
    size = (micro, shape.context)
    ids = (torch.arange(micro * shape.context, device=where) % shape.vocab_size).view(size)
    inputs: dict[str, torch.Tensor] = {"input_ids": ids, "labels": ids}
    inputs["weights"] = torch.ones(size, device=where)
    if document_mask:
        inputs["position_ids"] = torch.arange(shape.context, device=where).expand(size)
    with autocast(where, precision):
        loss = model(**inputs)
    loss.backward()


def held_bytes(shape: ModelShape, train: Train) -> int:
    """What the training keeps on the card beside the fp32 weights and gradients of the probe."""
    needed = memory_per_worker(shape, train, cuda=True)
    states = needed["parameters"] + needed["gradients"] + needed["optimizer"]
    there = memory_per_worker(shape, train.model_copy(update={"engine": "torch"}), cuda=True)
    spare = int(SPARE * torch.cuda.get_device_properties(device()).total_memory)
    return spare + max(0, states - there["parameters"] - there["gradients"])


def _give_back(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
        torch.cuda.empty_cache()


def _about(train: Train, shape: ModelShape) -> dict[str, Any]:
    cuda = device().type == "cuda"
    settings = {name: getattr(train, name) for name in SETTINGS}
    where = torch.cuda.get_device_name() if cuda else "cpu"
    return {"workers": ranks.world(), "device": where, "shape": shape_record(shape), **settings}


def _known(run_dir: Path, about: dict[str, Any]) -> int | None:
    path = run_dir / NAME
    record = read_json(path) if path.exists() else {}
    return record["micro_batch"] if record.get("for") == about else None
