"""Byte ranges of a document that stay, as `langid` (paragraph mode) and `neardup` (repeated
paragraphs) decide them.

In: a text column, and for each row [start, end, start, end, ...] in bytes, or null for all of it.
Out: the text of those ranges, one after the other. Ranges begin and end at characters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs.shards import utf8_buffers
from mutirao.core.schemas import read_ipc

Spans = list[list[int] | None]
STAGES = ("langid", "neardup")  # that may leave parts of a document out


def kept_text(column: pa.Array | pa.ChunkedArray, spans: Spans) -> pa.Array | pa.ChunkedArray:
    """The column with the rows that have spans cut to them."""
    if all(one is None for one in spans):
        return column
    data, offsets = utf8_buffers(column)
    raw, places = np.ascontiguousarray(data).data, offsets.tolist()
    pieces: list[memoryview] = []
    ends = np.zeros(len(spans) + 1, np.int64)
    for row, one in enumerate(spans):
        start, end = places[row], places[row + 1]
        ranges = [0, end - start] if one is None else one
        some = [raw[start + a : start + b] for a, b in zip(ranges[::2], ranges[1::2], strict=True)]
        pieces += some
        ends[row + 1] = sum(map(len, some))
    buffers = [None, pa.py_buffer(np.cumsum(ends)), pa.py_buffer(b"".join(pieces))]
    return pa.LargeStringArray.from_buffers(len(spans), *buffers[1:])


def cut(text: bytes, spans: list[int]) -> bytes:
    return b"".join(text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True))


def kept_bytes(sizes: np.ndarray, spans: Spans) -> np.ndarray:
    """Bytes of each document after the cut, from its bytes before (int64)."""
    kept = np.array(sizes, np.int64)
    for row, one in enumerate(spans):
        if one is not None:
            kept[row] = sum(one[1::2]) - sum(one[::2])
    return kept


def row_spans(decisions: dict[str, str], rows: int) -> Spans | None:
    """Of every row of a text shard what all stages leave, from its decision shards by stage.

    None where no row is cut, which is the common case and costs nothing.
    """
    found: Spans | None = None
    for stage in STAGES:
        if stage not in decisions:
            continue
        column = read_ipc(Path(decisions[stage]), f"decision.{stage}").column("spans")
        if column.null_count == rows:
            continue
        ours = column.to_pylist()
        pairs = zip(found, ours, strict=True) if found else ()
        found = [intersection(a, b) for a, b in pairs] if found else ours
    return found


def intersection(one: list[int] | None, other: list[int] | None) -> list[int] | None:
    """The bytes that lie in both."""
    if one is None or other is None:
        return other if one is None else one
    spans: list[int] = []
    i = k = 0
    while i < len(one) and k < len(other):
        start, end = max(one[i], other[k]), min(one[i + 1], other[k + 1])
        if start < end:
            spans += [start, end]
        if one[i + 1] < other[k + 1]:
            i += 2
        else:
            k += 2
    return spans
