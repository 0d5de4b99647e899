"""One Arrow schema per kind of file, with its format number, declared in this one place.

Files are Arrow IPC in the *file* form with an uncompressed body: pyarrow maps them into memory and
reads any batch by its number; Hugging Face `load_dataset("arrow", data_files=...)` opens them
(`Dataset.from_file` does not: docs/decisions/0006-arrow-file-form.md). Text is large_string.
A document is named inside a run by (shard, row): the index of its text shard and its row there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from mutirao.core.errors import DataError, UserError

FORMAT = 2


def _schema(kind: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    metadata = {"mutirao.kind": kind, "mutirao.format": str(FORMAT)}
    return pa.schema([pa.field(n, t) for n, t in fields], metadata=metadata)


# One document after `clean`. id: xxh3-128 of source, file and position, stable across runs.
TEXT = _schema(
    "text",
    [
        ("id", pa.binary(16)),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("name", pa.string()),  # the source's own id of the document, '' if it has none
        ("license", pa.string()),
        ("url", pa.string()),
        ("position", pa.int64()),  # line, row or record number in the source file, from 0
        ("meta", pa.string()),  # further fields of the source, as one JSON object
        ("kind", pa.string()),  # 'text' or 'instruction'
        ("genre", pa.string()),  # of the source in the recipe, '' if it has none
        # instruction: JSON list of {role, content}; `text` is the contents joined by blank lines
        ("messages", pa.large_string()),
    ],
)

# What `clean` could not or would not keep: bad lines, bytes, records, files, empty documents.
REJECT = _schema(
    "reject",
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("position", pa.int64()),
        ("offset", pa.int64()),  # byte offset in the (decompressed) file, -1 where unknown
        ("bytes", pa.int64()),
        ("reason", pa.string()),
        ("snippet", pa.string()),  # at most 200 characters
    ],
)

# Decision shards: one row for each row of the text shard, in its order; reason is null where kept.
EXACT = _schema(
    "decision.exact",
    [
        ("reason", pa.string()),
        ("hash", pa.binary(16)),
        ("duplicate_of_shard", pa.int32()),
        ("duplicate_of_row", pa.int32()),
    ],
)
LANGID = _schema(
    "decision.langid",
    [
        ("reason", pa.string()),
        ("lang", pa.string()),
        ("confidence", pa.float32()),
        ("variety", pa.string()),  # 'pt-BR', 'pt-PT', 'undecided'; '' where there are none
        ("share", pa.float32()),  # of the text in the wanted languages; 1 or 0 in document mode
        # paragraph mode: byte ranges [start, end, start, end, ...] of the text to keep; null: all
        ("spans", pa.list_(pa.int32())),
    ],
)
FILTER_VALUES: tuple[tuple[str, pa.DataType], ...] = (
    ("words", pa.int32()),
    ("characters", pa.int32()),
    ("lines", pa.int32()),
    ("mean_word_length", pa.float32()),
    ("alpha_words", pa.float32()),  # share of words with at least one letter
    ("symbol_ratio", pa.float32()),  # '#', '...' and '…' per word
    ("stop_words", pa.float32()),  # share of words in the pack's stop list
    ("uppercase", pa.float32()),  # share of letters that are upper case
    ("bullet_lines", pa.float32()),
    ("ellipsis_lines", pa.float32()),
    ("duplicate_lines", pa.float32()),  # share of lines that stood before
    ("duplicate_line_characters", pa.float32()),
    ("top_bigram", pa.float32()),  # share of characters in the most frequent word 2-gram
    ("duplicate_5grams", pa.float32()),  # share of characters in repeated word 5-grams
)
FILTER = _schema("decision.filter", [("reason", pa.string()), *FILTER_VALUES])
NEARDUP = _schema(
    "decision.neardup",
    [
        ("reason", pa.string()),
        ("duplicate_of_shard", pa.int32()),
        ("duplicate_of_row", pa.int32()),
        ("jaccard", pa.float32()),
    ],
)
# All verified near-duplicate pairs, (shard, row) < (other_shard, other_row).
EDGES = _schema(
    "edges",
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("other_shard", pa.int32()),
        ("other_row", pa.int32()),
        ("jaccard", pa.float32()),
    ],
)
DECONTAMINATE = _schema(
    "decision.decontaminate",
    [("reason", pa.string()), ("overlap", pa.float32()), ("matched", pa.string())],
)

# The kept text as it goes to the tokenizer; shard and row point back to the text shard.
KEPT = _schema(
    "kept",
    [
        ("id", pa.binary(16)),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("url", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("kind", pa.string()),
        ("genre", pa.string()),
        ("messages", pa.large_string()),
    ],
)

# Columns that format 1 did not have -> what they would have held in every row.
OLD_VALUES = {"kind": "text", "genre": "", "messages": "", "variety": ""}

# A flat token stream (uint16 where every id fits, else uint32) and the documents in it.
TOKENS_16 = _schema("tokens", [("token", pa.uint16())])
TOKENS_32 = _schema("tokens", [("token", pa.uint32())])
DOCUMENTS = _schema(
    "documents",
    [
        ("offset", pa.int64()),  # first token in the stream
        ("tokens", pa.int64()),  # including the end-of-text token
        ("text_bytes", pa.int64()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
    ],
)


def write_ipc(stream: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write record batches as an uncompressed Arrow IPC file; returns the number of rows.
    The bytes depend on schema and batches alone."""
    rows = 0
    with pa.ipc.new_file(stream, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def read_ipc(path: Path, kind: str | None = None) -> pa.Table:
    """Map an Arrow IPC file into memory as a table (nothing is copied until it is touched).

    Raises DataError if the file is damaged or of another kind, UserError for a newer format.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        hint = "Run `mutirao store verify`, then the same command with --redo."
        raise DataError(f"Not a readable Arrow file: {error}", str(path), hint) from error
    metadata = table.schema.metadata or {}
    number = int(metadata.get(b"mutirao.format", b"0"))
    if number > FORMAT:
        raise UserError(
            f"Written by a newer mutirao (format {number})",
            str(path),
            "Upgrade mutirao.",
            "newer-format",
        )
    found = metadata.get(b"mutirao.kind", b"").decode()
    if kind and found != kind:
        raise DataError(f"Expected a {kind} file, found {found or 'an unmarked one'}", str(path))
    return table if number == FORMAT else _upgraded(table, found)


def _upgraded(table: pa.Table, kind: str) -> pa.Table:
    """A table of an older format with the columns it lacks: nulls, or what all rows were then."""
    schema = {"text": TEXT, "kept": KEPT, "decision.langid": LANGID, "decision.filter": FILTER}
    for column in schema.get(kind, table.schema):
        if column.name not in table.column_names:
            value = OLD_VALUES.get(column.name)
            filled = pa.repeat(pa.scalar(value, column.type), table.num_rows)
            table = table.append_column(column, filled)
    return table
