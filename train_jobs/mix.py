"""How much of each token stream a training reads, and which stream stands at which position.

In: the streams' sizes in sequences, their weights and epoch caps, the sequences of the run. Out:
`quotas`, an exact number of sequences a stream (their sum is the run), and `Mix.locate`: position
of the run -> (stream, its k-th sequence). Weights say how often a token is read beside one of a
stream with weight 1; what an epoch cap leaves over goes to the other streams by weight.
Positions come in blocks: of a block that begins at s and ends at e, stream i has
floor(q_i e / T) - floor(q_i s / T) slots in a keyed order, so any position is found from its block
alone. Memory: two numbers a slot of one block (16 kB up to 32 streams), at 1T tokens too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from mutirao.core.errors import RecipeError
from train_jobs.order import permute

FORMAT = 1
BLOCK = 1_024  # positions; at least the square of the number of streams, see `_block_size`
LISTED = 6  # streams that an error names


@dataclass(frozen=True)
class Share:
    """What the recipe and the pack say about one stream."""

    name: str
    tokens: int
    sequences: int  # of the context, that an epoch has
    weight: float = 1.0
    max_epochs: float = 1.0
    already: int = 0  # sequences that the run's origin had read: this run goes on behind them

    def cap(self, total: int) -> int:
        """Most sequences of this stream in a run of `total`."""
        if not self.weight or not self.sequences:
            return 0
        if math.isinf(self.max_epochs):
            return total
        most = math.floor(self.sequences * Fraction(str(self.max_epochs)))
        return min(total, max(0, most - self.already))


class Mix:
    """The plan of a run; `shares[i]` and `quotas[i]` are of stream i of the pack."""

    def __init__(self, shares: list[Share], total: int, context: int, seed: int):
        self.shares, self.total, self.context, self.seed = shares, total, context, seed
        self.quotas = quotas(shares, total, context)
        used = [i for i, quota in enumerate(self.quotas) if quota]
        # The stream with most sequences takes what rounding leaves of a block.
        self.used = sorted(used, key=lambda i: (-self.quotas[i], i))
        self.block = _block_size(len(used))
        self.blocks = max(1, total // self.block)
        self._block_of: Callable[[int], tuple[np.ndarray, np.ndarray]] = lru_cache(4)(self._lay)

    def locate(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(stream, k) of each position of the run: the k-th sequence (from 0) read of the stream.
        int64 arrays of the shape of `position`; positions are below `total`."""
        position = np.asarray(position, dtype=np.int64)
        stream, k = np.empty_like(position), np.empty_like(position)
        block = np.minimum(position // self.block, self.blocks - 1)
        for number in np.unique(block):
            here = block == number
            streams, ranks = self._block_of(int(number))
            inside = position[here] - int(number) * self.block
            stream[here], k[here] = streams[inside], ranks[inside]
        return stream, k

    def _lay(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(stream, k) of every position of a block. k grows with the position, so an epoch of a
        stream ends before its next begins."""
        start = number * self.block
        end = self.total if number == self.blocks - 1 else start + self.block
        before, after = self.read_before(start), self.read_before(end)
        sizes = [after[i] - before[i] for i in self.used]
        slots = np.repeat(self.used, sizes)
        streams = slots[permute(np.arange(end - start), end - start, f"{self.seed}/mix/{number}")]
        ranks = np.empty(end - start, np.int64)
        for i in self.used:
            here = streams == i
            first = self.shares[i].already + before[i]
            ranks[here] = first + np.arange(int(here.sum()))
        return streams, ranks

    def read_before(self, position: int) -> dict[int, int]:
        """Sequences of each used stream before a position that begins a block (or the end)."""
        found = {i: self.quotas[i] * position // self.total for i in self.used[1:]}
        return {self.used[0]: position - sum(found.values()), **found}

    def read_until(self, position: int) -> list[int]:
        """Sequences of each stream before any position, with those that the origin had read: those
        of the whole blocks by arithmetic, the rest by looking into one block."""
        number = min(position // self.block, self.blocks - 1)
        start = number * self.block
        before = self.read_before(start)
        streams, _ = self._block_of(number)
        inside = np.bincount(streams[: position - start], minlength=len(self.shares))
        return [
            share.already + before.get(i, 0) + int(inside[i]) for i, share in enumerate(self.shares)
        ]

    def record(self) -> dict[str, Any]:
        """The plan as JSON: a row a stream, those that are left out too."""
        rows = [
            {
                "name": share.name,
                "tokens": share.tokens,
                "weight": share.weight,
                "max_epochs": share.max_epochs if math.isfinite(share.max_epochs) else None,
                "sequences": quota,
                "epochs": round(quota / share.sequences, 4) if share.sequences else 0.0,
                "share": round(quota / self.total, 6),
                **({"already": share.already} if share.already else {}),
            }
            for share, quota in zip(self.shares, self.quotas, strict=True)
        ]
        return {
            "format": FORMAT,
            "context": self.context,
            "sequences": self.total,
            "block": self.block,
            "streams": rows,
        }


def quotas(shares: list[Share], total: int, context: int) -> list[int]:
    """Sequences of each stream, `total` in all: by weight times size, none over its cap, what is
    left by the largest remainder (of equal ones the first).

    Raises RecipeError where the caps allow fewer than `total`, or nothing is left to read.
    """
    caps = [share.cap(total) for share in shares]
    if sum(caps) < total:
        raise _not_enough(shares, caps, total, context)
    wanted = [Fraction(str(s.weight)) * s.sequences if cap else Fraction(0)
              for s, cap in zip(shares, caps, strict=True)]  # fmt: skip
    exact = _filled(wanted, caps, total)
    whole = [math.floor(value) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_rest[: total - sum(whole)]:
        whole[i] += 1
    return whole


def _filled(wanted: list[Fraction], caps: list[int], total: int) -> list[Fraction]:
    """`total` divided in the proportions `wanted`, with those over their cap held at it."""
    exact = [Fraction(0)] * len(wanted)
    free = [i for i, value in enumerate(wanted) if value]
    left = Fraction(total)
    while free:
        sum_wanted = sum((wanted[i] for i in free), Fraction(0))
        full = [i for i in free if left * wanted[i] >= caps[i] * sum_wanted]
        if not full:
            for i in free:
                exact[i] = left * wanted[i] / sum_wanted
            break
        for i in full:
            exact[i] = Fraction(caps[i])
        left -= sum(caps[i] for i in full)
        free = [i for i in free if i not in full]
    return exact


def _block_size(streams: int) -> int:
    """Each other stream may have one slot more than its share, and the largest, with at least
    block / streams slots, makes room for them: so the block is the streams squared at least."""
    return max(BLOCK, 1 << math.ceil(math.log2(max(1, streams) ** 2)))


def _not_enough(shares: list[Share], caps: list[int], total: int, context: int) -> RecipeError:
    usable = [share for share in shares if share.weight]
    if not usable:
        return RecipeError(
            "Every stream has the weight 0: there is nothing to train on",
            "sources",
            "Give at least one source a `weight` above 0.",
            "no-weight",
        )
    available, most = context * sum(s.sequences for s in usable), context * sum(caps)
    if not available:
        return RecipeError(
            f"The training split has {sum(s.tokens for s in usable):,} tokens, and no stream "
            f"fills one context of {context:,}",
            "model.context",
            "Give more text or choose a shorter context.",
            "too-few-tokens",
        )
    many = "" if len(usable) == 1 else f" ({_listing(usable, context)})"
    more = " more" if any(share.already for share in usable) else ""
    return RecipeError(
        f"train.tokens {total * context:,} would repeat the {available:,} training tokens "
        f"{total * context / available:.1f} times, and max_epochs allows {most:,}{more} "
        f"tokens{many}",
        "train.tokens",
        f"Give more text, set train.tokens to at most {most:,}, or raise train.max_epochs or a "
        "source's own (past 4 repetitions gains fade: Muennighoff, arXiv 2305.16264).",
        "too-few-tokens",
    )


def _listing(shares: list[Share], context: int) -> str:
    named = [f"{s.name} {s.sequences * context:,} x {s.max_epochs:g}" for s in shares[:LISTED]]
    more = len(shares) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
