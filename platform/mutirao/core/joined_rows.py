"""Looks of the meter joined into longer rows: a ledger grows by one row per 10 s and device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mutirao.core.energy_rows import APPEND_S, EnergyRow, GapRow, Row, RunUse, UsageRow


class Joined:
    """Joins rows that follow one another into longer ones; hands on at most `APPEND_S` at once."""

    def __init__(self, append: Callable[[list[Row]], None]):
        self.append = append
        self.pending: dict[str, Row] = {}
        self.done: list[Row] = []

    def add(self, rows: list[Row]) -> None:
        for row in rows:
            name = "usage" if isinstance(row, UsageRow) else row.device
            last = self.pending.pop(name, None)
            both = _join(last, row) if last else None
            if last and not both:
                self.done.append(last)
            self.pending[name] = both or row
        usage = self.pending.get("usage")
        if usage and usage.t1 - usage.t0 >= APPEND_S:
            self.flush()

    def flush(self) -> None:
        self.append(self.done + list(self.pending.values()))
        self.done, self.pending = [], {}


def _join(a: Row, b: Row) -> Row | None:
    """One row for two that meet and differ in their amounts only, else None."""
    if a.t1 != b.t0:
        return None
    if isinstance(a, EnergyRow) and isinstance(b, EnergyRow):
        alike = replace(a, t0=b.t0, t1=b.t1, energy_j=b.energy_j) == b
        return replace(b, t0=a.t0, energy_j=a.energy_j + b.energy_j) if alike else None
    if isinstance(a, GapRow) and isinstance(b, GapRow):
        return replace(b, t0=a.t0) if a.reason == b.reason else None
    if isinstance(a, UsageRow) and isinstance(b, UsageRow):
        same = a.runs.keys() == b.runs.keys()
        same = same and all(a.runs[run].gpus == b.runs[run].gpus for run in a.runs)
        return _join_usage(a, b) if same else None
    return None


def _join_usage(a: UsageRow, b: UsageRow) -> UsageRow:
    share = (a.t1 - a.t0) / (b.t1 - a.t0)

    def mean(x: int, y: int) -> int:
        return round(x * share + y * (1 - share))

    runs = {
        run: RunUse(
            round(a.runs[run].cpu_s + use.cpu_s, 3),
            mean(a.runs[run].rss_bytes, use.rss_bytes),
            use.gpus,
        )
        for run, use in b.runs.items()
    }
    return replace(
        b,
        t0=a.t0,
        busy_cpu_s=a.busy_cpu_s + b.busy_cpu_s,
        used_bytes=mean(a.used_bytes, b.used_bytes),
        meter_cpu_s=a.meter_cpu_s + b.meter_cpu_s,
        runs=runs,
    )
