"""Progress on stderr: a bar on a terminal, otherwise a plain line every 30 seconds or 5 percent."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

EVERY_S = 30.0
EVERY_SHARE = 0.05


class Progress:
    """`say` prints a line; `start(total, label, unit)` opens a count that `advance` moves."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self._bar: tqdm | None = None
        self._total = self._done = 0
        self._label = self._unit = ""
        self._last_time = self._last_share = 0.0

    def say(self, line: str) -> None:
        if not self.quiet:
            if self._bar is not None:
                self._bar.clear()
            print(line, file=self.stream, flush=True)

    def start(self, total: int, label: str, unit: str = "units") -> None:
        self.finish()
        self._total, self._done, self._label, self._unit = total, 0, label, unit
        self._last_time, self._last_share = time.monotonic(), 0.0
        if not self.quiet and self.stream.isatty() and total > 1:
            self._bar = tqdm(
                total=total, desc=f"  {label}", unit=f" {unit}", file=self.stream, leave=False, ncols=79
            )

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now, share = time.monotonic(), self._done / max(self._total, 1)
        due = now - self._last_time >= EVERY_S or share - self._last_share >= EVERY_SHARE
        if due and now - self._last_time >= 2.0 and self._done < self._total:
            self._last_time, self._last_share = now, share
            tail = f", {note}" if note else ""
            self.say(f"  {self._label}: {self._done:,} of {self._total:,} {self._unit}{tail}")

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
