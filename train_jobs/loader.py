"""The training order as arithmetic: which tokens each rank reads at each step, in O(1) memory.

Sequence i of a stream of T tokens is tokens[i L : i L + L + 1] (L the context): N = (T - 1) // L of
them, none crossing into the next. Position p of the run names sequence order(p mod N) of epoch
p // N. The order is a keyed permutation in two levels: blocks of 65,536 sequences are permuted,
then the sequences inside a block, so reads stay within a window of the file (268 MB at 2,048
tokens of uint16) while any position is found without walking to it. The state of the cursor is one
number, the sequences consumed; any number of ranks divides the same global batch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mutirao.core import schemas
from mutirao.core.errors import DataError, RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Recipe
from train_jobs.schedule import total_sequences

BLOCK = 65_536  # sequences
ROUNDS = 4


class Loader:
    """Batches of the training stream of one committed `pack` for one recipe."""

    def __init__(self, pack: Manifest, recipe: Recipe, context: int):
        self.stream = TokenStream(pack.paths("train"), pack.directory)
        self.context = context
        self.seed = recipe.seed
        self.global_batch = recipe.train.global_batch
        self.total = total_sequences(recipe.train, context)
        self.sequences = (len(self.stream) - 1) // context
        check_enough(len(self.stream), recipe, context)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[np.ndarray, ...]:
        """The share of one rank in optimizer step `step` (0-based).

        Returns input_ids and labels (int64, [share, L]) and weights (float32, [share]): 1 for a
        real sequence, 0 for a filler where the global batch does not divide or the run ends.
        """
        share = -(-self.global_batch // world)
        inside = rank * share + np.arange(share)
        position = step * self.global_batch + inside
        real = (inside < self.global_batch) & (position < self.total)
        rows = np.zeros((share, self.context + 1), dtype=np.int64)
        for row, index in zip(np.flatnonzero(real), self.indices(position[real]), strict=True):
            rows[row] = self.stream.read(int(index) * self.context, self.context + 1)
        return rows[:, :-1], rows[:, 1:], real.astype(np.float32)

    def real_sequences(self, step: int) -> int:
        """Sequences in the global batch of a step: known to every rank without asking."""
        return max(0, min(self.global_batch, self.total - step * self.global_batch))

    def indices(self, position: np.ndarray) -> np.ndarray:
        """Sequence numbers at the given positions of the run."""
        epoch, place = position // self.sequences, position % self.sequences
        found = np.empty_like(place)
        for number in np.unique(epoch):
            here = epoch == number
            found[here] = order(place[here], self.sequences, f"{self.seed}/{number}")
        return found


def order(place: np.ndarray, count: int, key: str) -> np.ndarray:
    """Two-level keyed permutation of range(count): place in the epoch -> sequence number.

    The short block at the end of the range comes last; the range is rotated by a keyed amount, so
    it is another stretch of the data in each epoch.
    """
    place = np.asarray(place, dtype=np.int64)
    blocks, rest = divmod(count, BLOCK)
    block, inside = place // BLOCK, place % BLOCK
    found = np.empty_like(place)
    for number in np.unique(block):
        here = block == number
        full = number < blocks
        target = permute(np.array([number]), blocks, f"{key}/blocks")[0] if full else number
        size = BLOCK if full else rest
        found[here] = target * BLOCK + permute(inside[here], size, f"{key}/block/{target}")
    return (found + int(_keys(f"{key}/rotate")[0] % np.uint64(count))) % count


def permute(index: np.ndarray, count: int, key: str) -> np.ndarray:
    """A keyed bijection of range(count): balanced Feistel network, walked until inside the range.

    Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002), cycle walking; the
    round function is the finalizer of splitmix64. At most four times `count` is walked over.
    """
    half = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = _keys(key)
    value = np.asarray(index, dtype=np.uint64)
    outside = np.ones(value.shape, dtype=bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        value[outside] = (left << half) | right
        outside = value >= count
    return value.astype(np.int64)


class TokenStream:
    """Several token files as one memory-mapped sequence; a read may cross from one to the next."""

    def __init__(self, paths: list[Path], where: Path):
        chunks: list[np.ndarray] = []
        for path in paths:
            if path.name.endswith(".tokens.arrow"):
                table = schemas.read_ipc(path, "tokens")
                chunks += [c.to_numpy(zero_copy_only=True) for c in table["token"].chunks]
        self.chunks = [chunk for chunk in chunks if len(chunk)]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in self.chunks)])
        if not self.chunks:
            raise DataError("No tokens in the pack", str(where), "Give more text.", "no-tokens")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, count: int) -> np.ndarray:
        """tokens[start : start + count] as they are stored (uint16 or uint32)."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        begin = start - int(self.starts[first])
        piece = self.chunks[first][begin : begin + count]
        if len(piece) == count or first + 1 == len(self.chunks):
            return piece
        rest = self.read(start + len(piece), count - len(piece))
        return np.concatenate([piece, rest])


def check_enough(tokens: int, recipe: Recipe, context: int) -> None:
    """Raises RecipeError when the run would repeat the data more than `train.max_epochs` times."""
    available = (tokens - 1) // context * context
    if available <= 0:
        raise RecipeError(
            f"The training split has {tokens:,} tokens, fewer than one context of {context:,}",
            "model.context",
            "Give more text or choose a shorter context.",
            "too-few-tokens",
        )
    epochs = recipe.train.tokens / available
    if epochs > recipe.train.max_epochs:
        most = int(available * recipe.train.max_epochs)
        raise RecipeError(
            f"train.tokens {recipe.train.tokens:,} would repeat the {available:,} training tokens "
            f"{epochs:.1f} times; train.max_epochs is {recipe.train.max_epochs:g}",
            "train.tokens",
            f"Give more text, set train.tokens to at most {most:,}, or raise train.max_epochs "
            "(past 4 repetitions gains fade: Muennighoff, arXiv 2305.16264).",
            "too-few-tokens",
        )


def peek(pack: Manifest, recipe: Recipe, step: int, context: int) -> list[dict[str, Any]]:
    """What optimizer step `step` (1-based, as in the logs) reads: one row per sequence with its
    epoch, sequence number, first token, and the token ids (L + 1 of them)."""
    loader = Loader(pack, recipe, context)
    first = (step - 1) * loader.global_batch
    position = first + np.arange(loader.real_sequences(step - 1))
    return [
        {
            "position": int(p),
            "epoch": int(p) // loader.sequences,
            "sequence": int(i),
            "offset": int(i) * context,
            "tokens": loader.stream.read(int(i) * context, context + 1).tolist(),
        }
        for p, i in zip(position, loader.indices(position), strict=True)
    ]


def heldout_batches(pack: Manifest, context: int, rows: int, eos_id: int, limit: int = 0):
    """The held-out stream in order, every token predicted once; the first is predicted from eos.

    Yields input_ids and labels (int64, [rows, L]) and weights (float32, [rows, L]), zero on
    padding. `limit`: at most so many sequences from the start (0: all).
    """
    stream = TokenStream(pack.paths("heldout"), pack.directory)
    sequences = -(-len(stream) // context)
    if limit:
        sequences = min(sequences, limit)
    for begin in range(0, sequences, rows):
        inputs = np.full((rows, context), eos_id, dtype=np.int64)
        labels = np.full((rows, context), eos_id, dtype=np.int64)
        weights = np.zeros((rows, context), dtype=np.float32)
        for row, index in enumerate(range(begin, min(begin + rows, sequences))):
            start = index * context
            target = stream.read(start, min(context, len(stream) - start)).astype(np.int64)
            before = stream.read(start - 1, 1) if start else np.array([eos_id])
            labels[row, : len(target)] = target
            inputs[row, : len(target)] = np.concatenate([before, target[:-1]])
            weights[row, : len(target)] = 1
        yield inputs, labels, weights


def _keys(key: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u8")[:ROUNDS].copy()


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
