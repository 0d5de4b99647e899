"""The measuring kernel of `filter`: the values of FILTER_VALUES for each document, by numba.

In: UTF-8 buffers of a batch. Out: float64[documents, values]. Definitions follow Rae et al. 2021
(Gopher, arXiv:2112.11446, appendix A1), with words as `\\w+`: counting spaCy's punctuation tokens
as words drops good Portuguese. Memory: about 60 bytes for each byte of the longest document.
"""

from __future__ import annotations

import numba
import numpy as np

from data_jobs.words import FNV, LETTER, SPACE, UPPER, WORD, decode, mix

VERSION = 1  # rises when a definition changes: measured values are cached under it
VALUES = 14
HASH_SIGN, DOT, ELLIPSIS, NEWLINE = 0x23, 0x2E, 0x2026, 0x0A
# Without dashes: in many languages (Portuguese, French, Spanish) one opens a line of dialogue.
BULLETS = np.array([ord(c) for c in "•‣▶◀◦■□▪▫*·"], np.uint32)


@numba.njit(cache=True, nogil=True)
def measure_batch(data, offsets, kinds, lower, stop_words, bullets):
    """float64[rows, VALUES] in the order of schemas.FILTER_VALUES; stop_words: sorted uint64."""
    rows = offsets.shape[0] - 1
    out = np.zeros((rows, VALUES))
    for row in range(rows):
        start, end = offsets[row], offsets[row + 1]
        room = (end - start + 1) // 2 + 1
        words = np.empty(room, np.uint64)
        lengths = np.empty(room, np.int64)
        count = words_pass(data, start, end, kinds, lower, stop_words, words, lengths, out[row])
        lines_pass(data, start, end, kinds, bullets, out[row])
        if count > 0:
            repeats_pass(words, lengths, count, out[row])
    return out


@numba.njit(cache=True, nogil=True)
def words_pass(data, start, end, kinds, lower, stop_words, words, lengths, out):
    """Fills words, characters, mean length, alpha, symbols, stop words, upper case."""
    count = characters = letters = uppers = symbols = alpha = stops = total = dots = 0
    h = np.uint64(0)
    length = 0
    has_letter = False
    i = start
    while i <= end:
        if i < end:
            point, i = decode(data, i, end)
            characters += 1
            kind = kinds[point]
        else:
            point, i, kind = np.uint32(32), i + 1, np.uint8(SPACE)
        if kind & LETTER:
            letters += 1
            has_letter = True
            if kind & UPPER:
                uppers += 1
        if point == DOT:
            dots += 1
            if dots == 3:
                symbols += 1
        else:
            dots = 0
            if point in (HASH_SIGN, ELLIPSIS):
                symbols += 1
        if kind & WORD:
            h = (h ^ np.uint64(lower[point])) * FNV
            h ^= h >> np.uint64(29)
            length += 1
        elif length:
            word = mix(h)
            words[count], lengths[count] = word, length
            count += 1
            total += length
            alpha += has_letter
            place = np.searchsorted(stop_words, word)
            if place < stop_words.shape[0] and stop_words[place] == word:
                stops += 1
            h, length, has_letter = np.uint64(0), 0, False
    n = max(count, 1)
    out[0], out[1], out[3] = count, characters, total / n
    out[4], out[5], out[6] = alpha / n, symbols / n, stops / n
    out[7] = uppers / max(letters, 1)
    return count


@numba.njit(cache=True, nogil=True)
def lines_pass(data, start, end, kinds, bullets, out):
    """Fills lines (not blank), bullet and ellipsis lines, lines that stood before."""
    lines = np.uint64(1)
    for i in range(start, end):
        lines += np.uint64(data[i] == NEWLINE)
    seen = np.zeros(table_size(lines), np.uint64)
    count = bullet = ellipsis = repeated = repeated_characters = characters = 0
    h = np.uint64(0)
    length = dots = spaces = 0
    first = last = np.uint32(0)
    i = start
    while i <= end:
        if i < end:
            point, i = decode(data, i, end)
        else:
            point, i = np.uint32(NEWLINE), i + 1
        if point != NEWLINE:
            if kinds[point] & SPACE:
                spaces += 1
                continue
            if length == 0:
                first = point
            elif spaces:  # a run of spaces inside a line counts once
                h = (h ^ np.uint64(32)) * FNV
            spaces = 0
            h = (h ^ np.uint64(point)) * FNV
            h ^= h >> np.uint64(29)
            dots = dots + 1 if point == DOT else 0
            last = point
            length += 1
        elif length:
            count += 1
            characters += length
            ellipsis += last == ELLIPSIS or dots >= 3
            for k in range(bullets.shape[0]):
                bullet += first == bullets[k]
            if insert(seen, mix(h)):
                repeated += 1
                repeated_characters += length
            h, length, dots, spaces = np.uint64(0), 0, 0, 0
    n = max(count, 1)
    out[2], out[8], out[9], out[10] = count, bullet / n, ellipsis / n, repeated / n
    out[11] = repeated_characters / max(characters, 1)


@numba.njit(cache=True, nogil=True)
def repeats_pass(words, lengths, count, out):
    """Fills the share of word characters in the top 2-gram and in repeated 5-grams."""
    total = 0
    for k in range(count):
        total += lengths[k]
    size = table_size(np.uint64(count))
    keys, times = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    top = 0
    for k in range(count - 1):
        pair = mix(mix(words[k]) + words[k + 1]) | np.uint64(1)
        place = find(keys, pair)
        keys[place] = pair
        times[place] += lengths[k] + lengths[k + 1]
        if times[place] > lengths[k] + lengths[k + 1] and times[place] > top:
            top = times[place]
    out[12] = min(1.0, top / max(total, 1))
    keys[:] = 0
    marked_to = repeated = 0
    for k in range(count - 4):
        h = np.uint64(5)
        for j in range(k, k + 5):
            h = mix(h ^ words[j]) + FNV
        if insert(keys, h):
            for j in range(max(k, marked_to), k + 5):
                repeated += lengths[j]
            marked_to = k + 5
    out[13] = repeated / max(total, 1)


@numba.njit(cache=True, nogil=True)
def table_size(entries):
    size = np.uint64(16)
    while size < entries * np.uint64(2):
        size *= np.uint64(2)
    return size


@numba.njit(cache=True, nogil=True, inline="always")
def find(keys, key):
    """Open addressing with linear steps; 0 marks a free place."""
    mask = np.uint64(keys.shape[0] - 1)
    place = mix(key) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    return place


@numba.njit(cache=True, nogil=True)
def insert(keys, key):
    """Put `key` into the table; True if it was there."""
    key |= np.uint64(1)
    place = find(keys, key)
    if keys[place] == key:
        return True
    keys[place] = key
    return False
