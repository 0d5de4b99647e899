"""Beside the loop: the flag that asks it to stop, and the log of what it measured."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutirao.core.metrics import MetricsWriter, finite
from mutirao.core.stop import stop_reason
from train_jobs import ranks
from train_jobs.schedule import total_sequences

if TYPE_CHECKING:
    from train_jobs.engine import Outcome
    from train_jobs.guard import Guard
    from train_jobs.loop import Plan

Report = Callable[[dict[str, Any]], None]


class StopFlag:
    """SIGTERM to this process, or the stop file in the run's folder (rank 0 looks once a step)."""

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.asked = False
        self._signalled = False
        self._before: Any = None
        alone = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # else `launch` writes the file
        if alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)

    def look(self) -> bool:
        return self._signalled or (ranks.rank() == 0 and bool(stop_reason(self.run_dir)))

    def close(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signalled = True


class Log:
    """Rank 0 writes rows into a metrics segment of its own and hands them to `report`."""

    def __init__(self, plan: Plan, step: int, report: Report):
        self.train = plan.recipe.train
        self.context = plan.shape.context
        self.total = total_sequences(self.train, self.context)
        self.report = report
        self.writer = MetricsWriter(plan.run_dir) if ranks.rank() == 0 else None
        self.losses: list[float] = []
        self.first_step = step + 1
        self.row: dict[str, Any] = {}
        self.started = self.since = time.monotonic()
        self.tokens_since = self._tokens(step)
        engine = f"{self.train.engine} stage {self.train.zero_stage}"
        start = {"step": step, "workers": ranks.world(), "engine": engine, "pid": os.getpid()}
        self._write("attempt", start)

    def step(self, step: int, loss: float, outcome: Outcome, rate: float, guard: Guard) -> None:
        self.losses.append(loss)
        self.row = {
            "step": step,
            "loss": loss,
            "grad_norm": outcome.grad_norm,
            "lr": rate,
            "skipped": guard.skipped,
        }
        if outcome.verdict:
            seen = {"loss": loss, "grad_norm": outcome.grad_norm}
            self.event(step, outcome.verdict, **seen)

    def flush(self) -> None:
        step, now = self.row["step"], time.monotonic()
        tokens = self._tokens(step)
        timing = {
            "tokens": tokens,
            "tokens_per_s": (tokens - self.tokens_since) / max(1e-9, now - self.since),
            "wall_s": now - self.started,
        }
        row = {**self.row, **timing, "first_step": self.first_step, "losses": self.losses}
        self._write("train", row)
        self.losses, self.first_step = [], step + 1
        self.since, self.tokens_since = now, tokens
        self.report(finite(row))

    def heldout(self, step: int, streams: list[dict[str, Any]]) -> None:
        tokens = sum(one["tokens"] for one in streams)
        loss = sum(one["loss"] * one["tokens"] for one in streams) / max(1, tokens)
        self._write("heldout", {"step": step, "loss": loss, "tokens": tokens, "streams": streams})

    def saving(self, step: int, stall_s: float) -> None:
        self._write("checkpoint", {"step": step, "stall_s": stall_s})

    def event(self, step: int, what: str, **about: Any) -> None:
        """what: not-finite, spike, scaler, left-out, rollback, ...; see `read_metrics`."""
        self._write("event", {"step": step, "what": what, **about})

    def close(self) -> None:
        if self.writer:
            used = {"cpu_s": time.process_time(), "wall_s": time.monotonic() - self.started}
            self._write("end", {"step": self.first_step - 1, **used})
            self.writer.close()

    def _write(self, kind: str, row: dict[str, Any]) -> None:
        if self.writer:
            self.writer.write(kind, row)

    def _tokens(self, step: int) -> int:
        return min(step * self.train.global_batch, self.total) * self.context
