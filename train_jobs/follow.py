"""While training runs: progress out of the metrics segments, signals into the stop file."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutirao.core.errors import Stopped
from mutirao.core.job import StageJob
from mutirao.core.metrics import read_metrics
from mutirao.core.stop import clear_stop, request_stop, stop_reason


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


def advancing(job: StageJob, reached: int) -> Callable[[dict[str, Any]], None]:
    """Moves the progress to the step of a row; a restarted attempt does not move it back."""
    seen = reached

    def show(row: dict[str, Any]) -> None:
        nonlocal seen
        if row["step"] > seen:
            loss = "not finite" if row["loss"] is None else f"{row['loss']:.3f}"
            note = f"loss {loss}, {row['tokens_per_s']:,.0f} tokens/s"
            job.progress.advance(row["step"] - seen, note)
            seen = row["step"]

    return show


@contextlib.contextmanager
def following(job: StageJob, reached: int, every_s: float = 1.0) -> Iterator[None]:
    """While Ray Train blocks this thread, another reads the metrics segments for the progress."""
    done, show = threading.Event(), advancing(job, reached)

    def follow() -> None:
        while not done.wait(every_s):
            rows = read_metrics(job.run_dir)
            if rows:
                show(rows[-1])

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
