"""Token ids in a .npy file: flat, one text after the other, or rows of equal length.

The file is mapped; nothing is ever unpickled. Memory: a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.token_files.blocks import (
    BLOCK_IDS,
    LONGEST,
    Block,
    damaged,
    no_ids,
    spans,
    whole_numbers,
)
from mutirao.core.errors import DataError


def pieces(path: Path, budget: int, flat: bool) -> list[dict[str, Any]]:
    """{first, end} in rows; of a flat file in ids where `flat` (it has ends of text), else the
    file is one text. Raises DataError for anything but integers in one or two dimensions."""
    array = open_ids(path)
    if array.ndim == 1 and not flat:
        if len(array) > LONGEST:
            hint = "Say `eos: present` if ends of text stand in it, or give rows, one a text."
            raise DataError(f"One text of {len(array):,} ids", str(path), hint, "no-eos")
        return [{"first": 0, "end": len(array), "whole": True}]
    rows = budget if array.ndim == 1 else max(1, budget // array.shape[1])
    return [{"first": first, "end": end} for first, end in spans(len(array), rows)]


def blocks(path: Path, piece: dict[str, Any]) -> Iterator[Block]:
    array = open_ids(path)
    for inside, begin, stop in ((True, piece["first"], piece["end"]),
                                (False, piece["end"], len(array))):  # fmt: skip
        width = 1 if array.ndim == 1 else array.shape[1]
        for first, end in spans(stop - begin, LONGEST if "whole" in piece else BLOCK_IDS // width):
            ids = np.asarray(array[begin + first : begin + end]).reshape(-1)
            ends = [len(ids)] if array.ndim == 1 else np.arange(1, end - first + 1) * width
            offsets = np.concatenate([[0], ends]).astype(np.int64)
            unit = "id" if array.ndim == 1 else "row"
            yield Block(ids, offsets, begin + first, inside, unit)


def open_ids(path: Path) -> np.ndarray:
    """The mapped array, [ids] or [rows, ids]."""
    shape, fortran, dtype, offset = _header(path)
    if dtype.hasobject:
        hint = "Save the ids as an array of integers; objects in a file could run code."
        raise DataError("The array holds Python objects", str(path), hint, "bad-ids")
    whole_numbers(dtype, str(path))
    if len(shape) not in (1, 2):
        hint = "Give one dimension (flat) or two (rows)."
        raise DataError(f"The array has {len(shape)} dimensions", str(path), hint, "bad-ids")
    if 0 in shape:
        raise no_ids(str(path))
    needed, size = offset + int(np.prod(shape)) * dtype.itemsize, path.stat().st_size
    if size < needed:
        raise damaged(path.as_posix(), f"it is cut short at {size:,} of {needed:,} bytes")
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, in Fortran order, dtype, where the values begin)."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with open(path, "rb") as stream:
        if not stream.read(1):
            raise no_ids(str(path))
        stream.seek(0)
        try:
            version = np.lib.format.read_magic(stream)
            shape, fortran, dtype = read[version](stream)
        except (ValueError, KeyError, EOFError, SyntaxError) as error:
            raise damaged(str(path), f"no .npy header ({str(error)[:80]})") from error
        return shape, fortran, dtype, stream.tell()
