"""CSV and TSV files as documents: a header row, quoted line breaks, any of four delimiters.

In: a piece of a file (plain, gzip, zstd, bzip2). Out: one document a row, or a reject with its line
and byte offset; reading goes on at the next line after a bad row. `position` is the row's first
physical line (the header's is 0), so it needs no count of the rows before it.
Memory: one row of at most ROW_BYTES, and a block of the file.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from data_jobs.read.documents import Found, Piece, ReadOptions, Reject
from data_jobs.read.mapping import to_document
from data_jobs.read.streams import BrokenStream, Line, blocks, lines

DELIMITERS = ",;\t|"
ROW_BYTES = 1 << 25  # an unclosed quote swallows at most this much before the row is given up
TOO_LONG = "the row is too long"


def read_csv(piece: Piece, options: ReadOptions) -> Found:
    """Reasons: wrong-columns, bad-row (its quotes), invalid-utf8, too-long, truncated,
    unreadable, and those of `mapping.to_document`."""
    table = _Table(piece, options)
    for row in table.rows():
        if row.reason:
            yield _reject(row, row.reason, row.detail)
        elif len(row.cells) != len(table.header):
            counts = f"{len(row.cells)} columns, the header has {len(table.header)}: "
            yield _reject(row, "wrong-columns", counts)
        else:
            record = dict(zip(table.header, row.cells, strict=True))
            yield to_document(record, options, row.position, row.offset, row.size)
    if broken := table.feed.broken:
        place = (table.feed.position, table.feed.offset, broken.lost)
        yield Reject(*place, broken.reason, broken.detail)


def borders(piece: Piece, options: ReadOptions, every: int) -> Iterator[tuple[int, int]]:
    """(offset, position) of the first row that starts `every` bytes or more after the last border:
    where the file may be cut. It is the reader's own pass, so both agree on each line break."""
    last = 0
    for row in _Table(piece, options).rows():
        if row.offset >= last + every:
            last = row.offset
            yield row.offset, row.position


class Row:
    """A row as it stands in the file: its cells, or the reason why it has none."""

    __slots__ = ("cells", "detail", "lines", "offset", "position", "reason", "size")

    def __init__(self, cells: list[str], taken: list[Line], reason: str = "", detail: str = ""):
        self.cells, self.lines, self.reason, self.detail = cells, taken, reason, detail
        self.position, self.offset = taken[0].number, taken[0].offset
        self.size = sum(line.size + 1 for line in taken)


class _Feed:
    """Lines for `csv.reader`, which asks for as many as a row has; `taken` are those of the row."""

    def __init__(self, stream: Iterator[Line]):
        self.stream = stream
        self.again: deque[Line] = deque()
        self.taken: list[Line] = []
        self.size = 0
        self.damaged = False
        self.broken: BrokenStream | None = None
        self.position = self.offset = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else self._next_line()
        self.taken.append(line)
        self.size += line.size + 1
        if line.too_long or self.size > ROW_BYTES:
            raise csv.Error(TOO_LONG)
        try:
            return line.data.decode("utf-8") + "\n"
        except UnicodeDecodeError:
            self.damaged = True
            return line.data.decode("utf-8", "replace") + "\n"

    def _next_line(self) -> Line:
        try:
            line = next(self.stream)
        except BrokenStream as broken:  # the lines before the break may still hold rows
            self.broken = broken
            raise StopIteration from broken
        self.position, self.offset = line.number + 1, line.offset + line.size + 1
        return line

    def begin(self) -> None:
        self.taken, self.size, self.damaged = [], 0, False

    def keep_first(self) -> None:
        """The row was none: its first line is lost, the others are read again."""
        self.again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


class _Table:
    """The header of the file and the rows of the piece."""

    def __init__(self, piece: Piece, options: ReadOptions):
        csv.field_size_limit(max(csv.field_size_limit(), ROW_BYTES))  # one value for the process
        self.piece = piece
        self.feed = _Feed(lines(blocks(piece.place), ROW_BYTES))
        self.delimiter = ","
        self.header: list[str] = []
        self.wanted = {options.text_field, options.messages_field, *options.prompt_field.split("+")}

    def rows(self) -> Iterator[Row]:
        """Rejects the whole file where its header cannot be read."""
        head = self._head()
        if head is not None:
            yield head
            return
        if start := self.piece.start:
            stream = blocks(self.piece.place, start)
            self.feed = _Feed(lines(stream, ROW_BYTES, self.piece.first, start))
        reader = csv.reader(self.feed, delimiter=self.delimiter, strict=True)
        while True:
            self.feed.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row = self._failed(str(error))
            else:
                row = Row(cells, self.feed.taken, "invalid-utf8" if self.feed.damaged else "")
            if self.piece.end is not None and row.offset >= self.piece.end:
                return
            if row.cells or row.reason:
                yield row

    def _head(self) -> Row | None:
        """Find delimiter and header; if there is none, a Row of the file's size with the reason."""
        first = next((line for line in iter(self.feed) if line.strip()), "")
        self.feed.again.extend(self.feed.taken[-1:])
        self.feed.begin()
        self.delimiter = delimiter_of(first, self.wanted)
        try:
            cells = next(csv.reader(self.feed, delimiter=self.delimiter, strict=True), [])
        except csv.Error as error:
            return self._no_header("bad-row", str(error))
        self.header = [cell.strip() for cell in cells]
        return self._no_header("invalid-utf8", "") if self.feed.damaged else None

    def _no_header(self, reason: str, detail: str) -> Row:
        row = Row([], self.feed.taken[:1], reason, f"header: {detail}: ")
        row.size = max(row.size, self.piece.place.size())
        return row

    def _failed(self, error: str) -> Row:
        """Tab-separated text often holds quotes that mean nothing, so a line with the right number
        of tabs is taken as it stands."""
        alone = len(self.feed.taken) == 1
        self.feed.keep_first()
        line = self.feed.taken[0]
        if alone and error == TOO_LONG:
            return Row([], self.feed.taken, "too-long")
        if self.delimiter == "\t" and line.data.count(b"\t") == len(self.header) - 1:
            try:
                return Row(line.data.decode("utf-8").split("\t"), self.feed.taken)
            except UnicodeDecodeError:
                return Row([], self.feed.taken, "invalid-utf8")
        return Row([], self.feed.taken, "bad-row", f"{error}: ")


def delimiter_of(header: str, wanted: set[str]) -> str:
    """The first delimiter that yields a wanted column, else the most frequent; a comma in doubt."""
    cells = {}
    for delimiter in DELIMITERS:
        try:
            cells[delimiter] = next(csv.reader([header], delimiter=delimiter))
        except (csv.Error, StopIteration):
            cells[delimiter] = []
    for delimiter in DELIMITERS:
        if len(cells[delimiter]) > 1 and wanted & {cell.strip() for cell in cells[delimiter]}:
            return delimiter
    return max(DELIMITERS, key=lambda delimiter: len(cells[delimiter]))


def _reject(row: Row, reason: str, detail: str = "") -> Reject:
    snippet = detail + row.lines[0].data[:400].decode("utf-8", "replace")
    return Reject(row.position, row.offset, row.size, reason, snippet[:200])
