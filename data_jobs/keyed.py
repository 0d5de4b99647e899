"""Keyed files: fixed-width records sorted by a 64-bit key, so that a key range is one slice.

They carry the bounded shuffles of `exact` and `neardup`: each map unit writes one file, each reduce
unit takes its key range from all files by binary search. Nothing is ever sorted as a whole.
Bound of a reduce unit: RANGE_BYTES of records, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mutirao.core.manifest import Part, finished_part, write_part

RANGE_BYTES = 256_000_000


def write_records(
    directory: Path, name: str, records: np.ndarray, info: dict[str, Any] | None = None
) -> Part:
    """Write a structured array as a .npy part (little endian, no pickles)."""

    def write(stream) -> int:
        np.lib.format.write_array(stream, records, allow_pickle=False)
        return len(records)

    return write_part(directory, name, write, info)


def write_blocks(
    directory: Path, name: str, dtype: np.dtype, rows: int, blocks: Iterable[np.ndarray]
) -> Part:
    """Write `rows` records that come in blocks, so that they never stand in memory together."""

    def write(stream) -> int:
        header = {"descr": dtype.descr, "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_1_0(stream, header)
        written = 0
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).tobytes())
            written += len(block)
        assert written == rows, "the number of records was counted before"
        return rows

    return write_part(directory, name, write)


def read_records(path: str | Path) -> np.ndarray:
    """Map the records into memory."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an array without rows cannot be mapped
        return np.load(path, allow_pickle=False)


def finished_records(directory: Path, name: str) -> dict[str, Any] | None:
    part = finished_part(directory, name)
    return {"part": asdict(part)} if part else None


def remove_records(directory: Path, results: list[dict[str, Any]]) -> None:
    """Give back the disk of intermediate files once the stage's own parts are all written."""
    for result in results:
        name = result["part"]["path"]
        (directory / name).unlink(missing_ok=True)
        (directory / f"{name}.part.json").unlink(missing_ok=True)


def range_count(record_bytes: int) -> int:
    """How many key ranges keep one range within RANGE_BYTES."""
    return max(1, -(-record_bytes // RANGE_BYTES))


def range_bounds(index: int, count: int) -> tuple[int, int]:
    """[low, high) of key range `index` of `count` over the 64-bit keys; high may be 2**64."""
    return (index << 64) // count, ((index + 1) << 64) // count


def key_slice(records: np.ndarray, field: str, low: int, high: int) -> np.ndarray:
    """The rows of a sorted file with low <= field < high."""
    keys = records[field]
    start = np.searchsorted(keys, keys.dtype.type(low), "left") if low else 0
    last = np.iinfo(keys.dtype).max
    stop = len(keys) if high > last else np.searchsorted(keys, keys.dtype.type(high), "left")
    return np.asarray(records[start:stop])
