"""Words straight from UTF-8 bytes: the numba kernels that `filter`, `neardup` and others share.

A word is a match of Python's `\\w+`; comparison is by lower case as `str.lower` gives it, except
that a text with U+0130 or U+03A3 (whose lower case is two characters, or depends on its place) must
be lower-cased by Python first: `folded` does that. Tables cost 0.3 s once a process.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
import pyarrow as pa

from data_jobs.shards import utf8_buffers

WORD, LETTER, UPPER, SPACE = 1, 2, 4, 8
CODE_POINTS = 0x110000
ODD_CASE = ("\u0130", "\u03a3")  # the only two whose lower case is not one fixed code point
FNV = np.uint64(0x9E3779B97F4A7C15)


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(class bits uint8[0x110000], lower case uint32[0x110000]) of every code point."""
    points = np.arange(CODE_POINTS, dtype=np.uint32)
    points[0xD800:0xE000] = 0xFFFD  # surrogates are no characters
    characters = points.view("U1")
    kinds = np.zeros(CODE_POINTS, np.uint8)
    kinds[np.strings.isalnum(characters) | (points == ord("_"))] |= WORD
    kinds[np.strings.isalpha(characters)] |= LETTER
    kinds[np.strings.isupper(characters)] |= UPPER
    kinds[np.strings.isspace(characters)] |= SPACE
    lower = np.strings.lower(characters).astype("U1").view(np.uint32)
    kinds[0xD800:0xE000] = 0
    kinds[0] = 0
    return kinds, lower.copy()


def folded(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 buffers of the texts, lower-cased by Python where the tables cannot do it."""
    data, offsets = utf8_buffers(column)
    used = data[offsets[0] : offsets[-1]]
    if not _has_odd_case(used):
        return data, offsets
    texts = [t.lower() if any(c in t for c in ODD_CASE) else t for t in column.to_pylist()]
    return utf8_buffers(pa.array(texts, pa.large_string()))


def _has_odd_case(data: np.ndarray) -> bool:
    raw = data.tobytes()
    return any(character.encode() in raw for character in ODD_CASE)


@numba.njit(cache=True, nogil=True, inline="always")
def decode(data, i, end):
    """(code point, next index) of the UTF-8 character at i; a broken one reads as a space."""
    c = np.uint32(data[i])
    if c < 128:
        return c, i + 1
    if c < 0xE0 and i + 1 < end:
        return ((c & 31) << 6) | (data[i + 1] & 63), i + 2
    if c < 0xF0 and i + 2 < end:
        return ((c & 15) << 12) | ((data[i + 1] & 63) << 6) | (data[i + 2] & 63), i + 3
    if i + 3 < end:
        point = ((c & 7) << 18) | ((data[i + 1] & 63) << 12)
        point |= ((data[i + 2] & 63) << 6) | (data[i + 3] & 63)
        if point < 0x110000:
            return np.uint32(point), i + 4
    return np.uint32(32), i + 1


@numba.njit(cache=True, nogil=True, inline="always")
def mix(h):
    """The finalizer of MurmurHash3 (Appleby 2011): every input bit reaches every output bit."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@numba.njit(cache=True, nogil=True)
def word_hashes(data, start, end, kinds, lower, out):
    """Write the 64-bit hash of each lower-cased word to `out`; returns their number."""
    count = 0
    h = np.uint64(0)
    inside = False
    i = start
    while i < end:
        point, i = decode(data, i, end)
        if kinds[point] & WORD:
            h = (h ^ np.uint64(lower[point])) * FNV
            h ^= h >> np.uint64(29)
            inside = True
        elif inside:
            out[count] = mix(h)
            count += 1
            h, inside = np.uint64(0), False
    if inside:
        out[count] = mix(h)
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def shingle_hashes(words, count, n, out):
    """Hash of each word n-gram to `out`; returns their number (0 if count < n)."""
    for start in range(count - n + 1):
        h = np.uint64(n)
        for k in range(n):
            h = mix(h ^ words[start + k]) + FNV
        out[start] = h
    return max(0, count - n + 1)


@numba.njit(cache=True, nogil=True)
def document_shingles(data, offsets, row, n, kinds, lower):
    """Sorted distinct hashes of the word n-grams of one document; none if under n words."""
    start, end = offsets[row], offsets[row + 1]
    words = np.empty((end - start + 1) // 2 + 1, np.uint64)
    count = word_hashes(data, start, end, kinds, lower, words)
    if count < n:
        return np.empty(0, np.uint64)
    out = np.empty(count - n + 1, np.uint64)
    shingle_hashes(words, count, n, out)
    return np.unique(out)
