"""Repeated lines, paragraphs and word n-grams of one document, from their hashes, by numba.

An n-gram that occurs twice begins with an (n-1)-gram that occurs twice, so each n from 3 to 10
looks only at the places where the one before repeated: nine n-gram sizes cost little more than one.
"""

from __future__ import annotations

import numpy as np

from data_jobs.kernels import numba
from data_jobs.quality.measure_places import DUPLICATE_5GRAMS, TOP_BIGRAM
from data_jobs.words import FNV

FIRST, TOPS, DUPLICATES, LAST = 2, 4, 5, 10  # top n-grams of 2 to 4 words, duplicates of 5 to 10


@numba.njit(cache=True, nogil=True)
def repeated_share(hashes, lengths, count, keys):
    """(share of entries that stood before, their share of the characters)."""
    if count < 2:
        return 0.0, 0.0
    size = cleared(keys, count)
    mask = np.uint64(size - 1)
    repeated = repeated_characters = characters = 0
    for k in range(count):
        key = hashes[k] | np.uint64(1)
        place = (key >> np.uint64(1)) & mask
        while keys[place] != 0 and keys[place] != key:
            place = (place + np.uint64(1)) & mask
        characters += lengths[k]
        if keys[place] == key:
            repeated += 1
            repeated_characters += lengths[k]
        keys[place] = key
    return repeated / count, repeated_characters / max(characters, 1)


@numba.njit(cache=True, nogil=True)
def ngrams_pass(words, lengths, count, keys, times, ends, at, grams, places, out):
    """Fills the share of word characters in the top 2- to 4-gram, in repeated 5- to 10-grams.

    keys, times: hash table; ends, at, grams, places: scratch, an entry a word.
    """
    ends[0] = 0
    for k in range(count):
        ends[k + 1] = ends[k] + lengths[k]
        at[k], grams[k] = k, words[k]
    left = count
    characters = max(ends[count], 1)
    for n in range(FIRST, LAST + 1):
        while left and at[left - 1] + n > count:
            left -= 1
        if left < 2:
            return
        size = cleared(keys, left)
        mask = np.uint64(size - 1)
        covered = repeated = top = 0
        for m in range(left):
            k = at[m]
            gram = grams[m] * FNV + words[k + n - 1]
            key = gram | np.uint64(1)
            place = (gram >> np.uint64(17)) & mask
            while keys[place] != 0 and keys[place] != key:
                place = (place + np.uint64(1)) & mask
            if keys[place] == key:
                times[place] += 1
                if n >= DUPLICATES:
                    repeated += ends[k + n] - ends[max(k, covered)]
                    covered = k + n
                else:
                    top = max(top, times[place] * (ends[k + n] - ends[k]))
            else:
                keys[place], times[place] = key, 1
            grams[m], places[m] = gram, place
        if n <= TOPS:
            out[TOP_BIGRAM + n - FIRST] = min(1.0, top / characters)
        else:
            out[DUPLICATE_5GRAMS + n - DUPLICATES] = repeated / characters
        kept = 0
        for m in range(left):
            if times[places[m]] > 1:
                at[kept], grams[kept] = at[m], grams[m]
                kept += 1
        left = kept


@numba.njit(cache=True, nogil=True)
def cleared(keys, entries):
    """Size of the part of `keys` to use, a power of two at most half full, set to zero."""
    size = 16
    while size < entries * 2:
        size *= 2
    for k in range(size):  # an assigned slice takes a second to compile
        keys[k] = 0
    return size
