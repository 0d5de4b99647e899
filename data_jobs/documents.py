"""What a reader takes and gives: a piece of a source file in, documents and rejects out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from data_jobs.places import Place


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
    """A stretch of one source file, as `ingest` planned it."""

    place: Place
    format: str  # a key of readers.READERS
    start: int = 0  # line formats: byte offset of the first line; tables: first row group or batch
    end: int | None = None  # where the next piece starts; None: the end of the file
    first: int = 0  # position (line, row or record number) of the first record


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
