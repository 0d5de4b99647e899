"""What the readers of token files share: blocks of ids, their check, errors that name the place.

A reader has `pieces(file, budget)`, the units of work of a file (JSON-able dicts, about `budget`
ids each), and `blocks(piece)`, the ids of one piece and then those behind it: a text that begins in
a piece may end in a later one. Memory: one block (BLOCK_IDS ids as the file has them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutirao.core.errors import DataError

BLOCK_IDS = 1 << 22
LONGEST = 1 << 28  # ids of one text


@dataclass(frozen=True)
class Block:
    """ids: integers of any width; row i (or document) is ids[offsets[i] : offsets[i + 1]], the
    offsets beginning with 0. first: number of the first row in the file; of a flat file, which has
    one row, that of the first id. inside: of the piece itself, not of what lies behind it."""

    ids: np.ndarray
    offsets: np.ndarray
    first: int
    inside: bool = True
    unit: str = "row"  # row | document | id

    def place(self, index: int) -> str:
        """Where ids[index] stands in the file."""
        if self.unit == "id":
            return f"id number {self.first + index:,}"
        row = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return f"{self.unit} {self.first + row:,}, position {index - int(self.offsets[row]):,}"


class IdCheck:
    """Are all ids of a piece those of the tokenizer? The first that is not is kept."""

    def __init__(self, path: str, vocab_size: int):
        self.path, self.vocab_size = path, vocab_size
        self._count, self._first, self._where = 0, 0, ""

    def look(self, block: Block) -> None:
        if not len(block.ids):
            return
        if int(block.ids.min()) >= 0 and int(block.ids.max()) < self.vocab_size:
            return
        wrong = np.flatnonzero((block.ids < 0) | (block.ids >= self.vocab_size))
        if not self._count:
            self._first, self._where = int(block.ids[wrong[0]]), block.place(int(wrong[0]))
        self._count += len(wrong)

    def done(self) -> None:
        """Raises DataError that names the first wrong id, its place, and how many there are."""
        if self._count:
            more = f"; {self._count:,} such ids in this part of the file" if self._count > 1 else ""
            raise DataError(
                f"The id {self._first} is none of the tokenizer's {self.vocab_size:,}{more}",
                f"{self.path}, {self._where}",
                "Name the tokenizer that made these ids in tokenizer.path.",
                "bad-id",
            )


def whole_numbers(dtype: Any, path: str) -> None:
    """Raises DataError unless the ids are integers."""
    if np.dtype(dtype).kind not in "iu":
        raise DataError(
            f"The ids are of type {np.dtype(dtype)}, not integers",
            path,
            "Give the ids of the tokens, as integers.",
            "bad-ids",
        )


def no_ids(path: str) -> DataError:
    return DataError("There are no ids in the file", path, "Leave it out.", "empty-file")


def damaged(path: str, what: object) -> DataError:
    return DataError(f"The file is damaged: {what}", path, "Copy it again.", "damaged")


def spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, end) of consecutive stretches of `size` that cover range(total)."""
    for first in range(0, total, max(1, size)):
        yield first, min(total, first + max(1, size))
