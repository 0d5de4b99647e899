"""What a reader takes and gives: a piece of a source file in, documents and rejects out.

A reader yields in order of position, each position once, and says the same on every reading: an
interrupted unit goes on after the last position that it has written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from data_jobs.read.places import Place


@dataclass(frozen=True)
class ReadOptions:
    """How a source's records become documents: the recipe's fields of the source and of `clean`."""

    kind: str = "text"  # or 'instruction'
    text_field: str = "text"
    id_field: str = "id"
    url_field: str = "url"
    license_field: str = "license"
    messages_field: str = "messages"
    prompt_field: str = "prompt"
    completion_field: str = "completion"
    max_bytes: int = 10_000_000  # longer documents are rejected
    html: str = "extract"  # or 'keep'
    html_engine: str = "resiliparse"  # or 'trafilatura'


@dataclass(frozen=True)
class Piece:
    """A stretch of one source file, as `ingest` planned it.

    Positions count through the whole file, so a document's id does not depend on the pieces. Bytes
    are counted after decompression and decoding (a byte order mark is part of them).
    """

    place: Place
    format: str  # a key of readers.READERS
    start: int = 0  # lines, csv: byte offset of the first record; tables: first row group or batch
    end: int | None = None  # where the next piece starts; None: the end of the file
    first: int = 0  # position of the first record: lines (in csv outside quotes) or rows before it
    resume: int = 0  # records before this position were read earlier: they may be passed unparsed


@dataclass(frozen=True)
class Document:
    position: int  # line, row or record, from 0
    offset: int  # byte offset in the decompressed file, -1 where unknown
    size: int  # bytes it takes in the file, for the share of what is quarantined
    text: str  # '' where there are messages
    name: str = ""  # the source's own id
    url: str = ""
    license: str = ""
    fields: dict[str, Any] = field(default_factory=dict)  # everything besides the above
    messages: tuple[tuple[str, str], ...] = ()  # (role, content) of an instruction document


@dataclass(frozen=True)
class Reject:
    position: int
    offset: int
    size: int
    reason: str
    snippet: str = ""


Found = Iterator[Document | Reject]
