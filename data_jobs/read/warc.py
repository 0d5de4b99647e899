"""Records of WARC and WET archives as documents (fastwarc), HTML to its main text.

`response` records hold web pages, `conversion` records (WET) plain text, `resource` records either.
Memory: one record of at most the size limit.
"""

from __future__ import annotations

import codecs
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from data_jobs.cleaning.extract import page_text
from data_jobs.read.documents import Document, Found, Piece, ReadOptions, Reject
from data_jobs.read.mapping import to_document
from data_jobs.read.streams import BLOCK

KINDS = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.resource
TEXT_TYPES = ("text/plain", "text/html", "application/xhtml+xml", "")
COMPRESSED = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")  # gzip, zstd: a member holds a record
PLAIN = b"WARC/1."
BROKEN = (OSError, ValueError, RuntimeError)
HTML_GROWTH = 20  # a page of markup may be this many times its text


def read_records(piece: Piece, options: ReadOptions) -> Found:
    """Documents of the text records. A damaged stretch is one reject, and reading goes on at the
    next record; of a cut archive, what stood before the cut. Raises UserError where a store fails.
    """
    position, start, inside = piece.first - 1, 0, False
    with piece.place.open() as stream:
        mark = _mark(stream)
        end = stream.seek(0, 2)
        while start < end:
            stream.seek(start)
            try:
                for record in ArchiveIterator(stream, record_types=KINDS, auto_decode="all"):
                    position, start, inside = position + 1, int(record.stream_pos), True
                    if mark == PLAIN and start + record.content_length > end:
                        raise OSError(f"{record.content_length} bytes, the file has fewer")
                    if position >= piece.resume:
                        yield _record(record, position, options)
                    inside = False
                return
            except BROKEN as error:
                position += not inside
                broken = start if inside else _next(stream, start + 1, mark)
                start, inside = _next_good(stream, start + 1, end, mark), False
                reason = "unreadable" if start < end else "truncated"
                yield Reject(position, broken, max(start - broken, 1), reason, str(error)[:200])


def _mark(stream: BinaryIO) -> bytes:
    """What a record begins with in this archive."""
    head = stream.read(4)
    return next((mark for mark in COMPRESSED if head.startswith(mark)), PLAIN)


def _next(stream: BinaryIO, start: int, mark: bytes) -> int:
    """Offset of the next mark at `start` or behind it; the size of the file where there is none."""
    stream.seek(start)
    held = b""
    while block := stream.read(BLOCK):
        held += block
        if (found := held.find(mark)) >= 0:
            return start + found
        start += max(len(held) - len(mark) + 1, 0)
        held = held[-(len(mark) - 1) :]
    return start + len(held)


def _next_good(stream: BinaryIO, start: int, end: int, mark: bytes) -> int:
    """Offset of the first record at `start` or behind it that can be read; `end` if none."""
    while (start := _next(stream, start, mark)) < end:
        stream.seek(start)
        try:
            record = next(iter(ArchiveIterator(stream, record_types=WarcRecordType.any_type)), None)
            if record is not None and record.stream_pos == start:
                return start
        except BROKEN:
            pass
        start += 1
    return end


def _record(record: Any, position: int, options: ReadOptions) -> Document | Reject:
    """Raises OSError where the record is not whole."""
    if record.headers.get("Content-Length") is None:
        raise OSError("the head of the record is not whole")
    kind = (record.http_content_type or record.headers.get("Content-Type") or "").lower()
    kind = kind.split(";")[0].strip()
    limit = options.max_bytes * (HTML_GROWTH if "html" in kind else 1)
    url = record.headers.get("WARC-Target-URI") or ""
    size = int(record.content_length)
    place = (position, int(record.stream_pos), max(size, 1))
    if kind not in TEXT_TYPES:
        return Reject(*place, "not-a-text-type", f"{kind} {url}"[:200])
    if size > limit:
        return Reject(*place, "too-long", url[:200])
    data = _payload(record.reader, size, limit)
    if len(data) > limit:
        return Reject(*place, "too-long", url[:200])
    if len(data) < size and not _encoded(record):
        raise OSError(f"{len(data)} of {size} bytes of {url}")
    if "html" in kind and options.html == "extract":
        text = page_text(_utf8(data, record.http_charset), options.html_engine)
    else:
        text = _utf8(data, record.http_charset).decode()
    fields = {options.text_field: text, options.url_field: url}
    return to_document(fields, options, position, place[1], max(len(data), 1))


def _encoded(record: Any) -> bool:
    """The length in the record's head is not that of the content."""
    headers = record.http_headers
    return bool(headers and (headers.get("Content-Encoding") or headers.get("Transfer-Encoding")))


def _payload(reader: Any, size: int, limit: int) -> bytes:
    """All of it, or a little more than `limit` bytes where it unpacks to more than it takes.

    The reader sets as much memory apart as it is asked for, so it is asked for what is there.
    """
    data = reader.read(size + 1)
    while len(data) <= limit and (more := reader.read(min(len(data) + 1, limit))):
        data += more
    return data


def _utf8(data: bytes, charset: str | None) -> bytes:
    """In UTF-8: it may be that, whatever the header says; else what the header says, or a guess."""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return _decoded(data, charset).encode("utf-8", "replace")
    return data


def _decoded(data: bytes, charset: str | None) -> str:
    """By the server's charset, where it names one that Python knows (anything may stand there)."""
    try:
        if charset:
            return bytes_to_str(data, charset)
    except (LookupError, ValueError):
        pass
    return bytes_to_str(data, detect_encoding(data) or "utf-8")
