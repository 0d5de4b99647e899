"""From a record of any format to a document: which field is the text, the id, the url.

In: a dict with the record's fields and the source's `ReadOptions`. Out: a `Document`, or a `Reject`
with the reason. A name with dots (`data.text`) reaches into nested objects where the record has no
such plain field. The record itself is never changed. About 3 microseconds a record, most of
them for the Document itself; memory: a shallow copy of one record.
"""

from __future__ import annotations

from typing import Any

from data_jobs.read.documents import Document, ReadOptions, Reject
from data_jobs.read.fields import MISSING, Fields, take
from data_jobs.read.messages import Turn, conversation


def to_document(
    record: Fields, options: ReadOptions, position: int, offset: int, size: int
) -> Document | Reject:
    """The fields that the options do not name go to `fields`, in their order.

    Reasons: missing-field, not-text, not-an-object, and those of `messages.conversation`.
    """
    if not isinstance(record, dict):
        return Reject(position, offset, size, "not-an-object", _shown(record))
    fields = dict(record)
    text = ""
    messages: tuple[Turn, ...] = ()
    if options.kind == "instruction":
        found = conversation(fields, options)
        if isinstance(found, str):
            reason, _, detail = found.partition(": ")
            snippet = present(record) if reason == "missing-field" else detail
            return Reject(position, offset, size, reason, snippet[:200])
        messages = found
    else:
        text = take(fields, options.text_field)
        if not isinstance(text, str):
            reason, snippet = _no_text(text, record)
            return Reject(position, offset, size, reason, snippet)
    name = _plain(take(fields, options.id_field))
    url = _plain(take(fields, options.url_field))
    license = _plain(take(fields, options.license_field))
    return Document(position, offset, size, text, name, url, license, fields, messages)


def _no_text(value: Any, record: Fields) -> tuple[str, str]:
    """(reason, snippet)"""
    if value is MISSING:
        return "missing-field", present(record)
    return "not-text", _shown(value)


def present(record: Fields) -> str:
    """'fields: a, b', for the person who has to name the right one; at most 200 characters."""
    return ("fields: " + ", ".join(sorted(map(str, record))))[:200]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is MISSING or value is None else str(value)


def _shown(value: Any) -> str:
    """The head of a value that may be huge."""
    if isinstance(value, list | tuple):
        value = value[:20]
    return repr(value)[:200]
