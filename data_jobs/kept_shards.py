"""The kept text shards: which rows go into which, and how one is written.

In: the MARK records of each text shard (key, bytes of kept text, kept or not) and the rule of
`heldout`. Out: for each side, KEPT files of about SHARD_BYTES of text, in the order of the text
shards. Memory: the marks of a text shard (16 bytes a document) while planning, a batch of text
while writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.heldout import is_heldout
from data_jobs.keyed import read_records
from data_jobs.language.spans import STAGES as CUTTING
from data_jobs.language.spans import kept_text, row_spans
from data_jobs.shards import BATCH_ROWS, decision_paths, finished_result, text_path
from data_jobs.units import Item
from mutirao.core.manifest import read_manifest, write_part
from mutirao.core.schemas import KEPT, read_ipc, write_ipc

SHARD_BYTES = 64_000_000
COPIED = [name for name in KEPT.names if name not in ("shard", "row", "stream")]
MARK = np.dtype([("key", "<u8"), ("bytes", "<u4"), ("kept", "<u4")])


def mark_name(shard: int) -> str:
    return f"marks-{shard:05d}.npy"


def plan(marks: list[Path], rule: dict[str, Any], heldout: bool) -> Iterator[list[list[int]]]:
    """Segments [shard, first row, last row + 1] of each output shard of SHARD_BYTES of text."""
    segments: list[list[int]] = []
    size = 0
    for shard, path in enumerate(marks):
        found = read_records(path)
        chosen = chosen_rows(found, rule, heldout)
        total = np.cumsum(np.where(chosen, found["bytes"], 0).astype(np.int64))
        start = 0
        while start < len(found):
            before = int(total[start - 1]) if start else 0
            stop = int(np.searchsorted(total, before + SHARD_BYTES - size)) + 1
            stop = min(stop, len(found))
            if chosen[start:stop].any():
                segments.append([shard, start, stop])
                size += int(total[stop - 1]) - before
            if size >= SHARD_BYTES:
                yield segments
                segments, size = [], 0
            start = stop
    if segments:
        yield segments


def chosen_rows(marks: np.ndarray, rule: dict[str, Any], heldout: bool) -> np.ndarray:
    """bool[rows]: is the row kept, and on this side?"""
    return (marks["kept"] > 0) & (is_heldout(marks["key"], rule) == heldout)


def write_unit(item: Item) -> Item:
    """One kept text shard."""
    directory, name = Path(item["directory"]), item["name"]
    if (finished := finished_result(directory, name)) is not None:
        return finished
    kept = {"documents": 0, "text_bytes": 0}

    def batches() -> Iterator[pa.RecordBatch]:
        for table in _rebatched(_tables(item)):
            kept["documents"] += table.num_rows
            kept["text_bytes"] += pc.sum(pc.binary_length(table.column("text"))).as_py()
            yield from table.combine_chunks().to_batches()

    info: dict[str, Any] = {"side": item["side"], "kept": kept}
    part = write_part(directory, name, lambda s: write_ipc(s, KEPT, batches()), info)
    return {"part": vars(part)}


def _tables(item: Item) -> Iterator[pa.Table]:
    """KEPT rows of each segment, BATCH_ROWS at most at once."""
    for shard, start, stop in item["segments"]:
        marks = read_records(Path(item["directory"]) / mark_name(shard))[start:stop]
        rows = start + np.flatnonzero(chosen_rows(marks, item["rule"], item["side"] == "heldout"))
        table = read_ipc(text_path(item["clean"], shard), "text").select(COPIED)
        spans = row_spans(_cutting_decisions(item, shard), table.num_rows)
        stream = item["streams"][str(shard)]
        for first in range(0, len(rows), BATCH_ROWS):
            some = rows[first : first + BATCH_ROWS]
            picked = _take(table, some)
            columns = dict(zip(COPIED, picked.columns, strict=True))
            if spans is not None:
                columns["text"] = kept_text(columns["text"], [spans[row] for row in some.tolist()])
            columns["shard"] = pa.repeat(pa.scalar(shard, pa.int32()), len(some))
            columns["row"] = pa.array(some.astype(np.int32))
            columns["stream"] = pa.repeat(pa.scalar(stream, pa.string()), len(some))
            yield pa.Table.from_arrays([columns[name] for name in KEPT.names], schema=KEPT)


def _take(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows (rising); nothing is copied where they follow one another."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(rows[0], len(rows))
    return table.take(pa.array(rows))


def _cutting_decisions(item: Item, shard: int) -> dict[str, str]:
    return {stage: str(_paths(item[stage])[shard]) for stage in CUTTING if stage in item}


@lru_cache(8)
def _paths(directory: str) -> list[Path]:
    manifest = read_manifest(Path(directory))
    assert manifest is not None, "decisions are committed before split reads them"
    return decision_paths(manifest)


def _rebatched(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of BATCH_ROWS, however they came."""
    pending = KEPT.empty_table()
    for table in tables:
        pending = pa.concat_tables([pending, table])
        while pending.num_rows >= BATCH_ROWS:
            yield pending.slice(0, BATCH_ROWS)
            pending = pending.slice(BATCH_ROWS)
    if pending.num_rows:
        yield pending
