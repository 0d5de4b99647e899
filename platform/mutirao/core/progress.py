"""Progress on stderr: a bar on a terminal, otherwise a plain line every 30 seconds or 5 percent.

What is said also goes, with its time, into the run's log while one is open.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

EVERY_S = 30.0
EVERY_SHARE = 0.05
AT_MOST_EVERY_S = 10.0  # short work needs no lines


class Progress:
    """`say` prints a line; `start(total, label, unit)` opens a count that `advance` moves."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self._bar: tqdm | None = None
        self._total = self._done = 0
        self._label = self._unit = ""
        self._last_time = self._last_share = 0.0
        self._log: TextIO | None = None

    def say(self, line: str) -> None:
        self.log(line)
        self._print(line)

    def log(self, text: str) -> None:
        """Write to the run's log only."""
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            self._log.write("".join(f"{stamp} {line}\n" for line in text.splitlines()))
            self._log.flush()

    @contextmanager
    def logged(self, directory: Path) -> Iterator[None]:
        """Keep a log of this attempt in `directory/NNNN.log`."""
        directory.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(p.stem) for p in directory.glob("[0-9]*.log")), default=0)
        with open(directory / f"{number:04d}.log", "a", encoding="utf-8") as self._log:
            try:
                yield
            finally:
                self.finish()
                self._log = None

    def start(self, total: int, label: str, unit: str = "units") -> None:
        self.finish()
        self._total, self._done, self._label, self._unit = total, 0, label, unit
        self._last_time, self._last_share = time.monotonic(), 0.0
        if not self.quiet and self.stream.isatty() and total > 1:
            self._bar = tqdm(
                total=total,
                desc=f"  {label}",
                unit=f" {unit}",
                file=self.stream,
                leave=False,
                ncols=79,
            )

    def advance(self, count: int = 1, note: str = "", line: str = "") -> None:
        """note: behind the count. line: stands for the whole of it where a plain line is due, and
        goes into the run's log each time."""
        self._done += count
        if line:
            self.log(line)
        if self._bar is not None:
            if line:  # the note says what is left; the bar needs the room
                self._bar.bar_format = "{l_bar}{bar}| {n_fmt}{postfix}"
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now, share = time.monotonic(), self._done / max(self._total, 1)
        due = now - self._last_time >= EVERY_S or share - self._last_share >= EVERY_SHARE
        if due and now - self._last_time >= AT_MOST_EVERY_S and self._done < self._total:
            self._last_time, self._last_share = now, share
            tail = f", {note}" if note else ""
            text = f"  {self._label}: {self._done:,} of {self._total:,} {self._unit}{tail}"
            self._print(line) if line else self.say(text)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, line: str) -> None:
        if not self.quiet:
            if self._bar is not None:
                self._bar.clear()
            print(line, file=self.stream, flush=True)
