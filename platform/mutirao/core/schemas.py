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

FORMAT = 3


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
# Gopher: Rae et al. 2021, arXiv:2112.11446, appendix A1.1; C4: Raffel et al. 2020, JMLR 21(140),
# section 2.2; FineWeb: Penedo et al. 2024, arXiv:2406.17557, section 3.5. A line is one that is not
# blank, without the space around it; a paragraph ends at a blank line; a word is `\w+` and what
# the language pack adds.
FILTER_VALUES: tuple[tuple[str, pa.DataType], ...] = (
    ("words", pa.int32()),  # Gopher
    ("characters", pa.int32()),
    ("lines", pa.int32()),
    ("paragraphs", pa.int32()),
    ("sentences", pa.int32()),  # C4: a mark such as . ! ? and a closing quote, then space or end
    ("mean_word_length", pa.float32()),  # Gopher
    ("alpha_words", pa.float32()),  # Gopher: share of words with at least one letter
    ("symbol_ratio", pa.float32()),  # Gopher: '#', '...' and '…' per word
    ("stop_words", pa.float32()),  # share of words in the pack's stop list
    ("distinct_stop_words", pa.int32()),  # Gopher
    ("uppercase", pa.float32()),  # share of letters that are upper case
    ("bullet_lines", pa.float32()),  # Gopher
    ("ellipsis_lines", pa.float32()),  # Gopher: lines that end in '...' or '…'
    ("terminal_lines", pa.float32()),  # C4, FineWeb: lines that end a sentence, or in a quote
    ("short_lines", pa.float32()),  # FineWeb: lines of 30 characters at most
    ("newlines", pa.float32()),  # FineWeb: line ends per word, high in lists
    ("duplicate_lines", pa.float32()),  # Gopher: share of lines that stood before
    ("duplicate_line_characters", pa.float32()),  # Gopher, FineWeb
    ("duplicate_paragraphs", pa.float32()),  # Gopher
    ("duplicate_paragraph_characters", pa.float32()),  # Gopher
    ("top_bigram", pa.float32()),  # Gopher: share of word characters in one repeated 2-gram
    ("top_trigram", pa.float32()),  # Gopher
    ("top_4gram", pa.float32()),  # Gopher
    ("duplicate_5grams", pa.float32()),  # Gopher: share of characters in 5-grams that stood before
    ("duplicate_6grams", pa.float32()),  # Gopher, and so on
    ("duplicate_7grams", pa.float32()),
    ("duplicate_8grams", pa.float32()),
    ("duplicate_9grams", pa.float32()),
    ("duplicate_10grams", pa.float32()),
    ("curly_brackets", pa.float32()),  # C4: share of characters
    ("javascript_lines", pa.float32()),  # C4: lines with the word 'javascript'
    ("lorem_ipsum", pa.int32()),  # C4: how often it stands there
)
FILTER = _schema(
    "decision.filter",
    [
        ("reason", pa.string()),
        # the first reason that a thin pack's thresholds would have given; they drop nothing
        ("would_drop", pa.string()),
        *FILTER_VALUES,
        ("scores", pa.map_(pa.string(), pa.float32())),  # of the recipe's models, by name
    ],
)
NEARDUP = _schema(
    "decision.neardup",
    [
        ("reason", pa.string()),
        # the document that stays, and its true Jaccard with this one
        ("duplicate_of_shard", pa.int32()),  # null where it stands in an earlier result
        ("duplicate_of_row", pa.int32()),
        ("duplicate_of_id", pa.binary(16)),
        ("against", pa.int32()),  # number of that result in `neardup.against`
        ("jaccard", pa.float32()),
        # Of the documents that verified edges join: the smallest first half (big endian) of their
        # `exact.hash`, and how many they are; null where no edge is.
        ("cluster", pa.uint64()),
        ("cluster_size", pa.int32()),
        # neardup.paragraphs: byte ranges [start, end, ...] of the text to keep; null: all
        ("spans", pa.list_(pa.int32())),
    ],
)
# The index of near-duplicates (data_jobs/near/index.py): band keys, grouped by their top bits, and
# by row the lowest byte of each minimum of its signature.
BANDS = _schema("bands", [("key", pa.uint64()), ("row", pa.uint32())])


def signatures_schema(permutations: int) -> pa.Schema:
    return _schema("signatures", [("signature", pa.binary(permutations))])


# All verified near-duplicate pairs, (shard, row) < (other_shard, other_row), by shard of the first;
# `against` >= 0: the other document is a row of the earlier result of that number.
EDGES = _schema(
    "edges",
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("other_shard", pa.int32()),
        ("other_row", pa.int32()),
        ("jaccard", pa.float32()),
        ("against", pa.int32()),  # -1: the same corpus
    ],
)
DECONTAMINATE = _schema(
    "decision.decontaminate",
    [
        ("reason", pa.string()),
        ("overlap", pa.float32()),  # share of the document's n-grams that an evaluation set has
        ("ngrams", pa.int32()),  # how many those are
        ("matched", pa.string()),  # the set of the first of them
        ("offset", pa.int64()),  # where that one begins, in bytes of the text
    ],
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
        ("stream", pa.string()),  # the recipe's source: its tokens are one stream
    ],
)

# Columns that older formats did not have -> what they would have held in every row (else null).
OLD_VALUES = {"kind": "text", "genre": "", "messages": "", "variety": "", "against": -1}

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


# Kinds that have more columns now than in an older format.
UPGRADED = {
    "text": TEXT,
    "kept": KEPT,
    "decision.langid": LANGID,
    "decision.filter": FILTER,
    "decision.neardup": NEARDUP,
    "decision.decontaminate": DECONTAMINATE,
    "edges": EDGES,
}


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
    schema = UPGRADED.get(kind, table.schema)
    for column in schema:
        if column.name not in table.column_names:
            value = OLD_VALUES.get(column.name)
            filled = pa.repeat(pa.scalar(value, column.type), table.num_rows)
            table = table.append_column(column, filled)
    return table.select(schema.names)
