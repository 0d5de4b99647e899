"""The paragraphs of a text as byte ranges, with their words and hashes, by numba.

A paragraph is a run of lines that are not blank, from the start of its first line to its last
character that is no space. A word is a match of Python's `\\w+`.
Memory: CHUNK_BYTES of text (or one document), its paragraphs, and their normalised text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_jobs.kernels import numba
from data_jobs.normal_text import (
    CHUNK_BYTES,
    SPACE,
    WIDEST_FOLD,
    WORD,
    character,
    fold_tables,
    normalise,
    read_only,
    slice_hashes,
)

NEWLINE = 10
LEAST_BYTES = 3  # a letter and two line ends: the shortest paragraph with one behind it


@dataclass(frozen=True)
class Paragraphs:
    """One entry a paragraph, int64 each; start and end in the batch's data, as is origin, where its
    document begins; size is the document's."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    words: np.ndarray
    origin: np.ndarray
    size: np.ndarray

    def chosen(self, which: Any) -> Paragraphs:
        return Paragraphs(*(column[which] for column in vars(self).values()))

    def moved(self, rows: int) -> Paragraphs:
        """The same with other numbers of rows."""
        return Paragraphs(self.row + rows, *list(vars(self).values())[1:])

    def documents(self) -> Iterator[tuple[int, int, int]]:
        """(row, first, last + 1) of the entries of each document."""
        firsts = np.flatnonzero(np.diff(self.row, prepend=-1)).tolist()
        for first, last in zip(firsts, [*firsts[1:], len(self.row)], strict=True):
            yield int(self.row[first]), first, last


def paragraphs_of(data: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> Iterator[Paragraphs]:
    """The paragraphs of these rows (rising), of about CHUNK_BYTES of text at a time."""
    data = read_only(data)
    folds, _ = fold_tables("casefold")  # any: they agree on what is a space and a word
    sizes = offsets[rows + 1] - offsets[rows]
    chunk = (np.cumsum(sizes) - sizes) // CHUNK_BYTES
    for number in np.unique(chunk):
        some = rows[chunk == number]
        starts, ends = offsets[some], offsets[some + 1]
        room = int((ends - starts).sum()) // LEAST_BYTES + 2 * len(some)
        ranges, words = np.empty((room, 2), np.int64), np.empty(room, np.int64)
        counts = paragraph_ranges(data, starts, ends, folds, ranges, words)
        total = int(counts.sum())
        columns = [np.repeat(one, counts) for one in (some, starts, ends - starts)]
        start, end = ranges[:total, 0].copy(), ranges[:total, 1].copy()
        yield Paragraphs(columns[0], start, end, words[:total].copy(), columns[1], columns[2])


def paragraph_hashes(data: np.ndarray, found: Paragraphs, how: str) -> np.ndarray:
    """xxh3-128 of each normalised paragraph: uint64[n, 2]."""
    if how == "none":
        return slice_hashes(data, found.start, found.end)
    data = read_only(data)
    folds, more = fold_tables(how)
    size = int((found.end - found.start).sum())
    out = np.empty(size * WIDEST_FOLD + 1, np.uint8)
    borders = normalise_ranges(data, found.start, found.end, folds, more, out)
    return slice_hashes(out, borders[:-1], borders[1:])


@numba.njit(cache=True, nogil=True)
def paragraph_ranges(data, starts, ends, folds, ranges, words):
    """Fill [start, end) and the words of every paragraph; int64[rows], how many each text has."""
    counts = np.zeros(starts.shape[0], np.int64)
    count = 0
    for row in range(starts.shape[0]):
        before = count
        inside = wordy = False
        blank = True
        line = begin = last = i = starts[row]
        found = 0
        end = ends[row]
        while i < end:
            if data[i] < 128:
                point, after = np.uint32(data[i]), i + 1
            else:
                point, after = character(data, i, end)
            entry = folds[point]
            if not entry & SPACE:
                if not inside:
                    begin, inside, found = line, True, 0
                blank, last = False, after
                word = (entry & WORD) != 0
                found += word and not wordy
                wordy = word
            else:
                wordy = False
                if point == NEWLINE:
                    if blank and inside:
                        ranges[count, 0], ranges[count, 1], words[count] = begin, last, found
                        count += 1
                        inside = False
                    blank, line = True, after
            i = after
        if inside:
            ranges[count, 0], ranges[count, 1], words[count] = begin, last, found
            count += 1
        counts[row] = count - before
    return counts


@numba.njit(cache=True, nogil=True)
def normalise_ranges(data, starts, ends, folds, more, out):
    """Write the normalised ranges one after the other; int64[n + 1], where each begins."""
    borders = np.zeros(starts.shape[0] + 1, np.int64)
    at = 0
    for k in range(starts.shape[0]):
        at = normalise(data, starts[k], ends[k], folds, more, out, at)
        borders[k + 1] = at
    return borders
