"""Words, characters and lines of one document in a single pass over its UTF-8, by numba.

In: the bytes and the class table of words.classes. Out: most values of FILTER_VALUES, and the
hashes of words, lines and paragraphs for the passes of measure_repeats.
"""

from __future__ import annotations

import numpy as np

from data_jobs.kernels import numba
from data_jobs.quality.measure_places import (
    ALPHA_WORDS,
    BULLET_LINES,
    CHARACTERS,
    CURLY_BRACKETS,
    DISTINCT_STOP_WORDS,
    ELLIPSIS_LINES,
    JAVASCRIPT_LINES,
    LINES,
    LOREM_IPSUM,
    MEAN_WORD_LENGTH,
    NEWLINES,
    PARAGRAPHS,
    SENTENCES,
    SHORT_LINES,
    STOP_WORDS,
    SYMBOL_RATIO,
    TERMINAL_LINES,
    UPPERCASE,
    WORDS,
)
from data_jobs.words import (
    BULLET,
    FNV,
    JOINER,
    LETTER,
    QUOTE,
    SENTENCE,
    SPACE,
    UPPER,
    WORD,
    decode,
    mix,
)

HASH_SIGN, DOT, ELLIPSIS, NEWLINE, OPEN_CURLY, CLOSE_CURLY = 0x23, 0x2E, 0x2026, 0x0A, 0x7B, 0x7D
SHORT_LINE = 30  # characters; FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.5)
JAVASCRIPT, LOREM, IPSUM = 0, 1, 2  # places in `marked`
LETTER_SHIFT, UPPER_SHIFT = LETTER.bit_length() - 1, UPPER.bit_length() - 1


@numba.njit(cache=True, nogil=True)
def text_pass(
    data, start, end, table, stops, seen_stops, row, marked,
    words, lengths, lines, line_lengths, out,
):  # fmt: skip
    """(words, lines, paragraphs) of the document data[start:end]; fills the arrays of the last row.

    stops, seen_stops: open-addressing table of stop word hashes, and the row + 1 in which each was
    met last. marked: hashes of 'javascript', 'lorem', 'ipsum'. words: their hashes; lines:
    uint64[2, room], hashes of lines, then of paragraphs; line_lengths: their characters.
    """
    count = characters = letters = uppers = symbols = alpha = stopped = distinct = total = 0
    line_count = paragraphs = sentences = bullet = ellipsis = terminal = short = javascript = 0
    newlines = curly = lorem = 0
    first_at = last_at = dot_at = ended_at = -9  # as numbers of characters
    dots = 0
    first_kind = last_kind = np.uint32(0)
    last = np.uint32(0)
    line_hash = kept_hash = paragraph_hash = before = np.uint64(0)
    paragraph_length = 0
    scripted = False
    i = start
    while i <= end:
        if i < end:
            point, after = decode(data, i, end)
        else:  # one line end more closes the last line and sentence
            point, after = np.uint32(NEWLINE), i + 1
        entry = table[point]
        kind = entry >> np.uint32(24)
        if kind & WORD:
            if first_at < 0:
                first_at, first_kind = characters, kind
            i, h, length, own_letters, own_uppers = read_word(data, after, end, table, entry)
            letters += own_letters
            uppers += own_uppers
            words[count], lengths[count] = h, length
            count += 1
            total += length
            characters += length
            alpha += own_letters > 0
            place = find_stop(stops, h)
            if stops[place] == h:
                stopped += 1
                distinct += seen_stops[place] != row + 1
                seen_stops[place] = row + 1
            scripted |= h == marked[JAVASCRIPT]
            if h == marked[IPSUM] and before == marked[LOREM]:
                lorem += 1
            before = h
            line_hash = (line_hash ^ h) * FNV
            line_hash ^= line_hash >> np.uint64(29)
            kept_hash, last_at, last_kind = line_hash, characters - 1, np.uint32(WORD)
            last = np.uint32(0)
            continue
        i = after
        if kind & SPACE:
            if ended_at == characters - 1:
                sentences += 1
            if point == NEWLINE:
                newlines += 1
                if first_at >= 0:
                    length = last_at - first_at + 1
                    lines[0, line_count], line_lengths[0, line_count] = kept_hash, length
                    line_count += 1
                    bullet += (first_kind & BULLET) != 0
                    terminal += (last_kind & (SENTENCE | QUOTE)) != 0
                    ellipsis += last == ELLIPSIS or (last_at == dot_at and dots >= 3)
                    short += length <= SHORT_LINE
                    javascript += scripted
                    paragraph_hash = mix(paragraph_hash ^ kept_hash) + FNV
                    paragraph_length += length
                if paragraph_length and (first_at < 0 or i > end):
                    lines[1, paragraphs] = paragraph_hash
                    line_lengths[1, paragraphs] = paragraph_length
                    paragraphs += 1
                    paragraph_hash, paragraph_length = np.uint64(0), 0
                first_at, line_hash, scripted = -9, np.uint64(0), False
            elif first_at >= 0:
                line_hash = (line_hash ^ np.uint64(point)) * FNV
                line_hash ^= line_hash >> np.uint64(29)
        else:
            if first_at < 0:
                first_at, first_kind = characters, kind
            if point == DOT:
                dots = dots + 1 if dot_at == characters - 1 else 1
                dot_at = characters
                symbols += dots == 3
            elif point in (HASH_SIGN, ELLIPSIS):
                symbols += 1
            elif point in (OPEN_CURLY, CLOSE_CURLY):
                curly += 1
            if kind & SENTENCE or (kind & QUOTE and ended_at == characters - 1):
                ended_at = characters
            line_hash = (line_hash ^ np.uint64(point)) * FNV
            line_hash ^= line_hash >> np.uint64(29)
            kept_hash, last_at, last_kind, last = line_hash, characters, kind, point
        characters += 1
    characters -= 1
    newlines -= 1
    n, rows = max(count, 1), max(line_count, 1)
    out[WORDS], out[CHARACTERS], out[LINES] = count, characters, line_count
    out[PARAGRAPHS], out[SENTENCES] = paragraphs, sentences
    out[MEAN_WORD_LENGTH], out[ALPHA_WORDS] = total / n, alpha / n
    out[SYMBOL_RATIO], out[NEWLINES] = symbols / n, newlines / n
    out[STOP_WORDS], out[DISTINCT_STOP_WORDS] = stopped / n, distinct
    out[UPPERCASE], out[CURLY_BRACKETS] = uppers / max(letters, 1), curly / max(characters, 1)
    out[BULLET_LINES], out[ELLIPSIS_LINES] = bullet / rows, ellipsis / rows
    out[TERMINAL_LINES], out[SHORT_LINES] = terminal / rows, short / rows
    out[JAVASCRIPT_LINES], out[LOREM_IPSUM] = javascript / rows, lorem
    return count, line_count, paragraphs


@numba.njit(cache=True, nogil=True, inline="always")
def read_word(data, after, end, table, entry):
    """(index after it, hash, characters, letters, upper case letters) of a word; `entry` is that of
    its first character, `after` the index of the next. A JOINER goes on only between two word
    characters."""
    h = np.uint64(0)
    length = letters = uppers = 0
    kind = entry >> np.uint32(24)
    while True:
        letters += (kind >> LETTER_SHIFT) & 1
        uppers += (kind >> UPPER_SHIFT) & 1
        h = (h ^ np.uint64(entry & np.uint32(0xFFFFFF))) * FNV
        h ^= h >> np.uint64(29)
        length += 1
        i = after
        if i >= end:
            break
        point, after = decode(data, i, end)
        entry = table[point]
        kind = entry >> np.uint32(24)
        if kind & WORD:
            continue
        if not (kind & JOINER and after < end):
            break
        beyond, _ = decode(data, after, end)
        if not (table[beyond] >> np.uint32(24)) & WORD:
            break
    return i, mix(h), length, letters, uppers


@numba.njit(cache=True, nogil=True, inline="always")
def find_stop(stops, h):
    """The place of `h`, or the free place where it would stand."""
    mask = np.uint64(stops.shape[0] - 1)
    place = h & mask
    while stops[place] != 0 and stops[place] != h:
        place = (place + np.uint64(1)) & mask
    return place
