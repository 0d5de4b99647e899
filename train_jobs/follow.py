"""While training runs: progress out of the metrics segments, signals into the stop file."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutirao.core.amounts import J_PER_KWH
from mutirao.core.budget import Budget
from mutirao.core.errors import Stopped, UserError
from mutirao.core.job import StageJob
from mutirao.core.metrics import MetricsTail, Row
from mutirao.core.stop import clear_stop, request_stop, stop_reason
from train_jobs.exporters import Exporter, open_exporters
from train_jobs.step_line import Eta, attempt_line, event_line, profile_lines, step_line, step_note


def stopped(run_dir: Path, reached: int, steps: int) -> Stopped:
    reason = stop_reason(run_dir) or "the training loop ended early"
    clear_stop(run_dir)
    return Stopped(
        f"Training stopped at step {reached:,} of {steps:,}: {reason}",
        str(run_dir / "checkpoints"),
        "Run the same command again to continue from there.",
        "interrupted" if reason == "SIGINT" else "stopped",
    )


@contextlib.contextmanager
def stopping_on_signals(run_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C asks for finish-and-checkpoint; the second Ctrl-C acts now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and stop_reason(run_dir):
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        request_stop(run_dir, name)
        say(f"  {name}: finishing the step and writing a checkpoint (Ctrl-C again: stop now)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def following(
    job: StageJob, steps: int, reached: int, every_s: float = 1.0
) -> Iterator[Callable[..., None]]:
    """While training holds this thread, another reads what it measures: for the progress and for
    the exporters of the recipe. Yields a function that looks at once. Raises EnvironmentProblem
    where an exporter cannot be opened."""
    tail, done, lock = MetricsTail(job.run_dir), threading.Event(), threading.Lock()
    before = tail.new_rows()  # of earlier attempts: known to the exporters, no news to a person
    exporters = open_exporters(job.run_dir, job.recipe.train)
    shown: list[Exporter] = [Steps(job, steps, reached), *exporters]
    _show(exporters, before, shown, job)

    def look(row: Row | None = None) -> None:
        with lock:
            _show(shown, tail.new_rows(), shown, job)

    def follow() -> None:
        while not done.wait(every_s):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield look
    finally:
        done.set()
        thread.join()
        look()
        for one in shown:
            one.close()


def _show(some: list[Exporter], rows: list[Row], kept: list[Exporter], job: StageJob) -> None:
    """An exporter that fails (a full disk, say) is given up; training goes on."""
    for one in list(some) if rows else ():
        try:
            one.show(rows)
        except Exception as error:
            job.progress.say(f"  {one.name} is given up: {error}")
            kept.remove(one)


class Steps:
    """Lines on the terminal and in the run's log. What is done again moves no progress back."""

    name = "progress"

    def __init__(self, job: StageJob, steps: int, reached: int):
        self.progress, self.steps, self.seen = job.progress, steps, reached
        self.eta = Eta(steps)
        self.energy = Energy(job.run_dir)
        self.attempts = 0

    def show(self, rows: list[Row]) -> None:
        for row in rows:
            getattr(self, f"_{row['kind']}", lambda row: None)(row)

    def close(self) -> None:
        pass

    def _train(self, row: Row) -> None:
        self.eta.note(row)
        if row["step"] > self.seen:
            note = step_note(row, self.energy.joules(), self.eta.left_s())
            line = step_line(row, note, self.steps)
            self.progress.advance(row["step"] - self.seen, note, line)
            self.seen = row["step"]

    def _attempt(self, row: Row) -> None:
        self.eta.note(row)
        self.attempts += 1
        if self.attempts > 1:
            self.progress.say(attempt_line(row))

    def _event(self, row: Row) -> None:
        if line := event_line(row):
            self.progress.say(line)

    def _profile(self, row: Row) -> None:
        for line in profile_lines(row):
            self.progress.say(line)


class Energy:
    """Joules of the run so far, the data stages too: what the meter's rows say, which are at most
    ten seconds late. It reads only what the meter has appended since."""

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.budget: Budget | None = None
        self.lost = False

    def joules(self, every_s: float = 5.0) -> float:
        """0 where nothing is measured, or the ledger cannot be read."""
        try:
            if self.budget is None and not self.lost:
                workdir = self.run_dir.parent.parent
                # A budget without end: all it does is count.
                self.budget = Budget(workdir, self.run_dir, self.run_dir.name, math.inf)
            if self.budget:
                self.budget.state(every_s)
        except UserError:
            self.budget, self.lost = None, True
        return self.budget.used_kwh * J_PER_KWH if self.budget else 0.0
