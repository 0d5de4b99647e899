"""Byte ranges of a document that stay, as `langid` decides them in paragraph mode.

In: a text column, and for each row [start, end, start, end, ...] in bytes, or null for all of it.
Out: the text of those ranges, one after the other. Ranges begin and end at characters.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs.shards import decision_paths
from mutirao.core.manifest import read_manifest
from mutirao.core.schemas import read_ipc

Spans = list[list[int] | None]


def kept_text(column: pa.Array | pa.ChunkedArray, spans: Spans) -> pa.Array | pa.ChunkedArray:
    """The column with the rows that have spans cut to them."""
    if all(one is None for one in spans):
        return column
    texts = column.to_pylist()
    for row, one in enumerate(spans):
        if one is not None:
            texts[row] = cut(texts[row].encode(), one).decode()
    return pa.array(texts, pa.large_string())


def cut(text: bytes, spans: list[int]) -> bytes:
    return b"".join(text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True))


def kept_bytes(sizes: np.ndarray, spans: Spans) -> np.ndarray:
    """Bytes of each document after the cut, from its bytes before (int64)."""
    kept = np.array(sizes, np.int64)
    for row, one in enumerate(spans):
        if one is not None:
            kept[row] = sum(one[1::2]) - sum(one[::2])
    return kept


def spans_of(path: Path) -> Spans:
    """Of every row of a text shard, from its langid decision shard."""
    return read_ipc(path, "decision.langid").column("spans").to_pylist()


def shard_spans(langid: str, shard: int) -> Spans:
    """The same, from the folder of a committed langid result."""
    return spans_of(_paths(langid)[shard])


@lru_cache(4)
def _paths(langid: str) -> list[Path]:
    manifest = read_manifest(Path(langid))
    assert manifest is not None, "langid is committed before split reads it"
    return decision_paths(manifest)
