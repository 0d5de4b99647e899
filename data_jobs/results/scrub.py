"""Rewrite committed parts without some of their documents, in the same shape.

In: a part of a finished result and the rows (or token spans) to take out. Out: the same part with
as many rows, batches and tokens as before, in which those rows say nothing: so every other file
that is aligned to it stays true. Done twice it gives the same bytes. Memory: one record batch; of
a token shard, all of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.near.index import OFFSETS, PART_BITS, PARTS, read_bands
from mutirao.core.files import write_atomic, write_json
from mutirao.core.schemas import BANDS, write_ipc
from mutirao.core.takedown import REASON

# by kind of file: column -> what stands there afterwards
BLANKS: dict[str, dict[str, Any]] = {
    "text": {"id": bytes(16), "text": "", "name": "", "url": "", "meta": "{}", "messages": ""},
    "kept": {"id": bytes(16), "text": "", "url": "", "messages": ""},
    "reject": {"snippet": ""},
    "decision.exact": {"hash": bytes(16), "reason": REASON},
    "decision.langid": {"reason": REASON},
    "decision.filter": {"reason": REASON},
    "decision.neardup": {
        "reason": REASON,
        "duplicate_of_id": None,
        "cluster": None,  # may be half of the text's hash
        "cluster_size": None,
    },
    "decision.decontaminate": {"reason": REASON},
    "signatures": {"signature": None},
    "duplicate": {"duplicate_of_id": None},  # of documents that stay or were dropped for it
}


def blank_rows(path: Path, kind: str, rows: list[int]) -> None:
    """Blank the columns of BLANKS[kind] in these rows of an Arrow file of any format number."""
    _rewrite(path, lambda batches: _blanked(batches, np.array(sorted(rows)), BLANKS[kind]))


def blank_tokens(path: Path, spans: list[list[int]], eos: int) -> None:
    """Every token in [start, end) of the spans becomes `<|endoftext|>`."""

    def blanked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in batches:
            tokens = batch.column("token").to_numpy(zero_copy_only=False).copy()
            for first, last in spans:
                tokens[max(0, first - start) : max(0, last - start)] = eos
            start += len(tokens)
            yield pa.RecordBatch.from_arrays([pa.array(tokens)], schema=batch.schema)

    _rewrite(path, blanked)


def blank_bands(path: Path, rows: list[int]) -> None:
    """The band keys of these rows become 0, so they say nothing of the text and match none; the
    file keeps its number of rows, grouped as before. Memory: the bands of one text shard."""
    keys, at, _ = read_bands(path)
    keys = np.where(np.isin(at, np.array(rows, at.dtype)), np.uint64(0), keys)
    parts = (keys >> np.uint64(64 - PART_BITS)).astype(np.int64)
    order = np.lexsort((at, parts))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(parts, minlength=PARTS))))
    index = base64.b64encode(offsets.astype("<u4").tobytes())
    schema = BANDS.with_metadata({**BANDS.metadata, OFFSETS: index})
    columns = [pa.array(keys[order]), pa.array(at[order])]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    write_atomic(path, lambda stream: write_ipc(stream, schema, [batch]))


def blank_samples(path: Path, numbers: list[int]) -> None:
    """`samples.json` without the text of these samples."""
    record = json.loads(path.read_bytes())
    for number in numbers:
        record["samples"][number] |= {"prompt": "", "continuation": ""}
    write_json(path, record)


def blank_bytes(path: Path, spans: list[list[int]]) -> None:
    """Bytes [start, end) of a text file become 'x': lengths stay, so places found before hold."""
    data = bytearray(path.read_bytes())
    for first, last in spans:
        data[first:last] = b"x" * (last - first)
    write_atomic(path, lambda stream: stream.write(data))


def _rewrite(path: Path, change: Callable[[Iterator[pa.RecordBatch]], Any]) -> None:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))

        def write(stream: Any) -> None:
            with pa.ipc.new_file(stream, reader.schema) as writer:
                for batch in change(batches):
                    writer.write_batch(batch)

        write_atomic(path, write)


def _blanked(
    batches: Iterator[pa.RecordBatch], rows: np.ndarray, blanks: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        here = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
        start += batch.num_rows
        yield _batch(batch, here, blanks) if len(here) else batch


def _batch(batch: pa.RecordBatch, rows: np.ndarray, blanks: dict[str, Any]) -> pa.RecordBatch:
    mask = np.zeros(batch.num_rows, dtype=bool)
    mask[rows] = True
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if field.name in blanks:
            blank = pa.scalar(blanks[field.name], field.type)
            column = pc.if_else(pa.array(mask), blank, column)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
