"""Which texts of a batch need any cleaning at all: one automaton over the UTF-8 of the whole batch.

In: texts and the signs (regular expressions) of the steps that are switched on. Out: a flag a text.
All signs become one RE2 expression, whose cost hardly grows with their number (36 MB: 0.07 CPU-s
for one, 0.13 for twenty-five; building it costs 8 ms a batch); a numba pass finds lines that
return. A flag promises nothing: each step looks again. Signs keep to what RE2 and Python's `re`
read alike: no look-around, no \\d, no \\w.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.kernels import numba
from data_jobs.words import FNV

MAX_LINE = 400  # bytes; a longer line is a paragraph, no line that returns on each page
LINE_BYTES, LINE_TIMES = 10, 4  # a line of so many bytes that stands so often is looked at
MAX_LINES = 4096  # of one text are counted; later ones are not needed to raise the flag
NEWLINE, BLANK, ZERO, NINE = 0x0A, 0x20, 0x30, 0x39


ALWAYS = ""  # the sign of a step that looks itself, in each text that needs any step
LINES = "returning lines"  # the sign of a step for texts in which lines return


class Signs:
    """`steps`: the sign of each step: an expression, ALWAYS or LINES."""

    def __init__(self, steps: Sequence[str]):
        self.steps = steps
        self.pattern = "|".join(sign for sign in steps if sign not in (ALWAYS, LINES))

    def need(self, texts: Sequence[str]) -> np.ndarray:
        """bool[texts, steps]: where a step may have work.

        A text with lone surrogates, or blank at an end, gets at least the steps of ALWAYS.
        """
        encoded = [_encoded(text) for text in texts]
        column, data, offsets = _column(encoded)
        found = np.zeros((len(texts), len(self.steps)), bool)
        if LINES in self.steps:
            found[:, self.steps.index(LINES)] = returning_lines(data, offsets)
        rows = np.flatnonzero(_matches(column, self.pattern))
        if len(rows):  # Python's `re` needs ten times as long to tell which
            narrow = column.take(pa.array(rows))
            for place, sign in enumerate(self.steps):
                if sign not in (ALWAYS, LINES):
                    found[rows, place] = _matches(narrow, sign)
        pairs = zip(encoded, texts, strict=True)
        ends = (not raw or text[0].isspace() or text[-1].isspace() for raw, text in pairs)
        needs = np.fromiter(ends, bool, len(texts)) | found.any(axis=1)
        for place, sign in enumerate(self.steps):
            if sign == ALWAYS:
                found[:, place] = needs
        return found


def _matches(column: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates: empty, which raises the flag
        return b""


def _column(encoded: list[bytes]) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Arrow large_string, its bytes and offsets; pa.array(list of str) takes four times as long."""
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(raw) for raw in encoded], out=offsets[1:])
    joined = b"".join(encoded)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(joined)]
    column = pa.LargeStringArray.from_buffers(len(encoded), buffers[1], buffers[2])
    return column, np.frombuffer(joined, np.uint8), offsets


@numba.njit(cache=True, nogil=True)
def returning_lines(data, offsets):
    """bool[texts]: a line of LINE_BYTES, blanks and digits apart, stands LINE_TIMES or more."""
    rows = offsets.shape[0] - 1
    out = np.zeros(rows, np.bool_)
    keys, times = np.zeros(2 * MAX_LINES, np.uint64), np.zeros(2 * MAX_LINES, np.uint8)
    owner = np.full(2 * MAX_LINES, -1, np.int64)  # the text an entry is of: nothing to clear
    for row in range(rows):
        used, length = 0, 0
        h = np.uint64(0)
        i, start, end = offsets[row], offsets[row], offsets[row + 1]
        while i <= end:
            c = data[i] if i < end else np.uint8(NEWLINE)
            i += 1
            if c != NEWLINE:
                if c > BLANK and (c < ZERO or c > NINE):
                    h = (h ^ np.uint64(c)) * FNV
                    length += 1
                if i - start > MAX_LINE:
                    while i < end and data[i] != NEWLINE:
                        i += 1
                    length = 0
                continue
            start = i
            if length >= LINE_BYTES:
                place = _place(keys, owner, row, h)
                if owner[place] != row:
                    owner[place], keys[place], times[place] = row, h, np.uint8(0)
                    used += 1
                times[place] += np.uint8(1)
                if times[place] >= LINE_TIMES:
                    out[row] = True
                    break
                if used == MAX_LINES:
                    break
            h, length = np.uint64(0), 0
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def _place(keys, owner, row, key):
    """Open addressing with linear steps; an entry of another text is a free place."""
    mask = np.uint64(keys.shape[0] - 1)
    place = (key ^ (key >> np.uint64(32))) & mask
    while owner[place] == row and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    return place
