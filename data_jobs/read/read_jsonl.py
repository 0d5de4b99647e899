"""JSON Lines: one object a line; a line that is none is rejected with its place and the reason.

Memory: one line, of at most ESCAPES times the size limit.
"""

from __future__ import annotations

import json

import orjson

from data_jobs.read.documents import Document, Found, Piece, ReadOptions, Reject
from data_jobs.read.mapping import to_document
from data_jobs.read.streams import BrokenStream, Line, blocks, lines

ESCAPES = 3  # JSON may write 2 bytes of text as the 6 of \u00e3


def read_jsonl(piece: Piece, options: ReadOptions) -> Found:
    """Blank lines are passed over."""
    limit = ESCAPES * options.max_bytes + 65_536
    position, offset = piece.first, piece.start
    stream = blocks(piece.place, piece.start, piece.end)
    try:
        for line in lines(stream, limit, piece.first, piece.start):
            position, offset = line.number + 1, line.offset + line.size + 1
            if position > piece.resume and line.data and not line.data.isspace():
                yield _document(line, options)
    except BrokenStream as broken:
        yield Reject(position, offset, broken.lost, broken.reason, broken.detail)


def _document(line: Line, options: ReadOptions) -> Document | Reject:
    if line.too_long:
        return _reject(line, "too-long")
    try:
        record = orjson.loads(line.data)
    except orjson.JSONDecodeError:
        try:  # the standard parser lets lone surrogates and raw control characters pass
            record = json.loads(line.data.decode("utf-8"), strict=False)
        except UnicodeDecodeError:
            return _reject(line, "invalid-utf8")
        except (ValueError, RecursionError):
            return _reject(line, "invalid-json")
    return to_document(record, options, line.number, line.offset, line.size + 1)


def _reject(line: Line, reason: str) -> Reject:
    snippet = line.data[:400].decode("utf-8", "replace")[:200]
    return Reject(line.number, line.offset, line.size + 1, reason, snippet)
