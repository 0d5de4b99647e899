"""Where a large source file may be cut, and its sha256, found in one pass over its bytes.

In: a place, its format and `ingest.piece_bytes`. Out: the size, the hash and the pieces' borders.
Plain JSON Lines and text are cut at line ends (text where documents end), CSV and Wikipedia dumps
where their own readers see a row or page begin (a second pass), Parquet at row groups, Arrow files
at record batches. Compressed files and WARC are one piece, however large: a unit resumes inside it.
Memory: one block, one text document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from data_jobs.read.documents import Piece, ReadOptions
from data_jobs.read.places import Place
from data_jobs.read.read_csv import borders as csv_borders
from data_jobs.read.read_tables import ARROW_FILE, BROKEN, counted, first_columns
from data_jobs.read.read_text import LONGEST, stretches
from data_jobs.read.streams import BLOCK, is_plain


class Border(NamedTuple):
    at: int  # byte offset, row group or batch
    first: int  # position of the first record behind it


class Planned(NamedTuple):
    size: int
    sha256: str
    pieces: list[tuple[int, int | None, int]]  # (start, end, first), as in `documents.Piece`


def planned(place: Place, format: str, piece_bytes: int, options: ReadOptions) -> Planned:
    """Raises OSError, and UserError of a store."""
    digest = hashlib.sha256()
    size = place.size()
    stream = _hashed(place, digest)
    borders: list[Border] = []
    if size > piece_bytes:
        if format in SCANNED and is_plain(place):
            borders = list(SCANNED[format](stream, piece_bytes))
        elif format in READ and is_plain(place):
            found = READ[format](Piece(place, format), options, piece_bytes)
            borders = [Border(*border) for border in found]
        elif format in TABLES:
            borders = list(TABLES[format](place, size, piece_bytes))
    for _ in stream:
        pass
    whole = [Border(0, 0), *(b for b in borders if 0 < b.at < size)]
    pieces: list[tuple[int, int | None, int]] = [(a.at, b.at, a.first) for a, b in pairwise(whole)]
    return Planned(size, digest.hexdigest(), [*pieces, (whole[-1].at, None, whole[-1].first)])


def line_borders(stream: Iterable[bytes], every: int) -> Iterator[Border]:
    """The first line start `every` bytes or more after the last border."""
    target, at, lines = every, 0, 0
    for block in stream:
        done = 0
        while at + len(block) >= target:
            end = block.find(b"\n", max(target - 1 - at, done)) + 1
            if not end:
                break
            lines += block.count(b"\n", done, end)
            done, target = end, at + end + every
            yield Border(at + end, lines)
        lines += block.count(b"\n", done)
        at += len(block)


def text_borders(stream: Iterator[bytes], every: int) -> Iterator[Border]:
    """The first document's end `every` bytes or more after the last border."""
    last = 0
    for one in stretches(stream, LONGEST):
        end = one.offset + one.size
        if end >= last + every:
            last = end
            yield Border(end, one.first + one.lines)


def parquet_borders(place: Place, size: int, every: int) -> Iterator[Border]:
    """Row groups of together `every` bytes or more of the file; none where it has no footer."""
    try:
        about = pq.ParquetFile(place.native()).metadata
    except BROKEN:
        return
    held = rows = 0
    for group in range(about.num_row_groups):
        if held >= every:
            yield Border(group, rows)
            held = 0
        one = about.row_group(group)
        held += sum(one.column(c).total_compressed_size for c in range(one.num_columns))
        rows += one.num_rows


def arrow_borders(place: Place, size: int, every: int) -> Iterator[Border]:
    """Record batches of the file form, as many to a piece as hold `every` bytes on the average."""
    try:
        source = place.native()
        if source.read(len(ARROW_FILE)) != ARROW_FILE:
            return
        reader = first_columns(source)
        step = max(reader.num_record_batches * every // size, 1)
        rows = 0
        for batch in range(reader.num_record_batches):
            if batch and batch % step == 0:
                yield Border(batch, rows)
            rows += counted(reader.get_batch(batch))
    except BROKEN:
        return


def wikipedia_borders(piece: Piece, options: ReadOptions, every: int) -> Iterator[tuple[int, int]]:
    from data_jobs.read.read_wikipedia import borders

    return borders(piece, options, every)


SCANNED = {"jsonl": line_borders, "text": text_borders}
READ = {"csv": csv_borders, "wikipedia": wikipedia_borders}
TABLES = {"parquet": parquet_borders, "arrow": arrow_borders}


def _hashed(place: Place, digest: Any) -> Iterator[bytes]:
    with place.open() as file:
        while block := file.read(BLOCK):
            digest.update(block)
            yield block
