"""Records of WARC and WET archives as documents (fastwarc), HTML to its main text (resiliparse).

`response` records hold web pages, `conversion` records (WET) plain text, `resource` records either.
Memory: one record of at most the size limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

if TYPE_CHECKING:
    from data_jobs.readers import Found

TEXT_TYPES = ("text/plain", "text/html", "application/xhtml+xml", "")
HTML_GROWTH = 20  # a page of markup may be this many times its text


def read_records(path: Path, max_bytes: int, html: str) -> Found:
    """Documents of the text records; of a cut archive, what stood before the cut."""
    from data_jobs.readers import Reject

    kinds = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.resource
    position = -1
    try:
        with open(path, "rb") as stream:
            for record in ArchiveIterator(stream, record_types=kinds, auto_decode="all"):
                position += 1
                yield from _record(record, position, max_bytes, html)
    except (OSError, ValueError, RuntimeError) as error:
        yield Reject(position + 1, -1, 1, "truncated", str(error)[:200])


def _record(record: Any, position: int, max_bytes: int, html: str) -> Iterator:
    from data_jobs.readers import Document, Reject

    kind = (record.http_content_type or record.headers.get("Content-Type") or "").lower()
    kind = kind.split(";")[0].strip()
    offset = int(record.stream_pos)
    limit = max_bytes * (HTML_GROWTH if "html" in kind else 1)
    url = record.headers.get("WARC-Target-URI") or ""
    size = int(record.content_length)
    if kind not in TEXT_TYPES:
        yield Reject(position, offset, size, "not-a-text-type", f"{kind} {url}"[:200])
        return
    if size > limit:
        yield Reject(position, offset, size, "too-long", url[:200])
        return
    data = record.reader.read(limit + 1)
    if len(data) > limit:  # it may be compressed inside the record
        yield Reject(position, offset, size, "too-long", url[:200])
        return
    text = bytes_to_str(data, _encoding(data, record))
    if "html" in kind and html == "extract":
        text = extract_plain_text(text, main_content=True, preserve_formatting=True)
    yield Document(position, offset, max(len(data), 1), text, {"url": url})


def _encoding(data: bytes, record: Any) -> str:
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        return record.http_charset or detect_encoding(data) or "utf-8"
