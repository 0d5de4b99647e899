"""What a language model sees of a document: all of it, or three windows of a long one.

In: a large_string column, as it lies in memory. Out: UTF-8 `bytes` a row, at most `window_bytes`
and two spaces long. A page may open in another language (a menu, a licence, a quotation), so a
third each comes from the start, the middle and the end. Nothing is copied but the windows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_jobs.shards import utf8_buffers

LONGEST_CHARACTER = 4  # bytes


def windows(column: pa.Array | pa.ChunkedArray, window_bytes: int) -> list[bytes]:
    """The view of each row; '' where it is null."""
    data, offsets = utf8_buffers(column)
    return range_views(data, offsets[:-1], offsets[1:], window_bytes)


def range_views(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, window_bytes: int
) -> list[bytes]:
    """The views of byte ranges [start, end) of `data` (uint8) that begin and end at characters."""
    third = window_bytes // 3
    middle = starts + (ends - starts - third) // 2
    long = np.flatnonzero(ends - starts > window_bytes)
    raw = np.ascontiguousarray(data).data
    first, last = starts.tolist(), ends.tolist()
    views = [b""] * len(first)
    cuts = np.stack([starts + third, middle, middle + third, ends - third], axis=1)
    whole = character_starts(data, cuts[long]).tolist()
    places = dict(zip(long.tolist(), whole, strict=True))
    for row, (start, end) in enumerate(zip(first, last, strict=True)):
        if row in places:
            a, b, c, d = places[row]
            views[row] = b" ".join((raw[start:a], raw[b:c], raw[d:end]))
        else:
            views[row] = bytes(raw[start:end])
    return views


def character_starts(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each byte position, moved back to the start of the character it lies in."""
    found = places.copy()
    for _ in range(LONGEST_CHARACTER - 1):
        if found.size:
            found -= (data[found] & 0xC0) == 0x80
    return found


def line(view: bytes) -> str:
    """A view as fastText models expect it: lower case, one line, single spaces."""
    return " ".join(view.decode("utf-8", "ignore").replace("\0", " ").lower().split())
