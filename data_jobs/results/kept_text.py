"""The text of kept documents as it goes on to the tokenizer: without what paragraph rules cut out.

In: {stage: committed Manifest} of a run. Out: byte ranges by row of a text shard, or, where `split`
is done, the texts that it wrote. Memory: the ranges of one text shard, a batch of kept text a side.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_jobs.language.spans import STAGES, Spans, row_spans
from data_jobs.shards import decision_paths
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc

SIDES = ("train", "heldout")


class KeptText(NamedTuple):
    """One row of a kept shard; `place` is (text shard, row)."""

    place: tuple[int, int]
    side: str
    stream: str
    text: str


def spans_at(manifests: dict[str, Manifest], shard: int, rows: int) -> Spans | None:
    """[start, end, ...] in bytes for each row of a text shard, null: all of it; None where no row
    is cut."""
    decisions = {
        stage: str(decision_paths(manifests[stage])[shard])
        for stage in STAGES
        if stage in manifests
    }
    return row_spans(decisions, rows)


class KeptTexts:
    """Every row that `split` wrote, of both sides, asked for in the order of the text shards."""

    def __init__(self, split: Manifest):
        self.rows = heapq.merge(*(_side(split, side) for side in SIDES), key=lambda one: one.place)
        self.ahead = next(self.rows, None)

    def at(self, place: tuple[int, int]) -> KeptText | None:
        """The row of a document, None if `split` did not write it; places never go back."""
        while self.ahead is not None and self.ahead.place < place:
            self.ahead = next(self.rows, None)
        return self.ahead if self.ahead is not None and self.ahead.place == place else None


def _side(split: Manifest, side: str) -> Iterator[KeptText]:
    for path in split.paths(f"{side}-"):
        table = read_ipc(Path(path), "kept").select(["shard", "row", "stream", "text"])
        for batch in table.to_batches():
            for shard, row, stream, text in zip(
                *(c.to_pylist() for c in batch.columns), strict=True
            ):
                yield KeptText((shard, row), side, stream or "", text)
