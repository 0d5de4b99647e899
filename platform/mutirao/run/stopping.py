"""Stopping on purpose: Ctrl-C, SIGTERM, an energy budget, `mutirao runs stop`.

While training, the first signal asks through `core.stop`'s file in the run's folder; the loop
finishes its step, writes a checkpoint and ends with Stopped. In the data stages the signal ends the
work at once, since every unit of work is finished or done again. A second Ctrl-C ends at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mutirao.core.errors import Stopped
from mutirao.core.progress import Progress
from mutirao.core.stop import clear_stop, request_stop, stop_reason


class Stopping:
    """Context manager that owns the signal handlers of a run."""

    def __init__(self, run_dir: Path, progress: Progress):
        self.run_dir = run_dir
        self.progress = progress
        self.interrupted = False
        self._graceful = False
        self._handlers: dict[int, Any] = {}
        self._done = threading.Event()

    def __enter__(self) -> Stopping:
        clear_stop(self.run_dir)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """In training a stop is graceful: Stopped from the loop becomes Ctrl-C's own ending if
        that was its cause."""
        self._graceful = name == "train"
        try:
            yield
        except Stopped:
            if self.interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            self._graceful = False

    def check(self) -> None:
        """Between stages: end here if somebody asked for it."""
        if self.interrupted:
            raise KeyboardInterrupt
        if reason := stop_reason(self.run_dir):
            raise Stopped(reason, code="stopped")

    def ask(self, reason: str) -> None:
        request_stop(self.run_dir, reason)

    def watch_budget(self, meter: Any) -> None:
        """Every few seconds: warn at 80 % of the energy budget, ask to stop at 100 %."""

        def watch() -> None:
            warned = False
            while not self._done.wait(5.0):
                verdict = meter.check_budget()
                if verdict == "warn" and not warned:
                    warned = True
                    self.progress.say("  80 % of the energy budget is used")
                if verdict == "stop":
                    self.progress.say("  the energy budget is used up: stopping")
                    self.ask("The energy budget is used up")
                    return

        threading.Thread(target=watch, daemon=True).start()

    def _on_signal(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = self.interrupted or number == signal.SIGINT
        word = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        if self._graceful:
            self.ask(word)
            os.write(2, f"\n{word}: finishing the step and writing a checkpoint\n".encode())
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped("SIGTERM", code="stopped")
