"""Cleaned documents as rows of the text schema, a column at a time.

In: a batch of documents with their clean texts, and the unit's item. Out: one Arrow record batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from data_jobs.read.documents import Document
from data_jobs.units import Item
from mutirao.core.schemas import TEXT

DEEPEST = 250  # lists and objects inside one another in a field


class Kept(NamedTuple):
    """A document with its cleaned text."""

    document: Document
    text: str
    messages: str  # JSON, '' for plain text
    counts: dict[str, int]


def columns(kept: Sequence[Kept], item: Item) -> pa.RecordBatch:
    """Rows of TEXT. id: xxh3-128 of source, file and position."""
    documents = [one.document for one in kept]
    key = f"{item['source']}\0{item['file']}\0".encode()
    count, license = len(kept), item["license"]
    values: dict[str, list[Any]] = {
        "id": [xxhash.xxh3_128_digest(key + b"%d" % one.position) for one in documents],
        "text": [one.text for one in kept],
        "source": [source_of(one, item) for one in documents],
        "name": [one.name for one in documents],
        "license": [one.license or license for one in documents],
        "url": [one.url for one in documents],
        "position": [one.position for one in documents],
        "meta": [_meta(one.fields) for one in documents],
        "kind": [item["fields"]["kind"]] * count,
        "genre": [item["genre"]] * count,
        "messages": [one.messages for one in kept],
    }
    arrays = [_array(values[column.name], column.type) for column in TEXT]
    return pa.RecordBatch.from_arrays(arrays, schema=TEXT)


def text_sizes(batch: pa.RecordBatch) -> np.ndarray:
    """int64[rows]: bytes of each text."""
    column = batch.column("text")
    if not len(column):
        return np.zeros(0, np.int64)
    return np.diff(np.frombuffer(column.buffers()[1], np.int64)[: len(column) + 1])


def _meta(fields: dict[str, Any]) -> str:
    """Fields of a document as one JSON object with sorted keys."""
    if not fields:
        return "{}"
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, orjson.JSONEncodeError):  # lone surrogates, keys that are no strings
        rest = sorted((str(key), value) for key, value in fields.items())
        return "{" + ", ".join(f"{json.dumps(key)}: {_value(value)}" for key, value in rest) + "}"


def _value(value: Any) -> str:
    """Nested deeper than orjson writes, it is not kept: how deep Python's own can go depends on
    who calls, so the same file would make other bytes elsewhere."""
    if _is_deeper(value, DEEPEST):
        return json.dumps("not kept: nested too deeply")
    try:
        return json.dumps(value, default=str, sort_keys=True)
    except TypeError:  # keys of several types have no order
        return json.dumps(value, default=str, skipkeys=True)


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return not levels or any(_is_deeper(inner, levels - 1) for inner in value)


def source_of(document: Document, item: Item) -> str:
    """The recipe's name of the source; where it gives none, the document's own."""
    own = None if item["named"] else document.fields.get("source")
    return own if isinstance(own, str) and own else item["source"]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([printable(value) for value in values], kind)


def printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
