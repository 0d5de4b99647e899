"""Rows of Parquet and Arrow IPC files; a damaged row group or batch costs its own rows only.

Memory: ROWS rows as Python objects; of Parquet one row group as far as Arrow decodes it at a time,
of Arrow one record batch (a local file is mapped).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.read.documents import Found, Piece, ReadOptions, Reject
from data_jobs.read.mapping import to_document
from data_jobs.read.places import store_problem

ROWS = 500  # made Python objects at once
BROKEN = (pa.ArrowException, OSError, ValueError)
PARQUET_END = b"PAR1"
ARROW_FILE = b"ARROW1"
MOST_ROWS = 1 << 31  # of a batch
ARROW_STREAM_AT = 8  # an Arrow file is a stream between two marks


def read_parquet(piece: Piece, options: ReadOptions) -> Found:
    """Row groups are read one by one. Raises UserError where a store fails."""
    try:
        file = pq.ParquetFile(piece.place.native(), page_checksum_verification=True)
    except BROKEN as error:
        yield _broken(piece, error, piece.first, piece.place.size(), _ending(piece))
        return
    position = piece.first
    end = file.num_row_groups if piece.end is None else piece.end
    for group in range(piece.start, end):
        rows = file.metadata.row_group(group).num_rows
        if position + rows > piece.resume:
            yield from _row_group(file, group, piece, options, position)
        position += rows


def read_arrow(piece: Piece, options: ReadOptions) -> Found:
    """The file form by its batches, the stream form, and what is whole of a cut file.

    A damaged batch is one reject, and counts as many positions as it says it has rows. Raises
    UserError where a store fails.
    """
    position = piece.first
    size = piece.place.size()
    try:
        for batch, error in _arrow_batches(piece):
            error = error or _unsound(batch)
            if error is None:
                yield from _rows(batch, position, options, piece.resume)
            else:
                lost = max(batch.get_total_buffer_size(), 1)  # `nbytes` would trust the offsets
                yield _broken(piece, error, position, lost, "unreadable")
            position += max(counted(batch), error is not None)
    except BROKEN as error:
        yield _broken(piece, error, position, max(size, 1), "truncated")


def _row_group(
    file: pq.ParquetFile, group: int, piece: Piece, options: ReadOptions, position: int
) -> Found:
    about = file.metadata.row_group(group)
    done = 0
    try:
        for batch in file.iter_batches(batch_size=ROWS, row_groups=[group]):
            yield from _rows(batch, position + done, options, piece.resume)
            done += batch.num_rows
    except BROKEN as error:
        lost = about.num_rows - done
        size = about.total_byte_size * lost // max(about.num_rows, 1)
        detail = f"row group {group}, {lost} rows: "
        yield _broken(piece, error, position + done, max(size, 1), "unreadable", detail)


def _broken(
    piece: Piece, error: Exception, position: int, size: int, reason: str, detail: str = ""
) -> Reject:
    if problem := store_problem(piece.place.url, error):
        raise problem from error
    return Reject(position, -1, size, reason, f"{detail}{error}"[:200])


def _ending(piece: Piece) -> str:
    """Why a Parquet file has no footer: what is there may be whole, or cut off."""
    with piece.place.open() as file:
        file.seek(max(piece.place.size() - len(PARQUET_END), 0))
        return "unreadable" if file.read() == PARQUET_END else "truncated"


def _arrow_batches(piece: Piece) -> Iterator[tuple[pa.RecordBatch, Exception | None]]:
    """Each batch; with an error what can be read of it."""
    source = piece.place.native()
    magic = source.read(len(ARROW_FILE))
    source.seek(0)
    if magic == ARROW_FILE:
        try:
            reader = pa.ipc.open_file(source)
        except BROKEN:  # the table of contents stands at the end, which is cut off
            source.seek(ARROW_STREAM_AT)
            yield from ((batch, None) for batch in pa.ipc.open_stream(source))
            raise
        end = reader.num_record_batches if piece.end is None else piece.end
        for index in range(piece.start, end):
            try:
                yield reader.get_batch(index), None
            except BROKEN as error:
                yield _first_column(source, index), error
    elif magic:
        yield from ((batch, None) for batch in pa.ipc.open_stream(source))


def first_columns(source: pa.NativeFile) -> pa.RecordBatchFileReader:
    """A reader that decompresses no other column: enough to count rows."""
    return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=[0]))


def _first_column(source: pa.NativeFile, index: int) -> pa.RecordBatch:
    """Of a damaged batch; one without rows where it is damaged too."""
    try:
        return first_columns(source).get_batch(index)
    except BROKEN:
        return pa.record_batch({})


def counted(batch: pa.RecordBatch) -> int:
    """Positions that a batch takes: its rows, where their number may be true."""
    return batch.num_rows if 0 <= batch.num_rows < MOST_ROWS else 1


def _unsound(batch: pa.RecordBatch) -> Exception | None:
    """What is wrong with a batch: Arrow trusts the offsets in a file, and one that leads out of
    its buffer ends the process. A string that is no UTF-8 costs its own row later."""
    for column in batch.columns:
        try:
            column.validate(full=True)
        except BROKEN as error:
            text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            if not (text and "UTF8" in str(error)):  # which is looked at after the offsets
                return error
    return None


def _rows(batch: pa.RecordBatch, position: int, options: ReadOptions, resume: int) -> Found:
    """A row's size is the batch's mean: what its text takes in the file cannot be told."""
    size = max(batch.nbytes // max(batch.num_rows, 1), 1)
    for start in range(0, batch.num_rows, ROWS):
        part = batch.slice(start, ROWS)
        if position + start + part.num_rows > resume:
            for index, record in enumerate(_records(part)):
                place = position + start + index
                if isinstance(record, dict):
                    yield to_document(record, options, place, -1, size)
                else:
                    yield Reject(place, -1, size, "invalid-utf8", str(record)[:200])


def _records(batch: pa.RecordBatch) -> list[dict[str, Any] | Exception]:
    """Rows as dicts; where bytes are no UTF-8, the error in the place of that row alone."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError, LookupError):
        return [_record(batch, row) for row in range(batch.num_rows)]


def _record(batch: pa.RecordBatch, row: int) -> dict[str, Any] | Exception:
    names = batch.schema.names
    try:
        return {name: _value(batch.column(place)[row]) for place, name in enumerate(names)}
    except UnicodeDecodeError as error:
        return error


def _value(scalar: pa.Scalar) -> Any:
    """A time that Python cannot hold (of the year 40,000, of no known zone) as its number, or as
    None inside a list or struct. Raises UnicodeDecodeError."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, LookupError):
        return getattr(scalar, "value", None)
