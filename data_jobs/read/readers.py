"""Readers: a piece of a source file in, documents and rejects out, in the file's order.

A reader never stops for a bad line, record or tail: it yields a `Reject` with the reason and reads
on as far as the format allows. Reading order: documents, mapping, then the file of a format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from data_jobs.read.documents import Document, Found, Piece, ReadOptions, Reject
from data_jobs.read.read_csv import read_csv
from data_jobs.read.read_jsonl import read_jsonl
from data_jobs.read.read_tables import read_arrow, read_parquet
from data_jobs.read.read_text import read_text

Reader = Callable[[Piece, ReadOptions], Found]


def read(piece: Piece, options: ReadOptions) -> Found:
    """Documents and rejects, those before `piece.resume` left out. Raises UserError of a store."""
    for one in READERS[piece.format](piece, options):
        if one.position >= piece.resume:
            yield one


def continued(piece: Piece, last: Document | Reject) -> Piece:
    """The rest of a piece after the record `last`: by its byte offset where there is one, so that a
    plain file is entered there and a compressed one unpacked up to there without parsing."""
    resume = last.position + 1
    if piece.format == "jsonl" and last.offset >= 0:
        return replace(piece, start=last.offset + last.size, first=resume, resume=resume)
    return replace(piece, resume=resume)


def read_warc(piece: Piece, options: ReadOptions) -> Found:
    from data_jobs.read.warc import read_records

    return read_records(piece, options)


def read_wikipedia(piece: Piece, options: ReadOptions) -> Found:
    from data_jobs.read.read_wikipedia import read_wikipedia

    return read_wikipedia(piece, options)


READERS: dict[str, Reader] = {
    "jsonl": read_jsonl,
    "text": read_text,
    "csv": read_csv,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "warc": read_warc,
    "wikipedia": read_wikipedia,
}
