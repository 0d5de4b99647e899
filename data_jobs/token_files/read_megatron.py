"""Token ids in Megatron's pair of files: NAME.bin holds the ids, NAME.idx where each text lies.

The index (version 1): `MMIDIDX\\0\\0`, version (u64), type code (u8), sequences S (u64), entries D
(u64), then sizes i32[S], byte offsets i64[S], and i64[D], the first sequence of each document and
S. Source: megatron/core/datasets/indexed_dataset.py. Files are mapped. Memory: a block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.token_files.blocks import BLOCK_IDS, Block, damaged, no_ids, spans, whole_numbers

MAGIC = b"MMIDIDX\x00\x00"
HEAD = struct.Struct("<QBQQ")
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


@dataclass(frozen=True)
class Index:
    dtype: np.dtype
    sizes: np.ndarray  # ids of each sequence
    starts: np.ndarray  # byte where it begins in the .bin
    documents: np.ndarray  # first sequence of each document, and at the end how many there are


def pieces(path: Path, budget: int) -> list[dict[str, Any]]:
    """{first, end} in documents. Raises DataError where index and .bin do not agree."""
    index = open_index(path.with_suffix(".idx"))
    _check(index, path)
    found, first, size = [], 0, 0
    for document, ids in enumerate(_document_sizes(index)):
        if size and size + ids > budget:
            found.append({"first": first, "end": document})
            first, size = document, 0
        size += ids
    return [*found, {"first": first, "end": len(index.documents) - 1}]


def blocks(path: Path, piece: dict[str, Any]) -> Iterator[Block]:
    """Documents are whole: there is never anything behind the piece that belongs to it."""
    index = open_index(path.with_suffix(".idx"))
    data = np.memmap(path, np.uint8, "r")
    first, end = piece["first"], piece["end"]
    borders = np.asarray(index.documents[first : end + 1])
    sizes = np.asarray(index.sizes[borders[0] : borders[-1]], np.int64)
    total = np.concatenate([[0], np.cumsum(sizes)])[borders - borders[0]]  # ids before a document
    begin = 0
    while begin < end - first:
        stop = int(np.searchsorted(total, total[begin] + BLOCK_IDS, side="right")) - 1
        stop = max(stop, begin + 1)
        ids = _ids(index, data, int(borders[begin]), int(borders[stop]))
        offsets = total[begin : stop + 1] - total[begin]
        yield Block(ids, offsets, first + begin, unit="document")
        begin = stop


def open_index(path: Path) -> Index:
    with open(path, "rb") as stream:
        head = stream.read(len(MAGIC) + HEAD.size)
    if not head.startswith(MAGIC) or len(head) < len(MAGIC) + HEAD.size:
        raise damaged(str(path), "it does not begin as an index of Megatron does (MMIDIDX)")
    version, code, sequences, entries = HEAD.unpack_from(head, len(MAGIC))
    if version != 1:
        raise damaged(str(path), f"version {version} of the index, only 1 is known")
    if code not in TYPES:
        raise damaged(str(path), f"type code {code}, known are 1 to 8")
    whole_numbers(TYPES[code], str(path.with_suffix(".bin")))
    needed, size = len(head) + 12 * sequences + 8 * entries, path.stat().st_size
    # Indexes of several modes have one more byte a sequence at the end.
    if size not in (needed, needed + sequences):
        raise damaged(str(path), f"{size:,} bytes; {sequences:,} sequences need {needed:,}")
    if sequences == 0 or entries < 2:
        raise no_ids(str(path))
    at = len(head)
    sizes = np.memmap(path, "<i4", "r", at, (sequences,))
    starts = np.memmap(path, "<i8", "r", at + 4 * sequences, (sequences,))
    documents = np.memmap(path, "<i8", "r", at + 12 * sequences, (entries,))
    return Index(np.dtype(TYPES[code]), sizes, starts, documents)


def _check(index: Index, path: Path) -> None:
    """Does every sequence lie in the .bin, and every document in the sequences?"""
    where, size = str(path.with_suffix(".idx")), path.stat().st_size
    total = 0
    for first, end in spans(len(index.sizes), BLOCK_IDS):
        sizes = np.asarray(index.sizes[first:end], np.int64)
        starts = np.asarray(index.starts[first:end])
        if sizes.min() < 0 or starts.min() < 0:
            raise damaged(where, "it has negative sizes or places")
        needed = int((starts + sizes * index.dtype.itemsize).max())
        if needed > size:
            raise damaged(str(path), f"it has {size:,} bytes, its index needs {needed:,}")
        total += int(sizes.sum())
    if not total:
        raise no_ids(str(path))
    if index.documents[0] != 0 or index.documents[-1] != len(index.sizes):
        raise damaged(where, "its documents do not cover its sequences")
    for first, end in spans(len(index.documents) - 1, BLOCK_IDS):
        if (np.diff(index.documents[first : end + 1]) < 0).any():
            raise damaged(where, "its documents are not in order")


def _document_sizes(index: Index) -> Iterator[int]:
    """The ids of each document, some at a time."""
    for first, end in spans(len(index.documents) - 1, BLOCK_IDS // 16):
        borders = np.asarray(index.documents[first : end + 1])
        sizes = np.asarray(index.sizes[borders[0] : borders[-1]], np.int64)
        total = np.concatenate([[0], np.cumsum(sizes)])
        yield from np.diff(total[borders - borders[0]]).tolist()


def _ids(index: Index, data: np.ndarray, first: int, end: int) -> np.ndarray:
    """The ids of sequences first..end; one slice where they lie one after the other."""
    sizes = np.asarray(index.sizes[first:end], np.int64) * index.dtype.itemsize
    starts = np.asarray(index.starts[first:end])
    if not len(sizes):
        return np.zeros(0, index.dtype)
    if (starts[1:] == starts[:-1] + sizes[:-1]).all():
        raw = data[starts[0] : starts[-1] + sizes[-1]]
    else:
        raw = np.concatenate([data[a : a + n] for a, n in zip(starts, sizes, strict=True)])
    return np.frombuffer(raw.tobytes(), index.dtype)
