"""The texts in the blocks of a piece, without their ends of text.

Three ways: Megatron's documents are texts; with `eos: add` each row is one; with `eos: present` the
rows are one flat sequence and a text ends at each end-of-text id (rows of a fixed length cut texts,
and joining them mends that). A flat piece owns the texts that begin behind an end of text in it,
the file's first piece the first text too; the last of them may end in a later piece.
Memory: at most two and a half times the ids of a piece (2 or 4 bytes each), and a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_jobs.token_files.blocks import LONGEST, Block, IdCheck
from mutirao.core.errors import DataError


@dataclass(frozen=True)
class Texts:
    """Text i is ids[offsets[i] : offsets[i + 1]]; int64 offsets from 0."""

    ids: np.ndarray
    offsets: np.ndarray


def texts_of(blocks: Iterator[Block], item: dict[str, Any], check: IdCheck) -> Texts:
    """item: eos (the id), eos_mode, format, wide, path, piece. Raises DataError where texts have no
    end; ids outside the vocabulary are noted in `check`."""
    dtype = np.uint32 if item["wide"] else np.uint16
    if item["format"] != "megatron" and item["eos_mode"] == "present":
        return _flat(blocks, item, check, dtype)
    return _rows(blocks, item, check, dtype)


def _rows(
    blocks: Iterator[Block], item: dict[str, Any], check: IdCheck, dtype: type[np.unsignedinteger]
) -> Texts:
    """A text a row. An end of text that stands there already is taken off, so none is doubled; an
    empty row is left out."""
    pieces = [np.zeros(0, dtype)]
    lengths = [np.zeros(0, np.int64)]
    for block in blocks:
        if not block.inside:
            break
        check.look(block)
        rows = np.diff(block.offsets)
        filled = rows > 0
        last = block.offsets[1:][filled] - 1
        ended = block.ids[last] == item["eos"]
        if item["eos_mode"] == "present" and not ended.all():
            raise _no_end(item, block.place(int(last[~ended][0])))
        keep = np.ones(len(block.ids), dtype=bool)
        keep[last[ended]] = False
        rows = rows[filled]
        rows[ended] -= 1
        pieces.append(block.ids[keep].astype(dtype))
        lengths.append(rows[rows > 0])
    return Texts(np.concatenate(pieces), _offsets(np.concatenate(lengths)))


def _flat(
    blocks: Iterator[Block], item: dict[str, Any], check: IdCheck, dtype: type[np.unsignedinteger]
) -> Texts:
    pieces: list[np.ndarray] = []
    ended = False  # has an end of text been seen in the file
    begun = item["piece"]["first"] == 0  # does a text of this piece go on here
    length = 0
    for block in blocks:
        ids = block.ids
        if block.inside:
            check.look(block)
        elif not begun:
            break  # no text begins in this piece
        ends = np.flatnonzero(ids == item["eos"])
        if not block.inside and len(ends):
            pieces.append(ids[: ends[0] + 1].astype(dtype))
            ended = True
            break
        start = 0 if begun else (int(ends[0]) + 1 if len(ends) else len(ids))
        pieces.append(ids[start:].astype(dtype))
        begun, ended = begun or len(ends) > 0, ended or len(ends) > 0
        length = len(ids) - 1 - int(ends[-1]) if len(ends) else length + len(ids)
        if length > LONGEST:
            raise _no_end(item, block.place(len(ids) - 1))
    if begun and not ended:
        raise _no_end(item, "the end of the file")
    ids = np.concatenate([np.zeros(0, dtype), *pieces])
    pieces.clear()  # a token shard's worth of memory
    return _without_ends(ids, item["eos"])


def _without_ends(ids: np.ndarray, eos: int) -> Texts:
    """Texts between the ends of text; those without a token are left out, and the file's last one
    may have no end."""
    inner = ids != eos
    ends = np.flatnonzero(~inner)
    if len(ids) and inner[-1]:
        ends = np.append(ends, len(ids))
    before = np.concatenate([[-1], ends])
    lengths = np.diff(before) - 1
    return Texts(ids[inner], _offsets(lengths[lengths > 0]))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _no_end(item: dict[str, Any], place: str) -> DataError:
    return DataError(
        f"A text does not end with the end-of-text id {item['eos']}",
        f"{item['path']}, {place}",
        "Say `eos: add` where each row or document is a text without one.",
        "no-eos",
    )
