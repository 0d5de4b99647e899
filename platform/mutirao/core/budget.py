"""How much of its energy budget a run has used: earlier attempts, plus what the meter appends."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from mutirao.core.attribution import MICRO, attribute
from mutirao.core.energy_rows import (
    J_PER_KWH,
    EnergyRow,
    UsageRow,
    merge_usage,
    read_segment,
    segments,
)
from mutirao.core.energy_totals import totals

OK, WARN, STOP = "ok", "warn", "stop"
WARN_SHARE = 0.8
RECENT = 200  # usage rows kept: an energy row may reach back before its segment's last rows


class Budget:
    """budget_kwh None: there is none, and nothing is read."""

    def __init__(self, workdir: Path, run_dir: Path, run: str, budget_kwh: float | None):
        self.folder, self.run, self.budget_kwh = workdir / "ledger", run, budget_kwh
        self.offsets: dict[Path, int] = {}
        self.recent: deque[UsageRow] = deque(maxlen=RECENT)
        self.used_uj = 0
        self.checked = float("-inf")
        if budget_kwh is not None:
            self._skip_to_now()
            earlier = totals(run_dir, workdir)
            self.used_uj = round(earlier.get("energy_j", 0.0) * MICRO)

    @property
    def used_kwh(self) -> float:
        return self.used_uj / MICRO / J_PER_KWH

    def says(self) -> str:
        return f"{self.used_kwh:.6g} of {self.budget_kwh:.6g} kWh"

    def state(self, every_s: float = 0.0) -> str:
        """'ok', 'warn' or 'stop'; new rows are read when the last look is `every_s` ago."""
        if self.budget_kwh is None:
            return OK
        if time.monotonic() - self.checked >= every_s:
            self.checked = time.monotonic()
            self._read_new()
        share = self.used_kwh / self.budget_kwh if self.budget_kwh > 0 else float("inf")
        return STOP if share >= 1 else WARN if share >= WARN_SHARE else OK

    def _read_new(self) -> None:
        energy: list[EnergyRow] = []
        for path in self._segments():
            rows, self.offsets[path] = read_segment(path, self.offsets.get(path, 0))
            energy += [row for row in rows if isinstance(row, EnergyRow)]
            self.recent += [row for row in rows if isinstance(row, UsageRow)]
        for part in attribute(energy, merge_usage(self.recent), []):
            if part.run == self.run:
                self.used_uj += part.energy_uj

    def _segments(self) -> list[Path]:
        return [path for folder in sorted(self.folder.glob("*/")) for path in segments(folder)]

    def _skip_to_now(self) -> None:
        for path in self._segments():
            _, self.offsets[path] = read_segment(path)
