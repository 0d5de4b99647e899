"""The skip list: positions of the run (sequences) that training leaves out after a rollback."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mutirao.core.files import read_json

NAME = "guard.json"
FORMAT = 1


class SkipList:
    """Half-open ranges of positions, sorted; from `runs/<id>/guard.json` where it exists."""

    def __init__(self, run_dir: Path | None = None):
        path = run_dir / NAME if run_dir else None
        record = read_json(path) if path and path.exists() else {"rollbacks": []}
        found = [tuple(r) for one in record["rollbacks"] for r in one["left_out"]]
        self.ranges: list[list[int]] = [list(pair) for pair in sorted(set(found))]

    def holds(self, position: np.ndarray) -> np.ndarray:
        """bool array: is the position on the list?"""
        found = np.zeros(np.shape(position), dtype=bool)
        for start, end in self.ranges:
            found |= (position >= start) & (position < end)
        return found
