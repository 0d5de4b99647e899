"""The kept documents of a run as one Parquet or JSONL file, for other tools.

In: {stage: committed Manifest} of a run. Out: a file with the columns of COLUMNS, written beside
its place and renamed. JSONL is compressed by its suffix (.gz, .zst). Memory: the decisions of one
text shard and one Parquet row group of at most ROW_GROUP_BYTES of text.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.results.view import show
from mutirao.core.errors import RecipeError
from mutirao.core.files import make_output_folder, write_atomic
from mutirao.core.manifest import Manifest

TURN = pa.struct([("role", pa.string()), ("content", pa.large_string())])
COLUMNS = pa.schema(
    [
        ("id", pa.string()),  # 32 hex digits
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("name", pa.string()),  # the source's own id
        ("url", pa.string()),
        ("license", pa.string()),
        ("lang", pa.string()),  # ISO 639-3; null where no language was identified
        ("lang_score", pa.float32()),
        ("variety", pa.string()),
        ("kind", pa.string()),
        ("genre", pa.string()),
        ("messages", pa.list_(TURN)),  # null for text
        ("meta", pa.string()),  # JSON object; in JSONL the object itself
    ]
)
FORMATS = ("parquet", "jsonl")
ROW_GROUP_BYTES = 64_000_000
ROW_GROUP_ROWS = 50_000


def export(
    manifests: dict[str, Manifest], format: str, output: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Write the file; {documents, text_bytes, bytes}.

    Raises RecipeError where there is a file already, its suffix says another format, or its folder
    cannot be written.
    """
    _check(format, output, overwrite)
    counts = {"documents": 0, "text_bytes": 0}
    write = _write_parquet if format == "parquet" else _write_jsonl

    def writer(stream: BinaryIO) -> None:
        with _compressed(stream, output.name) as target:
            write(_counted(manifests, counts), target)

    write_atomic(output, writer)
    return {**counts, "bytes": output.stat().st_size}


def _counted(manifests: dict[str, Manifest], counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    for row in show(manifests, whole=True):
        counts["documents"] += 1
        counts["text_bytes"] += len(row["text"].encode())
        messages = row.get("messages")
        yield {
            **{name: row.get(name) for name in COLUMNS.names},
            "messages": orjson.loads(messages) if messages else None,
        }


def _write_parquet(rows: Iterator[dict[str, Any]], stream: BinaryIO) -> None:
    with pq.ParquetWriter(stream, COLUMNS, compression="zstd") as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            group.append(row)
            size += len(row["text"])
            if size >= ROW_GROUP_BYTES or len(group) >= ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema=COLUMNS))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=COLUMNS))


def _write_jsonl(rows: Iterator[dict[str, Any]], stream: BinaryIO) -> None:
    for row in rows:
        row["meta"] = orjson.loads(row["meta"] or "{}")
        stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


@contextmanager
def _compressed(stream: BinaryIO, name: str) -> Iterator[Any]:
    """gzip and zstd by the file's suffix; anything else as it is."""
    kinds = {".gz": "gzip", ".zst": "zstd"}
    kind = kinds.get(Path(name).suffix)
    if kind is None:
        yield stream
        return
    with pa.CompressedOutputStream(pa.PythonFile(_LeftOpen(stream), mode="w"), kind) as target:
        yield target


class _LeftOpen(io.RawIOBase):
    """A stream that Arrow may close, while `write_atomic` still has to sync the file."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.stream.write(data)


def _check(format: str, output: Path, overwrite: bool) -> None:
    if output.is_dir():
        hint = f"Give a file, such as {output / 'documents'}.{format}"
        raise RecipeError("--output is a folder", str(output), hint, "bad-output")
    if output.exists() and not overwrite:
        hint = "Choose another name, or add --overwrite."
        raise RecipeError("There is a file already", str(output), hint, "exists")
    suffixes = [suffix.lstrip(".") for suffix in output.suffixes]
    other = next((f for f in FORMATS if f in suffixes and f != format), None)
    packed = output.suffix in (".xz", ".bz2", ".lz4", ".zip") or (
        format == "parquet" and output.suffix in (".gz", ".zst")
    )
    if other or packed:
        wanted = f".{format}" if format == "parquet" else ".jsonl, .jsonl.gz or .jsonl.zst"
        problem = f"--format {format} does not fit the name {output.name}"
        raise RecipeError(problem, hint=f"End it in {wanted}.", code="bad-output")
    make_output_folder(output.absolute().parent)
