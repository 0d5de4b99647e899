"""Training batches: which tokens each rank reads at each step, as arithmetic, in O(1) memory.

Sequence i of a stream of T tokens is tokens[i L : i L + L + 1] (L the context): N = (T - 1) // L of
them, none crossing into the next. Position p of the run belongs to a stream and is its k-th
sequence (mix.py); that is sequence order(k mod N) of the stream's epoch k // N (order.py). The
state of the cursor is one number, the sequences consumed; any number of ranks divides the same
global batch. Token files are mapped: at 1T tokens a process holds the maps of some 9,000 files.
Reading order: order.py, mix.py, then this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mutirao.core import schemas
from mutirao.core.errors import DataError, RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.model_size import resolve
from mutirao.core.recipe import Recipe, Source, Tokenized
from mutirao.core.run_steps import origin_record
from train_jobs.answers import Answers
from train_jobs.mix import Mix, Share
from train_jobs.order import order
from train_jobs.schedule import total_sequences
from train_jobs.skips import SkipList

TOKEN_FILE = re.compile(r"(?P<side>train|heldout)-(?:(?P<stream>\d+)-)?\d+\.tokens\.arrow")


@dataclass(frozen=True)
class Batch:
    """The share of one rank in one step; a filler row weighs nothing."""

    input_ids: np.ndarray  # int64 [share, L]
    labels: np.ndarray  # int64 [share, L]
    weights: np.ndarray  # float32 [share, L]: 1 where the label counts in the loss, else 0
    position_ids: np.ndarray | None = None  # int64 [share, L], with train.document_mask

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """Rows [start, start + count) by name, filled up with rows that weigh nothing."""
        found = {}
        for name in ("input_ids", "labels", "weights", "position_ids"):
            array = getattr(self, name)
            if array is not None:
                here = array[start : start + count]
                missing = count - len(here)
                found[name] = np.pad(here, ((0, missing), (0, 0))) if missing else here
        return found


@dataclass(frozen=True)
class HeldOut(Batch):
    """Rows of the held-out side: weights are 1 on every token of the text, 0 on padding."""

    answers: np.ndarray | None = None  # float32 [rows, L]: 1 where an answer is predicted


class Loader:
    """Batches of the training streams of one committed `pack` for one recipe."""

    def __init__(self, pack: Manifest, recipe: Recipe, context: int, run_dir: Path | None = None):
        """run_dir: of the run whose skip list and origin hold. Raises RecipeError where weights and
        epoch caps allow fewer tokens than asked for, or nothing marks the answers that count;
        DataError where the token files are not those of the pack."""
        self.skips = SkipList(run_dir)
        self.streams = token_streams(pack, "train")
        already = origin_record(run_dir).get("streams") if run_dir else None
        self.mix = plan_mix(pack, recipe, context, already)
        self.context = context
        self.seed = recipe.seed
        self.global_batch = recipe.train.global_batch
        self.total = self.mix.total
        answers = recipe.train.loss_on == "answers"
        self.answers = Answers(pack.content["info"]) if answers else None
        masked = recipe.train.document_mask
        self.document_ends_with = pack.content["info"]["eos_id"] if masked else None
        self.directory = pack.directory
        self.vocab_size = resolve(recipe.model, pack.content["info"]["vocab_size"]).vocab_size
        for share, stream in zip(self.mix.shares, self.streams, strict=True):
            if len(stream) != share.tokens:
                raise self._damaged(f"{share.name} has {len(stream):,} of {share.tokens:,} tokens")

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of one rank in optimizer step `step` (0-based), with fillers where the global
        batch does not divide, the run ends, or a sequence is on the skip list."""
        share = -(-self.global_batch // world)
        inside = rank * share + np.arange(share)
        position = step * self.global_batch + inside
        real = (inside < self.global_batch) & (position < self.total)
        real &= ~self.skips.holds(position)
        rows = np.zeros((share, self.context + 1), dtype=np.int64)
        weights = np.repeat(real.astype(np.float32)[:, None], self.context, axis=1)
        places = zip(*self.places(position[real])[:2], strict=True)
        for row, (stream, sequence) in zip(np.flatnonzero(real), places, strict=True):
            rows[row] = self.read(int(stream), int(sequence))
            if self.answers:
                start = int(sequence) * self.context
                weights[row] = self.answers.weights(self.streams[stream], start, rows[row])
        if rows.max() >= self.vocab_size:
            known = f"the model knows ids below {self.vocab_size:,}"
            raise self._damaged(f"Token id {rows.max():,} in step {step + 1:,}, but {known}")
        inputs, ends = rows[:, :-1], self.document_ends_with
        positions = None if ends is None else document_positions(inputs, ends)
        return Batch(inputs, rows[:, 1:], weights, positions)

    def real_sequences(self, step: int) -> int:
        """Sequences in the global batch of a step: known to every rank without asking."""
        start, end = self.range(step)
        return end - start - int(self.skips.holds(np.arange(start, end)).sum())

    def real_tokens(self, step: int) -> int | None:
        """Tokens of the global batch that count in the loss; None where only reading them tells."""
        return None if self.answers else self.real_sequences(step) * self.context

    def range(self, step: int) -> list[int]:
        """[first, last + 1] of the positions of a step."""
        start = min(step * self.global_batch, self.total)
        return [start, min(start + self.global_batch, self.total)]

    def read_so_far(self, step: int) -> list[int]:
        """Sequences of each stream that the first `step` steps read, with those that the run's own
        origin had read: where a fork on the same pack goes on."""
        return self.mix.read_until(self.range(step)[0])

    def places(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(stream, sequence number in it, epoch of it) at the given positions of the run."""
        stream, k = self.mix.locate(position)
        sequence, epoch = np.empty_like(k), np.empty_like(k)
        for number in np.unique(stream):
            count = self.mix.shares[number].sequences
            mine = stream == number
            epoch[mine] = k[mine] // count
            for one in np.unique(epoch[mine]):
                here = mine & (epoch == one)
                sequence[here] = order(k[here] % count, count, self._key(int(number), int(one)))
        return stream, sequence, epoch

    def read(self, stream: int, sequence: int) -> np.ndarray:
        """The L + 1 tokens of a sequence, as they are stored."""
        return self.streams[stream].read(sequence * self.context, self.context + 1)

    def _damaged(self, what: str) -> DataError:
        hint = "The token files have changed since they were checked. Run `mutirao store verify`."
        return DataError(f"Damaged token shards: {what}", str(self.directory), hint, "bad-tokens")

    def _key(self, stream: int, epoch: int) -> str:
        """Of the first stream, that of a pack with one stream."""
        return f"{self.seed}/{epoch}" if stream == 0 else f"{self.seed}/{epoch}/stream {stream}"


def document_positions(inputs: np.ndarray, eos_id: int) -> np.ndarray:
    """The place of each token in its document, int64 [b, L], for inputs int64 [b, L]: 0 after each
    eos, and at the start of a sequence, which may be the middle of a document."""
    place = np.arange(inputs.shape[1])
    begins = np.zeros(inputs.shape, dtype=np.int64)
    begins[:, 1:] = np.where(inputs[:, :-1] == eos_id, place[1:], 0)
    return place - np.maximum.accumulate(begins, axis=1)


class TokenStream:
    """Several token files as one memory-mapped sequence; a read may cross from one to the next."""

    def __init__(self, paths: list[Path]):
        chunks: list[np.ndarray] = []
        for path in paths:
            if path.name.endswith(".tokens.arrow"):
                table = schemas.read_ipc(path, "tokens")
                chunks += [c.to_numpy(zero_copy_only=True) for c in table["token"].chunks]
        self.chunks = [chunk for chunk in chunks if len(chunk)]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in self.chunks)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, count: int) -> np.ndarray:
        """tokens[start : start + count] as they are stored (uint16 or uint32)."""
        pieces = []
        number = int(np.searchsorted(self.starts, start, side="right")) - 1
        while count > 0 and number < len(self.chunks):
            begin = start - int(self.starts[number])
            piece = self.chunks[number][begin : begin + count]
            pieces.append(piece)
            start, count, number = start + len(piece), count - len(piece), number + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def token_streams(pack: Manifest, side: str) -> list[TokenStream]:
    """The streams of one side (train, heldout), as the pack numbers them; some may be empty.

    Packs of older versions have one stream. Raises DataError where there is no token at all.
    """
    files: dict[int, list[Path]] = {}
    for part in pack.parts:
        found = TOKEN_FILE.fullmatch(part.path)
        if found and found["side"] == side:
            number = int(found["stream"] or 0)
            files.setdefault(number, []).append(pack.directory / part.path)
    count = max(len(stream_names(pack)), 1 + max(files, default=0))
    streams = [TokenStream(files.get(number, [])) for number in range(count)]
    if not any(len(stream) for stream in streams):
        raise DataError(
            f"No {side} tokens in the pack", str(pack.directory), "Give more text.", "no-tokens"
        )
    return streams


def stream_names(pack: Manifest) -> list[str]:
    """In the order of their numbers; a pack of an older version has one without a name of its
    own."""
    named = pack.content["info"].get("streams", [])
    return [stream["name"] for stream in named] or ["all"]


def plan_mix(pack: Manifest, recipe: Recipe, context: int, already: list[int] | None = None) -> Mix:
    """What the run reads of each stream, behind the sequences that its origin had read `already`.
    Raises RecipeError where there are too few tokens, or nothing marks the answers that count."""
    if recipe.train.loss_on == "answers":
        Answers(pack.content["info"])
    sizes = [stream["train"]["tokens"] for stream in pack.content["info"].get("streams", [])]
    given: list[Source | Tokenized] = [*recipe.sources, *recipe.tokenized]
    shares = []
    for number, name in enumerate(stream_names(pack)):
        tokens = sizes[number] if sizes else pack.content["info"]["tokens"]["train"]
        one = given[number] if sizes and number < len(given) else None
        weight = one.weight if one else 1.0
        most = one.max_epochs if one and one.max_epochs is not None else recipe.train.max_epochs
        if not math.isfinite(weight):
            raise RecipeError(f"The weight of {name} must be a number, not {weight}", "sources")
        read = already[number] if already else 0
        shares.append(Share(name, tokens, max(0, tokens - 1) // context, weight, most, read))
    return Mix(shares, total_sequences(recipe.train, context), context, recipe.seed)


def peek(
    pack: Manifest, recipe: Recipe, step: int, context: int, run_dir: Path | None = None
) -> list[dict[str, Any]]:
    """What optimizer step `step` (1-based, as in the logs) reads: one row per sequence with its
    stream, the stream's epoch, sequence number and first token, the token ids (L + 1), and whether
    the run's skip list leaves it out."""
    loader = Loader(pack, recipe, context, run_dir)
    names = stream_names(pack)
    position = np.arange(*loader.range(step - 1))
    return [
        {
            "position": int(p),
            "stream": names[stream],
            "epoch": int(epoch),
            "sequence": int(sequence),
            "offset": int(sequence) * context,
            "left_out": bool(loader.skips.holds(np.array(p))),
            "tokens": loader.read(int(stream), int(sequence)).tolist(),
        }
        for p, stream, sequence, epoch in zip(position, *loader.places(position), strict=True)
    ]


def heldout_batches(
    pack: Manifest,
    context: int,
    rows: int,
    limit: int = 0,
    only: int | None = None,
    document_mask: bool = False,
    answers: Answers | None = None,
) -> Iterator[HeldOut]:
    """The held-out streams in order, every token predicted once; the first of each from eos.

    `limit`: about so many sequences, from the start of each stream by its size (0: all). `only`:
    the stream of this number alone. document_mask, answers: give positions, and say which labels
    count by that rule.
    """
    eos_id = pack.content["info"]["eos_id"]
    streams = token_streams(pack, "heldout")
    counts = [-(-len(stream) // context) for stream in streams]
    if limit and sum(counts) > limit:
        counts = [-(-limit * count // sum(counts)) for count in counts]
    places = (
        (stream, index)
        for number, (stream, count) in enumerate(zip(streams, counts, strict=True))
        for index in range(count)
        if only in (None, number)
    )
    while some := list(islice(places, rows)):
        inputs = np.full((rows, context), eos_id, dtype=np.int64)
        labels = np.full((rows, context), eos_id, dtype=np.int64)
        weights = np.zeros((rows, context), dtype=np.float32)
        counted = None if answers is None else np.zeros_like(weights)
        for row, (stream, index) in enumerate(some):
            start = index * context
            tokens = with_the_one_before(stream, start, context, eos_id)
            real = slice(len(tokens) - 1)
            inputs[row, real], labels[row, real], weights[row, real] = tokens[:-1], tokens[1:], 1
            if answers is not None and counted is not None:
                counted[row, real] = answers.weights(stream, max(0, start - 1), tokens)
        positions = document_positions(inputs, eos_id) if document_mask else None
        yield HeldOut(inputs, labels, weights, positions, counted)


def with_the_one_before(stream: TokenStream, start: int, count: int, eos_id: int) -> np.ndarray:
    """int64: up to `count` tokens from `start` on behind the token before them, which at the
    beginning of a stream is eos."""
    if start:
        return stream.read(start - 1, min(count, len(stream) - start) + 1).astype(np.int64)
    return np.concatenate([[eos_id], stream.read(0, min(count, len(stream)))]).astype(np.int64)
