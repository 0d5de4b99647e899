"""Normalised text and its 128-bit hash, straight from UTF-8 bytes, by numba.

In: an Arrow text column and how much of its writing counts (`exact.normalize`). Out: the hash by
which `exact` calls two documents equal, and `paragraphs` two paragraphs: xxh3-128 of the normalised
text. `normalized` is the definition in plain Python; the kernels give the same bytes.
Memory: CHUNK_BYTES of text (or one document) and three times that; tables of 9 MB a process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
import xxhash

from data_jobs.kernels import numba
from data_jobs.shards import utf8_buffers
from data_jobs.words import ASSIGNED, CODE_POINTS, tables
from data_jobs.words import WORD as WORD_KIND

CHUNK_BYTES = 4 << 20
WIDEST_FOLD = 3  # bytes of normalised text a byte of text: U+0390 becomes three characters
CODE, SPACE, MANY, WORD = (1 << 21) - 1, 1 << 24, 1 << 25, 1 << 26  # bits of an entry of the table
SPACE_SHIFT = SPACE.bit_length() - 1
WHITESPACE = re.compile(r"\s+")


def normalized(text: str, how: str) -> str:
    """'none': as it is; 'whitespace': runs of it are one space; 'casefold': also without case."""
    if how == "none":
        return text
    text = WHITESPACE.sub(" ", text).strip()
    return text.casefold() if how == "casefold" else text


def text_hashes(column: pa.Array | pa.ChunkedArray, how: str) -> np.ndarray:
    """xxh3-128 of each normalised text: uint64[rows, 2], its halves as big-endian numbers."""
    data, offsets = map(read_only, utf8_buffers(column))
    found = [np.zeros((0, 2), np.uint64)]
    for first, last in chunks(offsets):
        if how == "none":
            found.append(slice_hashes(data, offsets[first:last], offsets[first + 1 : last + 1]))
            continue
        folds, more = fold_tables(how)
        out = np.empty(room(offsets[first], offsets[last]), np.uint8)
        ends = normalise_rows(data, offsets[first : last + 1], folds, more, out)
        found.append(slice_hashes(out, ends[:-1], ends[1:]))
    return np.concatenate(found)


def slice_hashes(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """xxh3-128 of data[start:end] for each pair: uint64[n, 2]."""
    raw, digest = np.ascontiguousarray(data).data, xxhash.xxh3_128_digest
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    joined = b"".join([digest(raw[start:end]) for start, end in pairs])
    return np.frombuffer(joined, ">u8").reshape(-1, 2).astype(np.uint64)


def read_only(array: np.ndarray) -> np.ndarray:
    """The array as a mapped file gives it: numba compiles a kernel for each kind it meets."""
    view = array.view()
    view.flags.writeable = False
    return view


def chunks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """[first, last) rows of about CHUNK_BYTES of text, one row at least."""
    first, rows = 0, len(offsets) - 1
    while first < rows:
        last = int(np.searchsorted(offsets, offsets[first] + CHUNK_BYTES, "right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


def room(start: int, end: int) -> int:
    """Bytes that the normalised text of data[start:end] may take."""
    return int(end - start) * WIDEST_FOLD + 1


@cache
def fold_tables(how: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint32[0x110000], uint32[k, 4]): of every character what it becomes, and class bits.

    Where that is more than one character, the entry is MANY and a row of the second table: how
    many, and which. how: 'casefold', 'whitespace' or 'none' (nothing changes).
    """
    folds = np.arange(CODE_POINTS, dtype=np.uint32)
    more: list[list[int]] = [[0, 0, 0, 0]]
    for point in range(ASSIGNED) if how == "casefold" else ():
        folded = chr(point).casefold()
        if len(folded) > 1:
            folds[point] = MANY | len(more)
            more.append([len(folded), *map(ord, folded.ljust(3, "\0"))])
        else:
            folds[point] = ord(folded)
    kinds, _ = tables()
    spaces = [point for point in range(ASSIGNED) if chr(point).isspace()]
    folds[spaces] = SPACE | ord(" ")
    folds[(kinds & WORD_KIND) > 0] |= WORD
    return folds, np.array(more, np.uint32)


@numba.njit(cache=True, nogil=True, inline="always")
def character(data, i, end):
    """(code point, next index) of the character at i; what is no UTF-8 stays a byte."""
    c = np.uint32(data[i])
    if c < 0xC0:
        return c, i + 1
    if c < 0xE0 and i + 1 < end:
        return ((c & 31) << 6) | (data[i + 1] & 63), i + 2
    if c < 0xF0 and i + 2 < end:
        return ((c & 15) << 12) | ((data[i + 1] & 63) << 6) | (data[i + 2] & 63), i + 3
    if c < 0xF5 and i + 3 < end:
        point = ((c & 7) << 18) | ((data[i + 1] & 63) << 12)
        point |= ((data[i + 2] & 63) << 6) | (data[i + 3] & 63)
        return min(np.uint32(point), np.uint32(0x10FFFF)), i + 4
    return c, i + 1


@numba.njit(cache=True, nogil=True, inline="always")
def put(point, out, at):
    """Write one character as UTF-8; returns where the next one goes."""
    if point < 0x80:
        out[at] = point
        return at + 1
    if point < 0x800:
        out[at], out[at + 1] = 0xC0 | (point >> 6), 0x80 | (point & 63)
        return at + 2
    if point < 0x10000:
        out[at], out[at + 1] = 0xE0 | (point >> 12), 0x80 | ((point >> 6) & 63)
        out[at + 2] = 0x80 | (point & 63)
        return at + 3
    out[at], out[at + 1] = 0xF0 | (point >> 18), 0x80 | ((point >> 12) & 63)
    out[at + 2], out[at + 3] = 0x80 | ((point >> 6) & 63), 0x80 | (point & 63)
    return at + 4


@numba.njit(cache=True, nogil=True, inline="always")
def put_folded(entry, more, out, at):
    """Write what a character becomes."""
    if not entry & MANY:
        return put(entry & CODE, out, at)
    row = entry & CODE
    for k in range(more[row, 0]):
        at = put(more[row, k + 1], out, at)
    return at


@numba.njit(cache=True, nogil=True)
def normalise_rows(data, offsets, folds, more, out):
    """Write the normalised texts one after the other; int64[rows + 1], where each begins."""
    ends = np.zeros(offsets.shape[0], np.int64)
    at = 0
    for row in range(offsets.shape[0] - 1):
        at = normalise(data, offsets[row], offsets[row + 1], folds, more, out, at)
        ends[row + 1] = at
    return ends


@numba.njit(cache=True, nogil=True)
def normalise(data, start, end, folds, more, out, at):
    """Write the normalised data[start:end] at out[at:]; returns where it ends.

    A space is written and the next one overwrites it: a branch for each would cost more.
    """
    first = at
    before = np.uint32(1)  # was the last character a space? The text begins as if behind one
    i = start
    while i < end:
        if data[i] < 128:
            entry = folds[data[i]]
            i += 1
            out[at] = entry & 255
        else:
            point, i = character(data, i, end)
            entry = folds[point]
            if not entry & SPACE:
                at = put_folded(entry, more, out, at)
                before = np.uint32(0)
                continue
            out[at] = 32
        space = (entry >> SPACE_SHIFT) & 1
        at += np.int64(1 - (space & before))
        before = space
    return at - 1 if before and at > first else at
