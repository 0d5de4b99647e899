"""Faults of the machine: a pass that computes another loss the second time, weights that should be
equal and are not.

In: a live engine. Out: nothing while all is well, else `RollBack` on every rank, which names the
rank. What neither check catches:
- a fault between two checks whose trace is gone by the next: ZeRO writes its low-precision weights
  anew from the fp32 masters at each step, so a flip in them spoils one gradient and is gone;
- a fault in the gradients, the activations of another pass, the reduction, or Adam's arithmetic
  under ZeRO (each slice is computed by one rank);
- a flip in Adam's moments under ZeRO, in the bits of a master below the low precision, and with
  ZeRO 3 in fp32, where the master is the only copy (moments under plain DDP are compared);
- a flip too small to move the fp32 loss of the repeated pass, and a fault in the backward pass;
- a fault that is the same on all ranks; with one rank and the torch engine, any in the weights.
"""

from __future__ import annotations

import gc
from collections import Counter

import torch
import torch.distributed as dist

from train_jobs import ranks
from train_jobs.engine import Engine
from train_jobs.rollback import RollBack

# The repeated pass builds no graph, so CUDA may take other kernels, whose sums round otherwise.
CUDA_TOLERANCE = 1e-3


@torch.no_grad()
def same_loss_again(
    engine: Engine, inputs: dict[str, torch.Tensor], loss: torch.Tensor, scale: float
) -> bool:
    """Forward of the same micro-batch with the same weights; under ZeRO 3 every rank takes part.

    Equal bits on CPU, within CUDA_TOLERANCE (relative) on CUDA. A loss that is not finite both
    times is the same: that is the data's, and the guard's to judge."""
    first, again = float(loss), float(engine.loss(inputs) * scale)
    tolerance = CUDA_TOLERANCE if engine.device.type == "cuda" else 0.0
    equal = torch.isclose(
        torch.tensor(again), torch.tensor(first), rtol=tolerance, atol=0.0, equal_nan=True
    )
    return bool(equal)


@torch.no_grad()
def check_weights(engine: Engine, step: int) -> None:
    """Raises RollBack (memory-fault) on every rank where weights that should be equal are not.

    Two kinds: what every rank holds whole is compared across ranks by `checksum` (weights; under
    plain DDP also Adam's moments), and each rank's fp32 masters, cast, with the low-precision
    weights made of them (ZeRO). One small collective; more is said only after a mismatch. Called
    before an update it covers the time since the last one, in which weights only stand and are
    read. Cost: one pass over the weights."""
    sums, casts = replica_sums(engine), cast_faults(engine)
    if not _any_rank_differs(sums, casts, engine.device):
        return
    faults = _named(ranks.gather((sums, casts)))
    raise RollBack("memory-fault", step, faults)


def replica_sums(engine: Engine) -> dict[str, int]:
    """Checksums by name of what every rank holds whole; {} for one rank, and for ZeRO 3, whose
    ranks hold slices."""
    if ranks.world() == 1 or engine.gathers:
        return {}
    named = {}
    for name, parameter in engine.module.named_parameters():
        named[name] = checksum(parameter.data)
        # Plain DDP keeps moments by parameter; ZeRO keeps them by its own flat slices.
        for kind, tensor in engine.optimizer.state.get(parameter, {}).items():
            if kind != "step":
                named[f"{name}/{kind}"] = checksum(tensor)
    values = torch.stack(list(named.values())).tolist() if named else []  # one copy to the host
    return dict(zip(named, values, strict=True))


def cast_faults(engine: Engine) -> list[str]:
    """Names of this rank's parameters whose low-precision weights are not its masters, cast."""
    parameters = dict(engine.module.named_parameters())
    differ = {}
    for piece in engine.slices():
        low = low_precision(parameters[piece.name], piece.start, piece.numel)
        if low.data_ptr() != piece.master.data_ptr():  # else it is the only copy
            cast = piece.master.detach().to(low.dtype).to(low.device)
            differ[piece.name] = (bits(low) != bits(cast)).any()
    found = torch.stack(list(differ.values())).tolist() if differ else []
    return [name for name, bad in zip(differ, found, strict=True) if bad]


def low_precision(parameter: torch.Tensor, start: int, numel: int) -> torch.Tensor:
    """Elements [start, start + numel) of a flattened parameter as the forward pass reads them.
    ZeRO 3 holds this rank's part in `ds_tensor`, from its first element on."""
    partition = getattr(parameter, "ds_tensor", None)
    if partition is not None:
        return partition.detach().view(-1)[:numel]
    return parameter.detach().view(-1)[start : start + numel]


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """int64 scalar on the tensor's device: the sum of its memory in words of 64 bits (the rest by
    elements), modulo 2^64. Any change of one word changes it; an exchange of two does not. 0.45 ns
    an fp32 element on one core; a sum with a factor for each place took 6.6."""
    flat = bits(tensor.detach().reshape(-1))
    a_word = 8 // flat.element_size()
    if flat.storage_offset() % a_word:  # no view of words begins inside one
        flat = flat.clone()
    whole = flat.numel() // a_word * a_word
    return flat[:whole].view(torch.int64).sum() + flat[whole:].sum(dtype=torch.int64)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as integers of the same size: -0.0 is not 0.0, and NaN equals itself."""
    return tensor.view({1: torch.int8, 2: torch.int16, 4: torch.int32}[tensor.element_size()])


def _any_rank_differs(sums: dict[str, int], casts: list[str], device: torch.device) -> bool:
    """The largest of each value and of its complement over the ranks: equal means all are."""
    values = torch.tensor([*sums.values(), 0], dtype=torch.int64, device=device)
    both = torch.cat([values, ~values, torch.tensor([len(casts)], device=device)])
    if ranks.world() > 1:
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
    count = len(values)
    return bool((both[:count] != ~both[count:-1]).any()) or bool(both[-1])


def _named(by_rank: list[tuple[dict[str, int], list[str]]]) -> str:
    """Who differs in what: the minority where there is one, else all of the ranks."""
    found: dict[tuple[int, ...], list[str]] = {}
    for rank, (_, casts) in enumerate(by_rank):
        if casts:
            found[(rank,)] = [f"{name} is not its master, cast" for name in casts]
    alone = {rank for who in found for rank in who}  # known by its own master
    for name in by_rank[0][0]:
        who = minority([sums[name] for sums, _ in by_rank])
        if who and not alone & set(who):
            found.setdefault(who, []).append(name)
    return "; ".join(_told(who, names) for who, names in found.items())


def _told(who: tuple[int, ...], names: list[str]) -> str:
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    if len(who) == 1:
        return f"rank {who[0]}: {names[0]}{more}"
    return f"ranks {', '.join(map(str, who))} differ: {names[0]}{more}"


def minority(values: list[int]) -> tuple[int, ...]:
    """Ranks whose value is not that of more than half; all ranks where no value is; () if equal."""
    value, count = Counter(values).most_common(1)[0]
    if count == len(values):
        return ()
    if 2 * count <= len(values):
        return tuple(range(len(values)))
    return tuple(rank for rank, other in enumerate(values) if other != value)


def free_memory() -> None:
    """Give back what an engine that nothing refers to any more held: it refers to itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
