"""Stopping on purpose: Ctrl-C, SIGTERM, an energy budget, `mutirao runs stop`.

In the data stages a signal ends the work at once, since every unit of work is finished or will be
done again. The training stage takes the signals over: it finishes its step and writes a checkpoint.
Requests that are no signals come through `core.stop`'s file in the run's folder.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mutirao.core.energy import EnergyMeter
from mutirao.core.errors import Stopped
from mutirao.core.progress import Progress
from mutirao.core.stop import clear_stop, request_stop, stop_reason

BUDGET_EVERY_S = 5.0
BUDGET = "the energy budget is used up (energy.budget_kwh)"
CONTINUE = "Finished work is kept: run the same command again to continue."


class Stopping:
    """Context manager that owns the signal handlers of a run outside training."""

    def __init__(self, run_dir: Path, progress: Progress):
        self.run_dir = run_dir
        self.progress = progress
        self._handler: Any = signal.SIG_DFL
        self._ended = threading.Event()

    def __enter__(self) -> Stopping:
        clear_stop(self.run_dir)
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.getsignal(signal.SIGTERM)
        self.take_signals()
        return self

    def take_signals(self) -> None:
        """Call again after `ray.init`, which puts a handler of its own on SIGTERM (exit 15)."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _stop_now)

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    @contextmanager
    def stage(self) -> Iterator[None]:
        """A stage that Ctrl-C ended gracefully ends the run as Ctrl-C does."""
        try:
            yield
        except Stopped as stop:
            if stop.code == "interrupted":
                raise KeyboardInterrupt from stop
            raise

    def check(self) -> None:
        """Between stages: end here if somebody asked for it."""
        if reason := stop_reason(self.run_dir):
            clear_stop(self.run_dir)
            raise Stopped(f"Stopped: {reason}", hint=CONTINUE, code="stopped")

    def watch_budget(self, meter: EnergyMeter) -> None:
        """Every few seconds: warn at 80 % of the energy budget, ask to stop at 100 %."""

        def watch() -> None:
            warned = False
            while not self._ended.wait(BUDGET_EVERY_S):
                verdict = meter.check_budget()
                if verdict == "warn" and not warned:
                    warned = True
                    self.progress.say("  80 % of the energy budget is used")
                if verdict == "stop":
                    self.progress.say(f"  {BUDGET}: stopping")
                    request_stop(self.run_dir, BUDGET)
                    return

        threading.Thread(target=watch, daemon=True).start()


def _stop_now(number: int, frame: FrameType | None) -> None:
    raise Stopped("Stopped: SIGTERM", hint=CONTINUE, code="stopped")
