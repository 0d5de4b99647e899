"""Text shards and reject parts of one unit, written so that a killed unit goes on after the last.

In: cleaned documents and rejects, in the file's order. Out: `text-00003-000.arrow` (a new one each
`shard_bytes` of text), `rejects-00003-000.arrow` (before a text shard, or at REJECT_ROWS) and last
`rejects-00003.arrow`, whose presence says that the unit is finished. The info of a full text shard
holds its last record's place, the counts since the shard before, and how many reject parts
precede it. Memory: three to four times a text shard (230 MB measured at shards of 64 MB, from a
compressed file of any size), REJECT_ROWS rejects, one batch of documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.cleaning.clean_columns import Kept, columns, printable, text_sizes
from data_jobs.cleaning.clean_tally import Tally
from data_jobs.read.documents import Document, Reject
from data_jobs.shards import BATCH_ROWS, add_counts
from data_jobs.units import Item
from mutirao.core.manifest import Part, finished_part, write_part
from mutirao.core.schemas import REJECT, TEXT, write_ipc

REJECT_ROWS = 10_000
SNIPPET = 200
# Arrow writes other bytes for a slice of a batch than for its copy; joined with this it is copied.
NO_ROWS = pa.RecordBatch.from_arrays([pa.nulls(0, column.type) for column in TEXT], schema=TEXT)


class Sink:
    def __init__(self, directory: Path, item: Item):
        self.directory, self.item, self.unit = directory, item, f"{item['unit']:05d}"
        self.rows: list[pa.RecordBatch] = []
        self.size = 0  # bytes of text in `rows`
        self.rejects: list[Reject] = []
        self.text_parts: list[Part] = []
        self.reject_parts: list[Part] = []
        self.counts: list[dict[str, Any]] = []  # of each text part, then of the rest
        self.tally = self._tally()

    def resume(self) -> Document | None:
        """Take over the finished shards of an earlier attempt; the last document in them."""
        texts, rejects = _finished(self.directory, self.unit)
        if not texts:
            return None
        self.text_parts, self.reject_parts = texts, rejects
        self.counts = [part.info["counts"] for part in texts]
        self.tally = self._tally(texts[-1].info["first"])
        position, offset, size = texts[-1].info["last"]
        return Document(position, offset, size, text="")

    def add(self, found: Sequence[Kept | Reject]) -> None:
        """Takes a batch; a shard ends with the document that fills it, in the middle or not."""
        kept = [one for one in found if isinstance(one, Kept)]
        batch = columns(kept, self.item)
        sizes = text_sizes(batch)
        item = row = 0
        for end_row in self._full(sizes):
            end_item = item + _items_until(found[item:], end_row - row)
            self._take(found[item:end_item], batch.slice(row, end_row - row), sizes[row:end_row])
            self._write_full(kept[end_row - 1].document)
            item, row = end_item, end_row
        self._take(found[item:], batch.slice(row), sizes[row:])

    def finish(self) -> Item:
        """{text: [part], rejects: [part]}; the last part's info holds the counts of the unit."""
        if self.size:
            self._write_text({})
        self.counts.append(self.tally.taken())
        info = {
            "source": self.item["source"],
            "number": self.item["number"],  # of the source in the recipe
            "file": self.item["file"],
            "text_parts": [part.path for part in self.text_parts],
            "reject_parts": [part.path for part in self.reject_parts],
            "counts": add_counts(self.counts),
            "first": self.tally.first,
        }
        self._write_rejects(f"rejects-{self.unit}.arrow", info)
        return _result(self.text_parts, self.reject_parts)

    def _tally(self, first: str = "") -> Tally:
        return Tally(self.item["file"], self.item["format"] != "csv", first)

    def _full(self, sizes: np.ndarray) -> Iterator[int]:
        """Numbers of rows after which a shard is full."""
        held = self.size
        for row, size in enumerate(sizes):
            held += size
            if held >= self.item["shard_bytes"]:
                held = 0
                yield row + 1

    def _take(
        self, found: Sequence[Kept | Reject], batch: pa.RecordBatch, sizes: np.ndarray
    ) -> None:
        kept = [one for one in found if isinstance(one, Kept)]
        if kept:
            self.rows.append(batch)
            self.size += int(sizes.sum())
            self.tally.keep(
                [one.document.size for one in kept],
                sizes.tolist(),
                batch.column("license").to_pylist(),
                self.item["genre"],
                (one.counts for one in kept if one.counts),
            )
        for one in found:
            if isinstance(one, Reject):
                self.tally.reject(one)
                self.rejects.append(one)
                if len(self.rejects) == REJECT_ROWS:
                    self._write_numbered_rejects()

    def _write_full(self, last: Document) -> None:
        """A shard after which a new attempt can go on: nothing before it waits to be written."""
        if self.rejects:
            self._write_numbered_rejects()
        counts = self.tally.taken()
        self.counts.append(counts)
        info = {
            "counts": counts,
            "first": self.tally.first,
            "last": [last.position, last.offset, last.size],
            "rejects": len(self.reject_parts),
        }
        self._write_text(info)

    def _write_text(self, info: dict[str, Any]) -> None:
        name = f"text-{self.unit}-{len(self.text_parts):03d}.arrow"
        table = pa.Table.from_batches([NO_ROWS, *self.rows]).combine_chunks()
        batches = table.to_batches(max_chunksize=BATCH_ROWS)
        self.text_parts.append(
            write_part(
                self.directory,
                name,
                lambda stream: write_ipc(stream, TEXT, batches),
                {"text_bytes": self.size, **info},
            )
        )
        self.rows, self.size = [], 0

    def _write_numbered_rejects(self) -> None:
        self._write_rejects(f"rejects-{self.unit}-{len(self.reject_parts):03d}.arrow", {})

    def _write_rejects(self, name: str, info: dict[str, Any]) -> None:
        rows = [_reject_row(one, self.item) for one in self.rejects]
        batches = pa.Table.from_pylist(rows, schema=REJECT).to_batches(max_chunksize=BATCH_ROWS)
        part = write_part(self.directory, name, lambda s: write_ipc(s, REJECT, batches), info)
        self.reject_parts.append(part)
        self.rejects = []


def finished_unit(directory: Path, unit: int) -> Item | None:
    """The result of an earlier attempt that came to its end, with its bytes as they were."""
    last = finished_part(directory, f"rejects-{unit:05d}.arrow")
    if last is None:
        return None
    texts = [finished_part(directory, name) for name in last.info["text_parts"]]
    rejects = [finished_part(directory, name) for name in last.info["reject_parts"]]
    if not (all(texts) and all(rejects)):
        return None
    return _result([p for p in texts if p], [*(p for p in rejects if p), last])


def _items_until(found: Sequence[Kept | Reject], rows: int) -> int:
    """How many items hold the first `rows` documents."""
    for index, one in enumerate(found):
        rows -= isinstance(one, Kept)
        if not rows:
            return index + 1
    raise AssertionError("there are as many documents as rows")


def _finished(directory: Path, unit: str) -> tuple[list[Part], list[Part]]:
    """Text and reject parts up to the last shard after which an attempt can go on."""
    texts: list[Part] = []
    rejects: list[Part] = []
    while True:
        text = finished_part(directory, f"text-{unit}-{len(texts):03d}.arrow")
        if text is None or "last" not in text.info:
            return texts, rejects
        names = [f"rejects-{unit}-{n:03d}.arrow" for n in range(text.info["rejects"])]
        more = [finished_part(directory, name) for name in names[len(rejects) :]]
        if not all(more):
            return texts, rejects
        texts.append(text)
        rejects += [part for part in more if part]


def _result(texts: list[Part], rejects: list[Part]) -> Item:
    return {"text": [asdict(p) for p in texts], "rejects": [asdict(p) for p in rejects]}


def _reject_row(row: Reject, item: Item) -> dict[str, Any]:
    return {
        "source": item["source"],
        "file": item["file"],
        "position": row.position,
        "offset": row.offset,
        "bytes": row.size,
        "reason": row.reason,
        "snippet": printable(row.snippet[:SNIPPET].replace("\0", "")),
    }
