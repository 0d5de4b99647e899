"""The numba kernel of `variety`: weights of words and patterns, features of words.

In: UTF-8 views one after the other, a look-up table of rule weights. Out: for each view the weight
of the rules for either variety; where those leave it open, the features of the classifier.

Rules see every word in lower case. The classifier sees words that begin with a small letter and
hold no digit, since names and figures tell the topic and not the variety: a feature for the word,
one for it and the word before, one for the word before and its last three letters.
"""

from __future__ import annotations

import numpy as np

from data_jobs.kernels import numba
from data_jobs.words import FNV, LETTER, UPPER, WORD, decode, mix

SLOTS = 1 << 17  # of the classifier's features, by hash
EXACT, PREFIX, INFIX = 0x9D39247E33776D41, 0x2AF7398005AAA5C7, 0x44DB015024623547  # salts
PAIR, ENDING = np.uint64(0x9C15F73E62A76AE2), np.uint64(0x75834465489C0C89)
SHORTEST_PREFIX = 5
FEATURES_A_WORD = 3
FILTER = 4096  # hashes that no key begins with are not looked up
ASCII_BITS = np.uint64(7)
SPACE_POINT = 32
_EXACT, _PREFIX, _INFIX = np.uint64(EXACT), np.uint64(PREFIX), np.uint64(INFIX)


@numba.njit(cache=True, nogil=True)
def rule_sums(data, offsets, kinds, lower, keys, values):
    """int64[views, 2]: weight of the rules for the first variety and for the second."""
    out = np.zeros((offsets.shape[0] - 1, 2), np.int64)
    begins = prefix_filter(keys)
    for row in range(offsets.shape[0] - 1):
        end = offsets[row + 1]
        h = a = b = c = np.uint64(0)
        length = weight = 0
        i = offsets[row]
        while i <= end:
            point, after = decode(data, i, end) if i < end else (np.uint32(SPACE_POINT), i + 1)
            i = after
            if kinds[point] & WORD:
                length += 1
                a, b, c = b, c, np.uint64(lower[point])
                h = (h ^ c) * FNV
                h ^= h >> np.uint64(29)
                if length >= SHORTEST_PREFIX and begins[h & np.uint64(FILTER - 1)]:
                    weight += found(h ^ _PREFIX, keys, values)
                if length > 2 and (a | b | c) >> ASCII_BITS:
                    weight += found(mix(trigram(a, b, c)) ^ _INFIX, keys, values)
            elif length:
                place = position(h ^ _EXACT, keys)
                if place >= 0:
                    weight = values[place]
                out[row, 0 if weight > 0 else 1] += abs(weight)
                h = a = b = c = np.uint64(0)
                length = weight = 0
    return out


@numba.njit(cache=True, nogil=True)
def feature_lists(data, offsets, kinds, lower):
    """(row int32[n], slot int32[n]) of every feature of every view, three for each word."""
    rows = np.empty(3 * (offsets[-1] + 1), np.int32)
    places = np.empty(3 * (offsets[-1] + 1), np.int32)
    slots = np.empty(3, np.int64)
    count = 0
    for row in range(offsets.shape[0] - 1):
        end = offsets[row + 1]
        h = a = b = c = before = np.uint64(0)
        length = 0
        plain = True
        i = offsets[row]
        while i <= end:
            point, after = decode(data, i, end) if i < end else (np.uint32(SPACE_POINT), i + 1)
            i = after
            kind = kinds[point]
            if kind & WORD:
                plain = plain and kind & LETTER != 0 and (length > 0 or not kind & UPPER)
                length += 1
                a, b, c = b, c, np.uint64(lower[point])
                h = (h ^ c) * FNV
                h ^= h >> np.uint64(29)
            elif length:
                word = mix(h) | np.uint64(1)
                if plain:
                    feature_slots(word, before, trigram(a, b, c), slots)
                    for slot in slots:  # an assigned slice takes seconds to compile
                        rows[count], places[count] = row, slot
                        count += 1
                before = word
                h = a = b = c = np.uint64(0)
                length, plain = 0, True
    return rows[:count], places[:count]


@numba.njit(cache=True, nogil=True)
def prefix_filter(keys):
    """False where no key of a beginning can lie: most hashes need no look-up."""
    begins = np.zeros(FILTER, np.bool_)
    for key in keys:
        if key:
            begins[(key ^ _PREFIX) & np.uint64(FILTER - 1)] = True
    return begins


@numba.njit(cache=True, nogil=True)
def feature_slots(word, before, last, slots):
    """The three features of a word, as places in the classifier's weights."""
    mask = np.uint64(SLOTS - 1)
    slots[0] = word >> np.uint64(1) & mask
    slots[1] = mix(word ^ (before * PAIR)) & mask
    slots[2] = mix(mix(last) ^ (before * ENDING)) & mask


@numba.njit(cache=True, nogil=True, inline="always")
def trigram(a, b, c):
    return (a << np.uint64(42)) | (b << np.uint64(21)) | c


@numba.njit(cache=True, nogil=True)
def position(key, keys):
    """Place of the key in the open-addressing table, -1 if it is not there."""
    mask = np.uint64(keys.shape[0] - 1)
    place = key & mask
    while keys[place]:
        if keys[place] == key:
            return np.int64(place)
        place = (place + np.uint64(1)) & mask
    return np.int64(-1)


@numba.njit(cache=True, nogil=True, inline="always")
def found(key, keys, values):
    place = position(key, keys)
    return values[place] if place >= 0 else 0


def lookup_table(entries: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint64[n], values int64[n]), n a power of two at least four times the entries."""
    size = 1 << max(2, (4 * len(entries)).bit_length())
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for key, value in sorted(entries.items()):
        place = key & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], values[place] = key, value
    return keys, values


def pattern_key(letters: str, kind: int) -> int:
    """The key under which the kernel looks for a whole word, a beginning or three letters."""
    if kind == INFIX:
        a, b, c = map(ord, letters)
        return int(mix(np.uint64(a << 42 | b << 21 | c))) ^ kind
    h = 0
    for letter in letters:
        h = ((h ^ ord(letter)) * int(FNV)) & (1 << 64) - 1
        h ^= h >> 29
    return h ^ kind
