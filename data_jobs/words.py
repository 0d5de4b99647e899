"""Words straight from UTF-8 bytes: the numba kernels that `filter`, `neardup` and others share.

A word is a match of Python's `\\w+`; comparison is by lower case as `str.lower` gives it, except
that a text with U+0130 or U+03A3 (whose lower case is two characters, or depends on its place) must
be lower-cased by Python first: `folded` does that. Tables cost 0.1 s once a process.
A language pack may name further word characters (`classes`): a combining mark continues a word, any
other joins two halves of one (Guarani mba'e, Catalan col·legi).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from data_jobs.shards import utf8_buffers

WORD, LETTER, UPPER, SPACE, SENTENCE, QUOTE, BULLET, JOINER = (1 << bit for bit in range(8))
CODE_POINTS = 0x110000
ASSIGNED = 0x40000  # no letter, digit or space lies beyond: looking there took two thirds of 0.3 s
ODD_CASE = ("\u0130", "\u03a3")  # the only two whose lower case is not one fixed code point
FNV = np.uint64(0x9E3779B97F4A7C15)
# What ends a sentence, and the quotation marks that may close it (Unicode's STerm, abridged).
SENTENCE_MARKS = ".!?…‼⁇⁈⁉。！？｡؟۔।॥։።፧။៕"
QUOTES = "\"'”’»›″」』"
# Without dashes: in many languages (Portuguese, French, Spanish) one opens a line of dialogue.
BULLETS = "•‣▶◀◦■□▪▫*·"


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(class bits uint8[0x110000], lower case uint32[0x110000]) of every code point."""
    lower = np.arange(CODE_POINTS, dtype=np.uint32)
    kinds = np.zeros(CODE_POINTS, np.uint8)
    points = lower[:ASSIGNED].copy()
    points[0xD800:0xE000] = 0xFFFD  # surrogates are no characters
    characters = points.view("U1")
    found = kinds[:ASSIGNED]
    found[np.strings.isalnum(characters) | (points == ord("_"))] |= WORD
    letters = np.strings.isalpha(characters)
    found[letters] |= LETTER
    found[letters & np.strings.isupper(characters)] |= UPPER
    found[np.strings.isspace(characters)] |= SPACE
    lower[:ASSIGNED] = np.strings.lower(characters).astype("U1").view(np.uint32)
    kinds[0xD800:0xE000] = 0
    kinds[0] = 0
    for marks, bit in ((SENTENCE_MARKS, SENTENCE), (QUOTES, QUOTE), (BULLETS, BULLET)):
        kinds[[ord(mark) for mark in marks]] |= bit
    return kinds, lower


@cache
def classes(word_characters: str = "") -> np.ndarray:
    """uint32[0x110000]: lower case in the low 24 bits, class bits above (one look-up a character).

    word_characters: those of the language beyond `\\w`.
    """
    kinds, lower = tables()
    kinds = kinds.copy()
    for character in word_characters:
        mark = unicodedata.category(character).startswith("M")
        kinds[ord(character)] |= WORD if mark else JOINER
    return lower | (kinds.astype(np.uint32) << 24)


def words_of(text: str, word_characters: str = "") -> list[str]:
    """The words of a text as the kernels find them, in plain Python: for derivations and tests."""
    kinds = {c: unicodedata.category(c).startswith("M") for c in word_characters}
    marks = re.escape("".join(c for c, mark in kinds.items() if mark))
    joiners = re.escape("".join(c for c, mark in kinds.items() if not mark))
    word = rf"[\w{marks}]+"
    return re.findall(rf"{word}(?:[{joiners}]{word})*" if joiners else word, text)


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


def hash_of(word: str) -> int:
    """The hash of one word, as the kernels hash words."""
    h = 0
    for character in word.lower():
        h = (h ^ ord(character)) * int(FNV) % 2**64
        h ^= h >> 29
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * factor % 2**64
    return h ^ h >> 33


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
    return sorted_distinct(out)


@numba.njit(cache=True, nogil=True)
def sorted_distinct(values):
    """The distinct values (uint64) in rising order; `values` is overwritten.

    By bytes from the lowest up. np.unique gives the same and takes 5 s to compile, which each new
    worker of a submitted job would wait for.
    """
    other = np.empty_like(values)
    for shift in range(0, 64, 8):
        ends = np.zeros(257, np.int64)
        for k in range(values.shape[0]):
            ends[((values[k] >> np.uint64(shift)) & np.uint64(255)) + np.uint64(1)] += 1
        for digit in range(256):
            ends[digit + 1] += ends[digit]
        for k in range(values.shape[0]):
            digit = (values[k] >> np.uint64(shift)) & np.uint64(255)
            other[ends[digit]] = values[k]
            ends[digit] += 1
        values, other = other, values
    count = 0
    for k in range(values.shape[0]):
        if k == 0 or values[k] != values[count - 1]:
            values[count] = values[k]
            count += 1
    return values[:count]
