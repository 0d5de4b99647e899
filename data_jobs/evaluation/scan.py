"""Where texts hold n-grams of an index: the numba kernels of `decontaminate`.

Words are those of words.py (`\\w+`, lower-cased), each by its 64-bit hash there. An n-gram is the
polynomial w[0]*B^(n-1) + ... + w[n-1] modulo 2^64 over them (Karp and Rabin 1987), so that the
n-grams of any length come from one array of prefix sums: six lengths take 1.4 times as long as one.
A filter for each length answers most look-ups (some KB for whole texts, 0.5 MB for 75,000 n-grams
of 13 words); one in hundreds goes on to the binary search.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from data_jobs.words import FNV, ODD_CASE, decode, folded, mix, tables

BASE = FNV  # odd, so that no word is lost by a high power of it
ODD = tuple(ord(character) for character in ODD_CASE)


@cache
def word_table() -> np.ndarray:
    """uint32[0x110000]: lower case of the characters of words, 0 for all others."""
    kinds, lower = tables()
    return np.where(kinds & 1, lower, np.uint32(0)).astype(np.uint32)


def power(n: int) -> int:
    return pow(int(BASE), n, 2**64)


class Lookup(NamedTuple):
    """What `batch_hits` asks: n-gram lengths, and for each one the filter of its hashes."""

    sizes: np.ndarray  # int64: words
    powers: np.ndarray  # uint64: BASE ** size
    hashes: np.ndarray  # uint64, sorted, of all lengths
    filters: np.ndarray  # uint64: those of all lengths, one after another
    begins: np.ndarray  # uint64: where each begins
    shifts: np.ndarray  # uint64: what leaves the number of a word of the filter


def lookup(hashes: np.ndarray, length: np.ndarray) -> Lookup:
    """hashes: uint64, sorted; length: the words of each. A filter is a blocked Bloom filter (Putze,
    Sanders and Singler 2007) of two bits in one 64-bit word, 32 to 64 bits for each hash: 0.1 to
    0.4% pass in vain."""
    hashes = np.array(hashes, np.uint64)  # always of one type and layout: kernels compile once
    sizes = np.unique(length).astype(np.int64)
    filters, shifts = [], []
    for size in sizes:
        mixed = hashes[length == size] * FNV
        words = max(2, 1 << len(mixed).bit_length() - 1)
        shifts.append(65 - words.bit_length())
        one = np.zeros(words, np.uint64)
        np.bitwise_or.at(one, mixed >> np.uint64(shifts[-1]), _two_bits(mixed))
        filters.append(one)
    begins = np.cumsum([0, *(len(one) for one in filters)])[:-1].astype(np.uint64)
    joined = np.concatenate([np.zeros(0, np.uint64), *filters])
    powers = np.array([power(int(size)) for size in sizes], np.uint64)
    return Lookup(sizes, powers, hashes, joined, begins, np.array(shifts, np.uint64))


def _two_bits(mixed: np.ndarray) -> np.ndarray:
    one, low, high = np.uint64(1), mixed >> np.uint64(20), mixed >> np.uint64(26)
    return (one << (low & np.uint64(63))) | (one << (high & np.uint64(63)))


@numba.njit(cache=True, nogil=True)
def words_and_starts(data, start, end, table, words, starts):
    """Write each word's hash, as words.word_hashes has it, and its first byte; returns how many, or
    -1 for a text that `folded` must lower-case (ODD_CASE): looking for those first took as long as
    half of all words."""
    count = 0
    i = start
    while i < end:
        h = np.uint64(0)
        first = i
        inside = False
        while i < end:
            point = np.uint32(data[i])
            if point < 128:
                i += 1
            else:
                point, i = decode(data, i, end)
                if point == ODD[0] or point == ODD[1]:
                    return -1
            low = table[point]
            if low == 0:
                break
            h = (h ^ np.uint64(low)) * FNV
            h ^= h >> np.uint64(29)
            inside = True
        if inside:
            words[count], starts[count] = mix(h), first
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def prefix_sums(words, count, prefix):
    h = np.uint64(0)
    prefix[0] = h
    for k in range(count):
        h = h * BASE + words[k]
        prefix[k + 1] = h


@numba.njit(cache=True, nogil=True)
def text_ngrams(data, start, end, table, n, least, high, out):
    """(n-grams written to `out`, their length): those of n words, or the whole text as one where it
    has fewer, but `least` at least; (0, words) below that. high: BASE**n."""
    room = (end - start) // 2 + 2
    words, starts = np.empty(room, np.uint64), np.empty(room, np.int64)
    prefix = np.empty(room + 1, np.uint64)
    count = words_and_starts(data, start, end, table, words, starts)
    prefix_sums(words, count, prefix)
    if count < least:
        return 0, count
    if count < n:
        out[0] = prefix[count]
        return 1, count
    for k in range(count - n + 1):
        out[k] = prefix[k + n] - prefix[k] * high
    return count - n + 1, n


@numba.njit(cache=True, nogil=True)
def place_of(hashes, value):
    """Index of the value in the sorted hashes, or -1."""
    low, high = 0, hashes.shape[0]
    while low < high:
        middle = (low + high) // 2
        if hashes[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < hashes.shape[0] and hashes[low] == value else -1


@numba.njit(cache=True, nogil=True)
def candidates(prefix, count, n, high, filters, begin, shift, out):
    """Write the words at which an n-gram begins that passes the filter; returns how many."""
    found, one, mask = 0, np.uint64(1), np.uint64(63)
    for k in range(count - n + 1):
        mixed = (prefix[k + n] - prefix[k] * high) * FNV
        word = filters[begin + (mixed >> shift)]
        if (
            (word >> (mixed >> np.uint64(20) & mask))
            & (word >> (mixed >> np.uint64(26) & mask))
            & one
        ):
            out[found] = k
            found += 1
    return found


@numba.njit(cache=True, nogil=True)
def batch_hits(data, offsets, looked_at, table, sizes, powers, hashes, filters, begins, shifts):
    """int64[hits, 5]: row, its number of words, word where the n-gram begins, first byte of that
    word inside the text, index in `hashes`; a row that must be lower-cased first is one hit with
    the index -1. looked_at: bool by row; the rest: a Lookup."""
    longest = 0
    for row in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    room = longest // 2 + 2
    words, starts = np.empty(room, np.uint64), np.empty(room, np.int64)
    prefix, places = np.empty(room + 1, np.uint64), np.empty(room, np.int64)
    hits, found = np.empty((64, 5), np.int64), 0
    for row in range(offsets.shape[0] - 1):
        if not looked_at[row]:
            continue
        begin = offsets[row]
        count = words_and_starts(data, begin, offsets[row + 1], table, words, starts)
        if found + 1 >= hits.shape[0]:
            hits = _grown(hits)
        if count < 0:
            hits[found, 0], hits[found, 4] = row, -1
            found += 1
            continue
        prefix_sums(words, count, prefix)
        for s in range(sizes.shape[0]):
            n, high = sizes[s], powers[s]
            passed = candidates(prefix, count, n, high, filters, begins[s], shifts[s], places)
            for place in range(passed):
                k = places[place]
                gram = place_of(hashes, prefix[k + n] - prefix[k] * high)
                if gram < 0:
                    continue
                if found == hits.shape[0]:
                    hits = _grown(hits)
                hits[found, 0], hits[found, 1], hits[found, 2] = row, count, k
                hits[found, 3], hits[found, 4] = starts[k] - begin, gram
                found += 1
    return hits[:found]


@numba.njit(cache=True, nogil=True)
def _grown(hits):
    larger = np.empty((hits.shape[0] * 2, hits.shape[1]), hits.dtype)
    for k in range(hits.shape[0]):
        for column in range(hits.shape[1]):
            larger[k, column] = hits[k, column]
    return larger


def read_only(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The texts by `folded`, marked as text shards in memory are: kernels compile for one type."""
    data, offsets = folded(texts)
    data.flags.writeable = offsets.flags.writeable = False
    return data, offsets


def ngrams_of(text: str, n: int, least: int) -> tuple[np.ndarray, int]:
    """(sorted distinct hashes uint64 of a text's n-grams, their length in words); of a text of
    `least` to n - 1 words the whole as one; none below that, with its number of words."""
    data, offsets = read_only(pa.array([text], pa.large_string()))
    out = np.empty(len(data) // 2 + 2, np.uint64)
    high = np.uint64(power(n))
    count, length = text_ngrams(data, offsets[0], offsets[1], word_table(), n, least, high, out)
    return np.unique(out[:count]), length


def offset_in(text: str, place: int) -> int:
    """The byte of `text` that stands at byte `place` of its lower case, as `folded` makes it."""
    if not any(character in text for character in ODD_CASE):
        return place
    lower = original = 0
    for character in text:
        if lower >= place:
            break
        lower += len(character.lower().encode())
        original += len(character.encode())
    return original
