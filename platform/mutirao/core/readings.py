"""What a probe of energy hands over: joules of a device for an interval, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

LIMIT_W = {"cpu": 3000.0, "ram": 2000.0, "gpu": 3000.0}  # no machine of today draws more


@dataclass(frozen=True)
class Reading:
    device: str
    t0: float
    t1: float
    energy_j: float | None  # None: unknown, see reason
    method: str = ""
    measured: bool = False
    tool: str = ""
    reason: str = ""


class Probe(Protocol):
    warnings: list[str]

    def read(self, now: float) -> list[Reading]: ...

    def unfinished(self, now: float) -> list[Reading]:
        """At the end: the time that a probe still owed a value for, as gaps."""
