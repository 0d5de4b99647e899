"""Readers: one source file in, documents and rejects out, in the file's order.

A reader never stops for a bad line, record or tail: it yields a `Reject` with the reason and reads
on as far as the format allows. Memory: one line, record or row batch at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.streams import BrokenStream, Line, blocks, lines

TEXT_PIECE_BYTES = 65_536  # a text file is cut at the first blank line after this much
ROWS = 500  # rows of a Parquet file read at once
ESCAPES = 3  # JSON may write 2 bytes of text as the 6 of \u00e3


@dataclass(frozen=True)
class Document:
    position: int  # line, row or record, from 0
    offset: int  # byte offset in the decompressed file, -1 where unknown
    size: int  # bytes it takes in the file, for the share of what is quarantined
    text: str
    fields: dict[str, Any] = field(default_factory=dict)  # everything besides the text


@dataclass(frozen=True)
class Reject:
    position: int
    offset: int
    size: int
    reason: str
    snippet: str = ""


Found = Iterator[Document | Reject]


def read(path: Path, kind: str, text_field: str, max_bytes: int, html: str) -> Found:
    """Documents and rejects of a file of the format `kind` (a key of READERS)."""
    return READERS[kind](path, text_field, max_bytes, html)


def read_jsonl(path: Path, text_field: str, max_bytes: int, html: str) -> Found:
    """One JSON object a line; a line that is none, or has no text, is rejected with the reason."""
    limit = ESCAPES * max_bytes + 65_536
    position = offset = 0
    try:
        for line in lines(blocks(path), limit):
            position, offset = line.number + 1, line.offset + line.size + 1
            if line.too_long or line.data.strip():
                yield _json_line(line, text_field)
    except BrokenStream as broken:
        yield Reject(position, offset, 0, broken.reason, broken.detail)


def read_text(path: Path, text_field: str, max_bytes: int, html: str) -> Found:
    """A text file is one document; a long one is cut at blank lines after TEXT_PIECE_BYTES (a book
    then becomes some dozens of documents), at any line end after ten times as much."""
    piece: list[str] = []
    first, start, size = 0, 0, 0
    position = offset = 0
    try:
        for line in lines(blocks(path), max_bytes):
            position, offset = line.number + 1, line.offset + line.size + 1
            text = _decoded(line)
            if isinstance(text, Reject):
                yield text
                continue
            blank = not text.strip()
            if size > TEXT_PIECE_BYTES and (blank or size > 10 * TEXT_PIECE_BYTES):
                yield Document(first, start, size, "\n".join(piece))
                piece, first, start, size = [], line.number, line.offset, 0
            piece.append(text)
            size += line.size + 1
    except BrokenStream as broken:
        yield Reject(position, offset, 0, broken.reason, broken.detail)
    if piece:
        yield Document(first, start, size, "\n".join(piece))


def read_parquet(path: Path, text_field: str, max_bytes: int, html: str) -> Found:
    """Rows of a Parquet file; a damaged row group loses the rest of the file as `unreadable`."""
    position = 0
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=ROWS):
            yield from _rows(batch, position, text_field)
            position += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Reject(position, -1, _size(path), "unreadable", str(error)[:200])


def read_arrow(path: Path, text_field: str, max_bytes: int, html: str) -> Found:
    """Rows of an Arrow IPC file, of the file or the stream form."""
    position = 0
    try:
        for batch in _arrow_batches(path):
            yield from _rows(batch, position, text_field)
            position += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Reject(position, -1, _size(path), "unreadable", str(error)[:200])


def read_warc(path: Path, text_field: str, max_bytes: int, html: str) -> Found:
    from data_jobs.warc import read_records

    return read_records(path, max_bytes, html)


READERS: dict[str, Callable[[Path, str, int, str], Found]] = {
    "jsonl": read_jsonl,
    "text": read_text,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "warc": read_warc,
}


def _json_line(line: Line, text_field: str) -> Document | Reject:
    decoded = _decoded(line)
    if isinstance(decoded, Reject):
        return decoded
    try:
        record = orjson.loads(decoded)
    except orjson.JSONDecodeError:
        try:  # the standard parser lets lone surrogates and raw control characters pass
            record = json.loads(decoded, strict=False)
        except (ValueError, RecursionError):
            return _reject(line, "invalid-json")
    if not isinstance(record, dict):
        return _reject(line, "not-an-object" if record is not None else "invalid-json")
    return _document(record, text_field, line.number, line.offset, line.size + 1)


def _document(
    record: dict[str, Any], text_field: str, position: int, offset: int, size: int
) -> Document | Reject:
    if text_field not in record:
        snippet = "fields: " + ", ".join(sorted(map(str, record)))
        return Reject(position, offset, size, "missing-field", snippet[:200])
    text = record.pop(text_field)
    if not isinstance(text, str):
        return Reject(position, offset, size, "not-text", repr(text)[:200])
    return Document(position, offset, size, text, record)


def _rows(batch: pa.RecordBatch, position: int, text_field: str) -> Found:
    for index, record in enumerate(batch.to_pylist()):
        text = record.get(text_field)
        size = len(text.encode("utf-8", "replace")) if isinstance(text, str) else 1
        yield _document(record, text_field, position + index, -1, size)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        magic = source.read(6)
        source.seek(0)
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield from _small(reader.get_batch(index))
        else:
            for batch in pa.ipc.open_stream(source):
                yield from _small(batch)


def _small(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, ROWS):
        yield batch.slice(start, ROWS)


def _decoded(line: Line) -> str | Reject:
    if line.too_long:
        return _reject(line, "too-long")
    try:
        return line.data.decode("utf-8")
    except UnicodeDecodeError:
        return _reject(line, "invalid-utf8")


def _reject(line: Line, reason: str) -> Reject:
    snippet = line.data[:400].decode("utf-8", "replace")[:200]
    return Reject(line.number, line.offset, line.size + 1, reason, snippet)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
