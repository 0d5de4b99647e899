"""A token shard: flat ids of whole documents, an end of text after each, and where each begins.

Two parts: `NAME.tokens.arrow`, one column in one record batch, so that a memory map is one
contiguous array (uint16 where every id fits, else uint32), and `NAME.documents.arrow`, written last
and holding the counts. NAME is `train-STREAM-NUMBER` or `heldout-STREAM-NUMBER`.
Memory: the ids of one shard (`pack.stream_bytes`), and 32 bytes a document.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.shards import write_table
from mutirao.core.manifest import Part, finished_part, write_part
from mutirao.core.schemas import DOCUMENTS, TOKENS_16, TOKENS_32, write_ipc

SIDES = ("train", "heldout")


def shard_name(side: str, stream: int, number: int) -> str:
    return f"{side}-{stream:03d}-{number:05d}"


class Shard:
    """Collects the documents of one token shard.

    room: about how many ids there will be; memory is taken as it is filled.
    """

    def __init__(self, wide: bool, eos: int, room: int):
        self.eos, self.used = eos, 0
        self._ids = np.empty(max(room, 1), np.uint32 if wide else np.uint16)
        self._columns: list[list[np.ndarray]] = [[] for _ in DOCUMENTS]
        self.sources: dict[str, int] = {}  # tokens, the ends of text included

    @property
    def tokens(self) -> np.ndarray:
        return self._ids[: self.used]

    def add(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        text_bytes: np.ndarray,
        places: tuple[np.ndarray, np.ndarray],
        sources: pa.Array | pa.ChunkedArray,
    ) -> None:
        """Documents ids[offsets[i] : offsets[i + 1]] (int64[n + 1], from 0), without their ends of
        text; of each its bytes of text, its place (shard, row) and its source (string[n])."""
        count = len(offsets) - 1
        end = self.used + len(ids) + count
        self._grow(end)
        target = self._ids[self.used : end]
        last = offsets[1:] + np.arange(count)
        inner = np.ones(len(target), dtype=bool)
        inner[last] = False
        target[inner] = ids
        target[last] = self.eos
        lengths = np.diff(offsets) + 1
        starts = self.used + offsets[:-1] + np.arange(count)
        columns = (starts, lengths, text_bytes, *places)
        for kept, column in zip(self._columns, columns, strict=True):
            kept.append(column)
        self._count_sources(sources, lengths)
        self.used = end

    def _grow(self, size: int) -> None:
        if size > len(self._ids):
            larger = np.empty(max(size, len(self._ids) * 5 // 4), self._ids.dtype)
            larger[: self.used] = self.tokens
            self._ids = larger

    def _count_sources(self, sources: pa.Array | pa.ChunkedArray, lengths: np.ndarray) -> None:
        encoded = pa.chunked_array([sources]) if isinstance(sources, pa.Array) else sources
        named = encoded.dictionary_encode().combine_chunks()
        if isinstance(named, pa.ChunkedArray):
            named = named.chunk(0)
        names = named.dictionary.to_pylist()
        sums = np.bincount(named.indices.to_numpy(), lengths, len(names))
        for name, tokens in zip(names, sums.tolist(), strict=True):
            self.sources[name] = self.sources.get(name, 0) + int(tokens)

    def documents(self) -> pa.Table:
        arrays = [
            pa.array(np.concatenate([np.zeros(0, np.int64), *column]), field.type)
            for column, field in zip(self._columns, DOCUMENTS, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=DOCUMENTS)


def write_shard(directory: Path, name: str, shard: Shard, about: dict[str, Any]) -> dict[str, Any]:
    """Write both parts; returns what `finished_shard` does. `about` goes into the parts' info."""
    schema = TOKENS_32 if shard.tokens.dtype == np.uint32 else TOKENS_16
    batch = pa.RecordBatch.from_arrays([pa.array(shard.tokens)], schema=schema)
    tokens = write_part(
        directory, f"{name}.tokens.arrow", lambda stream: write_ipc(stream, schema, [batch]), about
    )
    table = shard.documents()
    counts = {
        "documents": table.num_rows,
        "tokens": shard.used,
        "text_bytes": int(table.column("text_bytes").to_numpy().sum()),
    }
    info = {**about, "counts": counts, "sources": dict(sorted(shard.sources.items()))}
    return _result(tokens, write_table(directory, f"{name}.documents.arrow", table, info))


def finished_shard(directory: Path, name: str) -> dict[str, Any] | None:
    """{parts, and the info of the documents part} if an earlier attempt finished both parts."""
    tokens = finished_part(directory, f"{name}.tokens.arrow")
    documents = finished_part(directory, f"{name}.documents.arrow")
    return _result(tokens, documents) if tokens and documents else None


def _result(tokens: Part, documents: Part) -> dict[str, Any]:
    return {"parts": [asdict(tokens), asdict(documents)], **documents.info}
