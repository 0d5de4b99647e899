"""Bytes of plain, gzip and zstd files as a stream of blocks, and bounded lines over them.

A broken file loses only its tail: every block before the break is yielded, then `BrokenStream` says
what happened. Memory: a block of 1 MiB, and one line of at most the caller's limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

BLOCK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UTF8_BOM = b"\xef\xbb\xbf"


class BrokenStream(Exception):
    """The file ends or breaks in the middle. reason: 'truncated' or 'unreadable'."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Line:
    number: int
    offset: int  # byte offset in the decompressed file
    data: bytes  # without the line end; only the head where `too_long`
    size: int  # bytes of the whole line
    too_long: bool = False


def blocks(path: Path) -> Iterator[bytes]:
    """Decompressed blocks; told by the first bytes, not the name, also where gzip is nested."""
    try:
        yield from _decompressed(_raw(path))
    except OSError as error:
        raise BrokenStream("unreadable", str(error)) from error


def lines(stream: Iterator[bytes], limit: int) -> Iterator[Line]:
    """Lines ended by LF or CRLF, the last perhaps by nothing; a BOM is dropped.

    A line over `limit` bytes is read past without being kept. If the stream breaks, its unfinished
    last line is dropped: the exception's `detail` is unchanged and the caller rejects the tail.
    """
    number = offset = 0
    pending, size = bytearray(), 0
    for block in _without_bom(stream):
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            _keep(pending, block, start, end, limit)
            size += end - start
            yield _line(number, offset, pending, size, limit)
            number, offset, size = number + 1, offset + size + 1, 0
            pending.clear()
            start = end + 1
        _keep(pending, block, start, len(block), limit)
        size += len(block) - start
    if size:
        yield _line(number, offset, pending, size, limit)


def _keep(pending: bytearray, block: bytes, start: int, end: int, limit: int) -> None:
    room = limit + 1 - len(pending)
    if room > 0:
        pending += block[start : min(end, start + room)]


def _line(number: int, offset: int, pending: bytearray, size: int, limit: int) -> Line:
    if size > limit:
        return Line(number, offset, bytes(pending[:1000]), size, too_long=True)
    return Line(number, offset, bytes(pending.removesuffix(b"\r")), size)


def _without_bom(stream: Iterator[bytes]) -> Iterator[bytes]:
    first = True
    for block in stream:
        yield block.removeprefix(UTF8_BOM) if first else block
        first = False


def _raw(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            yield block


def _decompressed(raw: Iterator[bytes]) -> Iterator[bytes]:
    head = next(raw, b"")
    if head.startswith(GZIP_MAGIC):
        yield from _decompressed(_gunzip(_chained(head, raw)))
    elif head.startswith(ZSTD_MAGIC):
        yield from _decompressed(_unzstd(_chained(head, raw)))
    elif head:
        yield from _chained(head, raw)


def _chained(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


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
            try:
                block = member.decompress(data, BLOCK)
            except zlib.error as error:
                raise BrokenStream("unreadable", f"gzip: {error}") from error
            if block:
                yield block
            data = member.unused_data if member.eof else member.unconsumed_tail
            inside = not member.eof
    if inside:
        yield member.flush()
        raise BrokenStream("truncated", "the gzip file ends before its end mark")


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
            block = stream.read(BLOCK)
        except OSError as error:
            broken = "truncated" if "runcated" in str(error) else "unreadable"
            raise BrokenStream(broken, f"zstd: {error}") from error
        if not block:
            return
        yield block
