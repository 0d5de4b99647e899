"""The measures of `filter`: the values of FILTER_VALUES for each document, by numba kernels.

In: texts as UTF-8 in Arrow, a language's stop words and word characters. Out: a record batch with a
column a value. Words are `\\w+` (and what the pack adds): counting spaCy's punctuation tokens as
words drops good Portuguese. Where each value comes from is said in mutirao.core.schemas.
Memory: about 60 bytes for each byte of the longest document of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from data_jobs.quality.measure_places import (
    DUPLICATE_LINE_CHARACTERS,
    DUPLICATE_LINES,
    DUPLICATE_PARAGRAPH_CHARACTERS,
    DUPLICATE_PARAGRAPHS,
)
from data_jobs.quality.measure_repeats import ngrams_pass, repeated_share
from data_jobs.quality.measure_text import text_pass
from data_jobs.shards import utf8_buffers
from data_jobs.words import classes, hash_of
from mutirao.core.schemas import FILTER_VALUES

VERSION = 2  # rises when a definition changes: measured values are cached under it
VALUES_SCHEMA = pa.schema([pa.field(n, t) for n, t in FILTER_VALUES])
MARKED = ("javascript", "lorem", "ipsum")  # as measure_text names them


def measure(
    texts: pa.Array | list[str], stop_words: Iterable[str], word_characters: str = ""
) -> pa.RecordBatch:
    """Values of FILTER_VALUES for each text."""
    column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    data, offsets = (array.view() for array in utf8_buffers(column))
    for array in (data, offsets):  # mapped ones are: one kind of array, one compiled kernel
        array.flags.writeable = False
    stops = stop_table(tuple(sorted(stop_words)))
    marked = np.array([hash_of(word) for word in MARKED], np.uint64)
    found = np.zeros((len(FILTER_VALUES), len(column)))
    measure_batch(data, offsets, classes(word_characters), stops, marked, found)
    arrays = [pa.array(found[i]).cast(t, safe=False) for i, (_, t) in enumerate(FILTER_VALUES)]
    return pa.RecordBatch.from_arrays(arrays, schema=VALUES_SCHEMA)


@numba.njit(cache=True, nogil=True)
def measure_batch(data, offsets, table, stops, marked, found):
    """Fills found, float64[values, rows]. table: words.classes; stops: stop_table."""
    rows = offsets.shape[0] - 1
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    room = longest // 2 + 2  # a word, like a line, takes a byte and one between it and the next
    size = 16
    while size < room * 2:
        size *= 2
    words, lengths = np.empty(room, np.uint64), np.empty(room, np.int64)
    lines, line_lengths = np.empty((2, room), np.uint64), np.empty((2, room), np.int64)
    keys, times = np.empty(size, np.uint64), np.empty(size, np.int64)
    ends, at = np.empty(room + 1, np.int64), np.empty(room, np.int64)
    grams, places = np.empty(room, np.uint64), np.empty(room, np.uint64)
    seen_stops = np.zeros(stops.shape[0], np.int64)
    out = np.zeros(found.shape[0])
    for row in range(rows):
        for k in range(out.shape[0]):  # here and below: an assigned slice takes seconds to compile
            out[k] = 0
        count, line_count, paragraphs = text_pass(
            data, offsets[row], offsets[row + 1], table, stops, seen_stops, row, marked,
            words, lengths, lines, line_lengths, out,
        )  # fmt: skip
        out[DUPLICATE_LINES], out[DUPLICATE_LINE_CHARACTERS] = repeated_share(
            lines[0], line_lengths[0], line_count, keys
        )
        out[DUPLICATE_PARAGRAPHS], out[DUPLICATE_PARAGRAPH_CHARACTERS] = repeated_share(
            lines[1], line_lengths[1], paragraphs, keys
        )
        ngrams_pass(words, lengths, count, keys, times, ends, at, grams, places, out)
        for k in range(out.shape[0]):
            found[k, row] = out[k]


@cache
def stop_table(words: tuple[str, ...]) -> np.ndarray:
    """Hash table (uint64, open addressing, at most a quarter full, 0 = free) of the words."""
    size = 64
    while size < 4 * len(words):
        size *= 2
    table = np.zeros(size, np.uint64)
    for word in words:
        h = hash_of(word)
        place = h & (size - 1)
        while table[place] not in (0, h):
            place = (place + 1) & (size - 1)
        table[place] = h
    return table
