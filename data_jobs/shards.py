"""Text shards and the decision shards aligned to them, as the stages read and write them.

A text shard is named by its index in the manifest of `clean`; decision shard i of a stage has one
row for each row of text shard i, in its order. Everything is mapped into memory, never copied
whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mutirao.core.manifest import Manifest, Part, finished_part, read_manifest, write_part
from mutirao.core.schemas import read_ipc, write_ipc

BATCH_ROWS = 1_000


def text_paths(clean: Manifest) -> list[Path]:
    """The text shards in order; a shard's index in this list is its number."""
    return clean.paths("text-")


def text_path(clean: str, shard: int) -> Path:
    """Text shard `shard` of the committed `clean` result in the folder `clean`."""
    return _text_paths(clean)[shard]


@lru_cache(4)
def _text_paths(clean: str) -> list[Path]:
    manifest = read_manifest(Path(clean))
    assert manifest is not None, "clean is committed before any stage reads it"
    return text_paths(manifest)


def decision_paths(manifest: Manifest) -> list[Path]:
    return manifest.paths(f"{manifest.content['stage']}-")


def decision_name(stage: str, shard: int) -> str:
    return f"{stage}-{shard:05d}.arrow"


def shard_items(job_inputs: dict[str, Manifest], stages: tuple[str, ...]) -> list[dict[str, Any]]:
    """One item a text shard: its number, path, and by stage the path of its decision shard."""
    present = [name for name in stages if name in job_inputs]
    decisions = {name: decision_paths(job_inputs[name]) for name in present}
    return [
        {
            "shard": shard,
            "text": str(path),
            "decisions": {name: str(paths[shard]) for name, paths in decisions.items()},
        }
        for shard, path in enumerate(text_paths(job_inputs["clean"]))
    ]


def kept_rows(rows: int, decisions: dict[str, str]) -> np.ndarray:
    """Boolean mask over the rows of a text shard: True where no stage gave a reason."""
    mask = np.ones(rows, dtype=bool)
    for stage, path in decisions.items():
        reason = read_ipc(Path(path), f"decision.{stage}").column("reason")
        mask &= reason.is_null().to_numpy()
    return mask


def text_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a text shard; each maps into memory as it is read."""
    yield from read_ipc(path, "text").to_batches()


def utf8_buffers(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8[n], offsets int64[rows+1]) of a large_string column; nulls are empty strings."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], pa.large_string())
    array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), starts


def byte_lengths(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64[rows]: bytes of UTF-8 of each text of a large_string column; null is 0."""
    return pc.fill_null(pc.binary_length(texts), 0).to_numpy()


def halves(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(first, second) 64 bits, big endian, as uint64[rows] of a column of binary(16); null is 0."""
    raw = [np.zeros((0, 2), np.uint64)]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if len(chunk):
            data = np.frombuffer(chunk.buffers()[1], ">u8").reshape(-1, 2)
            raw.append(data[chunk.offset : chunk.offset + len(chunk)].astype(np.uint64))
    both = np.concatenate(raw)
    return both[:, 0], both[:, 1]


def write_table(
    directory: Path, name: str, table: pa.Table, info: dict[str, Any] | None = None
) -> Part:
    """Write a table with one of our schemas as a part, in batches of BATCH_ROWS."""
    batches = table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS)
    return write_part(directory, name, lambda s: write_ipc(s, table.schema, batches), info)


def finished_result(directory: Path, name: str) -> dict[str, Any] | None:
    """The unit result of an earlier attempt: its part, whose info holds the unit's counts."""
    part = finished_part(directory, name)
    return {"part": asdict(part)} if part else None


def parts_of(results: list[dict[str, Any]]) -> list[Part]:
    return [Part(**result["part"]) for result in results]


def add_counts(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum nested dicts of numbers, keys in sorted order."""
    total: dict[str, Any] = {}
    for one in counts:
        for key, value in one.items():
            if isinstance(value, dict):
                total[key] = add_counts([total.get(key, {}), value])
            else:
                total[key] = total.get(key, 0) + value
    return dict(sorted(total.items()))


def decision_counts(results: list[dict[str, Any]]) -> dict[str, Any]:
    """{documents_in, dropped, reasons} of a decision stage, from the info of its parts."""
    total = add_counts([result["part"]["info"] for result in results])
    reasons = total.get("reasons", {})
    return {
        "documents_in": total.get("documents", 0),
        "dropped": sum(reasons.values()),
        "reasons": reasons,
    }


def reason_info(reasons: pa.Array) -> dict[str, Any]:
    """{documents, reasons: {reason: count}} for the info of a decision part."""
    counted = {
        entry["values"]: entry["counts"]
        for entry in pa.chunked_array([reasons]).drop_null().value_counts().to_pylist()
    }
    return {"documents": len(reasons), "reasons": dict(sorted(counted.items()))}
