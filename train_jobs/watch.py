"""Beside the loop: the flag that asks it to stop, and the log of what it measured."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mutirao.core.metrics import MetricsWriter, finite
from mutirao.core.model_size import mfu_by_convention, peak_flops
from mutirao.core.stop import stop_reason
from train_jobs import ranks
from train_jobs.engine import agreed_precision
from train_jobs.heldout import heldout_mean
from train_jobs.schedule import total_sequences

if TYPE_CHECKING:
    from train_jobs.engine import Outcome
    from train_jobs.guard import Guard
    from train_jobs.loop import Plan

Report = Callable[[dict[str, Any]], None]
# data_s: waiting for the loader; beside_s: held-out losses, samples, standstill for checkpoints
SPENT = ("data_s", "beside_s")


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
    """Rank 0 writes rows into a metrics segment of its own and hands those of steps to `report`.

    What each kind of row holds: `mutirao.core.metrics.read_metrics`."""

    def __init__(self, plan: Plan, step: int, report: Report):
        self.plan, self.train = plan, plan.recipe.train
        self.context = plan.shape.context
        self.total = total_sequences(self.train, self.context)
        self.report = report
        self.writer = MetricsWriter(plan.run_dir) if ranks.rank() == 0 else None
        self.losses: list[float] = []
        self.first_step = step + 1
        self.row: dict[str, Any] = {"step": step}
        self.started = self.since = time.monotonic()
        self.spent = dict.fromkeys(SPENT, 0.0)  # seconds since the last flush
        self.tokens_since = self._tokens(step)
        self.card = card_name()
        self.peak = peak(plan, self.card)
        deepspeed = self.train.engine == "deepspeed"
        engine = f"deepspeed stage {self.train.zero_stage}" if deepspeed else "torch"
        start = {"step": step, "workers": ranks.world(), "engine": engine, "pid": os.getpid()}
        self._write("attempt", {**start, "device": self.card, "tokens": self.tokens_since})

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

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """what: one of SPENT; on this rank."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[what] += time.monotonic() - began

    def flush(self) -> None:
        """Write what the steps since the last flush gave; nothing, where there was none."""
        if not self.losses:
            return
        step, now = self.row["step"], time.monotonic()
        tokens = self._tokens(step)
        on_steps_s = max(1e-9, now - self.since - self.spent["beside_s"])
        rate = (tokens - self.tokens_since) / on_steps_s
        row = {
            **self.row,
            "tokens": tokens,
            "tokens_per_s": rate,
            **self._mfu(rate),
            **self.spent,
            "wall_s": now - self.started,
            "first_step": self.first_step,
            "losses": self.losses,
        }
        self._write("train", row)
        self.losses, self.first_step = [], step + 1
        self.since, self.tokens_since = now, tokens
        self.spent = dict.fromkeys(SPENT, 0.0)
        self.report(finite(row))

    def _mfu(self, tokens_per_s: float) -> dict[str, float | None]:
        found = mfu_by_convention(tokens_per_s, self.plan.shape, self.peak)
        return {"mfu": found["with_attention"], "mfu_matrices": found["matrices"]}

    def heldout(self, step: int, streams: list[dict[str, Any]]) -> None:
        if streams:  # else no answer is held out, and only answers count
            self._write("heldout", {"step": step, **heldout_mean(streams), "streams": streams})

    def saving(self, step: int, stall_s: float, **about: Any) -> None:
        """about: what the saver knows by then; more can come in a second row of the step."""
        self.spent["beside_s"] += stall_s
        self._write("checkpoint", {"step": step, "stall_s": stall_s, **about})

    def note(self, kind: str, step: int, **about: Any) -> None:
        """A row of a kind of its own: sample, profile."""
        self._write(kind, {"step": step, **about})

    def event(self, step: int, what: str, **about: Any) -> None:
        """what: not-finite, spike, scaler, left-out, rollback, ...; see `read_metrics`."""
        self._write("event", {"step": step, "what": what, **about})

    def close(self) -> None:
        """The steps since the last flush are written too: how it came to an error is in them."""
        if self.writer:
            self.flush()
            used = {"cpu_s": time.process_time(), "wall_s": time.monotonic() - self.started}
            self._write("end", {"step": self.first_step - 1, **used})
            self.writer.close()

    def _write(self, kind: str, row: dict[str, Any]) -> None:
        if self.writer:
            self.writer.write(kind, row)

    def _tokens(self, step: int) -> int:
        return min(step * self.train.global_batch, self.total) * self.context


def card_name() -> str:
    """Of this rank's GPU, '' without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def peak(plan: Plan, card: str) -> float | None:
    """Dense FLOPS of all workers, which have the card of rank 0; None for one that is not known,
    and for a CPU."""
    one = peak_flops(card, agreed_precision(plan.recipe.train)) if card else None
    return one * ranks.world() if one else None
