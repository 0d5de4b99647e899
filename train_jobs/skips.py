"""The skip list: positions of the run (sequences) that training leaves out after a rollback; and
what the guard did in a run.

In: `runs/<id>/guard.json`, which every rollback extends, and the newest checkpoint, which holds the
list too. Out: the list, and the counts for the result. Knows no torch.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from mutirao.core.errors import UserError
from mutirao.core.files import read_json
from mutirao.core.manifest import check_format
from mutirao.core.run_steps import checkpoint_folder, kept_steps

NAME = "guard.json"
FORMAT = 1


class SkipList:
    """Half-open ranges of positions, sorted and apart. They come from guard.json and from the
    newest checkpoint, so the loss of either file loses none."""

    def __init__(self, run_dir: Path | None = None):
        found: list[list[int]] = []
        if run_dir:
            found = [r for one in rollbacks(run_dir) for r in one["left_out"]]
            found += newest_state(run_dir).get("cursor", {}).get("skips", [])
        self.ranges = joined(found)

    def holds(self, position: np.ndarray) -> np.ndarray:
        """bool array: is the position on the list?"""
        found = np.zeros(np.shape(position), dtype=bool)
        for start, end in self.ranges:
            found |= (position >= start) & (position < end)
        return found

    def count(self) -> int:
        return sum(end - start for start, end in self.ranges)


def joined(ranges: list[list[int]]) -> list[list[int]]:
    """The same positions as sorted ranges that neither touch nor overlap."""
    found: list[list[int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        elif start < end:
            found.append([start, end])
    return found


def rollbacks(run_dir: Path) -> list[dict[str, Any]]:
    """The rollbacks of a run, oldest first: cause, step (where it was met), detail, left_out."""
    path = run_dir / NAME
    if not path.exists():
        return []
    record = read_json(path)
    check_format(record, FORMAT, path)
    return record["rollbacks"]


def newest_state(run_dir: Path) -> dict[str, Any]:
    """What the newest committed checkpoint whose manifest can be read tells about the run (its
    files are not looked at), or {}."""
    for step in reversed(kept_steps(run_dir)):
        with contextlib.suppress(UserError, TypeError, KeyError):
            return read_json(checkpoint_folder(run_dir, step) / "manifest.json")["state"]
    return {}


def guard_summary(run_dir: Path) -> tuple[dict[str, int], dict[str, int]]:
    """(what belongs to the result, what the machine did to the run).

    The first: skipped_steps (updates left out on the way to the newest checkpoint), rollbacks (for
    bad steps), sequences_left_out. The second: compute_faults and memory_faults, each a rollback
    that leads to the same weights, so it must not be part of a result's content.
    """
    causes = [one["cause"] for one in rollbacks(run_dir)]
    content = {
        "skipped_steps": newest_state(run_dir).get("guard", {}).get("skipped", 0),
        "rollbacks": causes.count("bad-steps"),
        "sequences_left_out": SkipList(run_dir).count(),
    }
    machine = {
        "compute_faults": causes.count("compute-fault"),
        "memory_faults": causes.count("memory-fault"),
    }
    return content, machine
