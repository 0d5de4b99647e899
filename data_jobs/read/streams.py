"""Bytes of plain, gzip, zstd and bzip2 files as a stream of blocks, and bounded lines over them.

A broken file loses only its tail: every block before the break is yielded, then `BrokenStream` says
what happened. UTF-16 and UTF-32 are told by their byte order mark and come out as UTF-8. Memory: a
block of 1 MiB (and its input), and one line of at most the caller's limit.
"""

from __future__ import annotations

import bz2
import codecs
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_jobs.read.places import Place

BLOCK = 1 << 20  # of decompressed bytes
ZSTD_STEP = 1 << 14  # what Arrow has unpacked of one such step is lost where it meets damage
READ = 1 << 18  # of the file; zlib copies what is left of its input after each block that it gives
HEAD = 4  # bytes that tell the compression or the encoding
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BZIP2_MAGIC = b"BZh"
UTF8_BOM = b"\xef\xbb\xbf"
WIDE = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


class BrokenStream(Exception):
    """The file ends or breaks in the middle. reason: 'truncated' or 'unreadable'.

    lost: bytes of the file that were not read, so a lower bound of what was in them.
    """

    def __init__(self, reason: str, detail: str, lost: int = 0):
        super().__init__(detail)
        self.reason, self.detail, self.lost = reason, detail, lost


class Line(NamedTuple):
    number: int
    offset: int  # byte offset in the decompressed file
    data: bytes  # without the line end; only the head where `too_long`
    size: int  # bytes of the whole line, without LF
    too_long: bool = False


def blocks(place: Place | Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Decompressed blocks from byte `start` to `end`; told by the first bytes, not the name, also
    where gzip is nested. A plain file is read from `start`, a compressed one up to there in vain.

    Raises BrokenStream, and UserError for a store that fails.
    """
    place = place if isinstance(place, Place) else Place(str(place))
    try:
        entered = start if start and is_plain(place) else 0
        with place.open() as file:
            file.seek(entered)
            raw = iter(lambda: file.read(READ), b"")
            try:
                yield from _cut(raw if entered else _decoded(raw), entered, start, end)
            except BrokenStream as broken:
                broken.lost += max(place.size() - file.tell(), 0)
                raise
    except OSError as error:
        raise BrokenStream("unreadable", str(error)) from error


def is_plain(place: Place) -> bool:
    """Neither compressed nor in a wide encoding: byte offsets are those of the file itself."""
    with place.open() as file:
        head = file.read(HEAD)
    return not head.startswith((GZIP_MAGIC, ZSTD_MAGIC, BZIP2_MAGIC, *(mark for mark, _ in WIDE)))


def lines(stream: Iterator[bytes], limit: int, number: int = 0, offset: int = 0) -> Iterator[Line]:
    """Lines ended by LF or CRLF, the last perhaps by nothing; a byte order mark is dropped.

    `number` and `offset` are those of the stream's first line. A line over `limit` bytes is read
    past without being kept. If the stream breaks, its unfinished last line is dropped, and the
    caller rejects the tail.
    """
    pending, size = bytearray(), 0
    for block in stream:
        if offset == 0 and number == 0 and not size and block.startswith(UTF8_BOM):
            block, offset = block[len(UTF8_BOM) :], len(UTF8_BOM)
        whole = block.split(b"\n")
        rest = whole.pop()
        if whole and size:  # the line that earlier blocks began
            size += len(whole[0])
            _keep(pending, whole[0], limit)
            yield _line(number, offset, bytes(pending), size, limit)
            number, offset, size = number + 1, offset + size + 1, 0
            pending.clear()
            del whole[0]
        for data in whole:
            yield _line(number, offset, data, len(data), limit)
            number += 1
            offset += len(data) + 1
        _keep(pending, rest, limit)
        size += len(rest)
    if size:
        yield _line(number, offset, bytes(pending), size, limit)


def _keep(pending: bytearray, data: bytes, limit: int) -> None:
    room = limit + 1 - len(pending)
    if room > 0:
        pending += data[:room]


def _line(number: int, offset: int, data: bytes, size: int, limit: int) -> Line:
    if size > limit:
        return Line(number, offset, data[:1000], size, True)
    if data.endswith(b"\r"):
        data = data[:-1]
    return Line(number, offset, data, size)


def _cut(stream: Iterator[bytes], at: int, start: int, end: int | None) -> Iterator[bytes]:
    """The part [start, end) of a stream whose first byte is byte `at` of the file."""
    for block in stream:
        if end is not None and at >= end:
            return
        if at + len(block) > start:
            yield block[max(start - at, 0) : None if end is None else end - at]
        at += len(block)


def _decoded(raw: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for block in raw:
        head += block
        if len(head) >= HEAD:
            break
    if not head:
        return
    whole = _chained(head, raw)
    if head.startswith(GZIP_MAGIC):
        yield from _decoded(_gunzip(whole))
    elif head.startswith(ZSTD_MAGIC):
        yield from _decoded(_unzstd(whole))
    elif head.startswith(BZIP2_MAGIC):
        yield from _decoded(_bunzip(whole))
    else:
        encoding = next((name for mark, name in WIDE if head.startswith(mark)), "")
        yield from _as_utf8(whole, encoding) if encoding else whole


def _chained(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _as_utf8(raw: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """A lone surrogate becomes bytes that are no UTF-8, so that only its line is rejected."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for block in raw:
            if text := decoder.decode(block):
                yield text.encode("utf-8", "surrogatepass")
        decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise BrokenStream("truncated", f"{encoding}: {error.reason}") from error


def _gunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Members one after another; zero bytes after the last one are padding."""
    member = zlib.decompressobj(31)
    inside = False
    for compressed in raw:
        data = compressed
        while data:
            if not inside:
                data = data.lstrip(b"\0")
                if not data:
                    break
                member, inside = zlib.decompressobj(31), True
            before = member.copy()
            try:
                block = member.decompress(data, BLOCK)
            except zlib.error as error:
                yield _salvaged(before, data)
                raise BrokenStream("unreadable", f"gzip: {error}", len(data)) from error
            if block:
                yield block
            data = member.unused_data if member.eof else member.unconsumed_tail
            inside = not member.eof
    if inside:
        yield member.flush()
        raise BrokenStream("truncated", "the gzip file ends before its end mark")


def _salvaged(member: Any, data: bytes) -> bytes:
    """What `data` unpacks to up to its damage: zlib drops the output of a call that fails."""
    found = bytearray()
    try:
        for position in range(len(data)):
            found += member.decompress(data[position : position + 1])
    except zlib.error:
        pass
    return bytes(found)


def _bunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Streams one after another, as Wikipedia's multistream dumps have them."""
    member = bz2.BZ2Decompressor()
    inside = False
    for compressed in raw:
        data = compressed
        while data or (inside and not member.needs_input):
            if not inside:
                member, inside = bz2.BZ2Decompressor(), True
            try:
                block = member.decompress(data, BLOCK)
            except (OSError, ValueError) as error:
                raise BrokenStream("unreadable", f"bzip2: {error}", len(data)) from error
            if block:
                yield block
            data, inside = member.unused_data, not member.eof
    if inside:
        raise BrokenStream("truncated", "the bzip2 file ends before its end mark")


class _BlockFile:
    """What pyarrow needs of a file object, over an iterator of blocks."""

    closed = False

    def __init__(self, raw: Iterator[bytes]):
        self._raw, self._rest = raw, b""

    def read(self, size: int = BLOCK) -> bytes:
        data = self._rest or next(self._raw, b"")
        self._rest = data[size:]
        return data[:size]

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def _unzstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    stream = pa.CompressedInputStream(pa.PythonFile(_BlockFile(raw), mode="r"), "zstd")
    while True:
        try:
            block = stream.read(ZSTD_STEP)
        except OSError as error:
            broken = "truncated" if "runcated" in str(error) else "unreadable"
            raise BrokenStream(broken, f"zstd: {error}") from error
        if not block:
            return
        yield block
