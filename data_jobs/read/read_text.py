"""Text files: a short one is one document, a long one is cut at blank lines.

A document ends before the first blank line that begins more than DOCUMENT_BYTES after its start, or
before the first line of any kind after ten times as much. The rule looks at bytes alone, from
the start of the file, so `ingest` finds the same borders as the reader, wherever the pieces end.
Memory: one document and one line, both bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from data_jobs.read.documents import Document, Found, Piece, ReadOptions, Reject
from data_jobs.read.mapping import to_document
from data_jobs.read.streams import UTF8_BOM, BrokenStream, blocks

DOCUMENT_BYTES = 65_536
LONGEST = 10 * DOCUMENT_BYTES
BLANK = re.compile(rb"\n(?=[ \t\r\x0b\x0c]{0,64}\n)")  # the next line is blank
LOOKAHEAD = 66


class Stretch(NamedTuple):
    first: int  # number of its first line
    offset: int
    size: int
    lines: int  # line ends in it
    data: bytes  # only the head where a line is too long to keep


def read_text(piece: Piece, options: ReadOptions) -> Found:
    """One `Document` a stretch; a line that is no UTF-8 is rejected alone."""
    stream = blocks(piece.place, piece.start, piece.end)
    position, offset = piece.first, piece.start
    try:
        for one in stretches(stream, options.max_bytes + LONGEST, piece.first, piece.start):
            position, offset = one.first + one.lines + 1, one.offset + one.size
            yield from _documents(one, options)
    except BrokenStream as broken:
        yield Reject(position, offset, broken.lost, broken.reason, broken.detail)


def stretches(
    stream: Iterator[bytes], keep: int, first: int = 0, offset: int = 0
) -> Iterator[Stretch]:
    """Cut a stream of blocks into documents, keeping at most about `keep` bytes of one.

    If the stream breaks, what came before the break is yielded, then BrokenStream raised.
    """
    held, lost, lost_lines = bytearray(), 0, 0  # lost: bytes of the stretch that are not kept
    broken: BrokenStream | None = None
    for block in _with_break(stream):
        if isinstance(block, BrokenStream):
            broken = block
        elif lost and (end := block.find(b"\n") + 1):  # after LONGEST, any line end is a border
            one = Stretch(first, offset, len(held) + lost + end, lost_lines + 1, bytes(held))
            yield one
            first, offset, lost = first + one.lines, offset + one.size, 0
            held[:] = block[end:]
        elif lost:
            lost += len(block)
        else:
            held += block
        while not lost and (border := _border(held)):
            data = bytes(held[:border])
            one = Stretch(first, offset, border, data.count(b"\n"), data)
            yield one
            first, offset = first + one.lines, offset + one.size
            del held[:border]
        if not lost and len(held) > keep + LOOKAHEAD:
            lost, lost_lines = len(held) - keep, held.count(b"\n")
            del held[keep:]
    if held:
        yield Stretch(first, offset, len(held) + lost, held.count(b"\n"), bytes(held))
    if broken:
        raise broken


def _with_break(stream: Iterator[bytes]) -> Iterator[bytes | BrokenStream]:
    try:
        yield from stream
    except BrokenStream as broken:
        yield broken


def _border(held: bytearray) -> int:
    """Where the document at the start of `held` ends, 0 where it goes on or is not known yet."""
    if len(held) < LONGEST + LOOKAHEAD:
        found = BLANK.search(held, DOCUMENT_BYTES)
        return found.start() + 1 if found and found.start() < LONGEST else 0
    found = BLANK.search(held, DOCUMENT_BYTES, LONGEST + LOOKAHEAD)
    if found and found.start() < LONGEST:
        return found.start() + 1
    return held.find(b"\n", LONGEST) + 1


def _documents(one: Stretch, options: ReadOptions) -> Found:
    data = one.data.removeprefix(UTF8_BOM) if one.offset == 0 else one.data
    if one.size == len(one.data):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            yield _document(text, options, one.first, one.offset, one.size)
            return
    yield from _line_by_line(one, data, options)


def _line_by_line(one: Stretch, data: bytes, options: ReadOptions) -> Found:
    """The good lines as one document at the position of the first of them, the bad as rejects."""
    number, offset = one.first, one.offset + len(one.data) - len(data)
    good: list[str] = []
    bad: list[Reject] = []
    place = size = 0
    start = one.offset
    for line in _lines(data):
        whole = len(line) if line.endswith(b"\n") else one.offset + one.size - offset
        try:
            text = line.decode("utf-8")
            if whole > len(line):
                raise ValueError
        except ValueError as error:
            reason = "invalid-utf8" if isinstance(error, UnicodeDecodeError) else "too-long"
            snippet = line[:400].decode("utf-8", "replace")[:200]
            bad.append(Reject(number, offset, whole, reason, snippet))
        else:
            if not good:
                place, start = number, offset
            good.append(text)
            size += whole
        number, offset = number + 1, offset + whole
    found: list[Document | Reject] = list(bad)
    if good:
        found.append(_document("".join(good), options, place, start, size))
    yield from sorted(found, key=lambda item: item.position)


def _lines(data: bytes) -> Iterator[bytes]:
    """Lines with their LF (bytes.splitlines also cuts at a lone CR)."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _document(
    text: str, options: ReadOptions, position: int, offset: int, size: int
) -> Document | Reject:
    return to_document({options.text_field: text}, options, position, offset, size)
