"""A sign of life of every rank, so one that stands still is named and none waits for ever."""

from __future__ import annotations

from pathlib import Path


class Heartbeat:
    """`at` is called by the loop; a thread beside it watches this rank and the others."""

    def __init__(self, run_dir: Path, stall_s: float):
        self.run_dir, self.stall_s = run_dir, stall_s
        self.place = (0, "starting")

    def at(self, step: int, what: str) -> None:
        self.place = (step, what)

    def close(self) -> None:
        pass
