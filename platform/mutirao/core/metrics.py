"""What training measured: numbered segments `metrics/NNNNNN.jsonl` of a run, merged by readers.

Every attempt (a start, a resume, a restart after a fault) opens the next number and only appends to
it, so no attempt can spoil the rows of another. `read_metrics` merges them: for the same kind and
step the last attempt wins; a line torn by a kill is left out.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

FOLDER = "metrics"


def read_metrics(run_dir: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The rows of one kind in order of their step.

    kind "train": step, first_step, losses (one per step from first_step to step), tokens, loss
    (nats per token at `step`), grad_norm, lr, tokens_per_s, wall_s, skipped (steps left out by the
    guard so far), attempt. kind "heldout": step, loss (nats per token), tokens. kind "attempt":
    step (where it began), workers, engine, pid. kind "end": step, cpu_s of rank 0, wall_s. kind
    "checkpoint": step, stall_s. kind "event", by step and `what`: not-finite, spike, scaler or
    left-out (of a step: loss, grad_norm); compute-fault, memory-fault, rollback, stall (detail).
    A number that was not finite is None.
    """
    rows: dict[Any, dict[str, Any]] = {}
    for path in segments(run_dir):
        for row in _rows(path):
            if row.get("kind") == kind:
                key = (row["step"], path.name) if kind == "attempt" else row["step"]
                if kind == "event":
                    key = (row["step"], row["what"])
                rows[key] = row
    return [rows[key] for key in sorted(rows)]


def step_losses(run_dir: Path) -> dict[int, float | None]:
    """Training loss in nats per token for every step, whatever `log_every` was; None where it was
    not finite."""
    losses: dict[int, float | None] = {}
    for path in segments(run_dir):
        for row in _rows(path):
            if row.get("kind") == "train":
                losses.update(enumerate(row["losses"], start=row["first_step"]))
    return dict(sorted(losses.items()))


def finite(value: Any) -> Any:
    """The value with null for every number that is not finite: JSON knows none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def segments(run_dir: Path) -> list[Path]:
    return sorted((run_dir / FOLDER).glob("[0-9]*.jsonl"))


class MetricsWriter:
    """Appends rows to a segment of its own; each row is flushed whole."""

    def __init__(self, run_dir: Path):
        folder = run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.stem) for path in segments(run_dir)), default=-1)
        while True:
            try:
                path = folder / f"{number:06d}.jsonl"
                self._stream = open(path, "x", encoding="utf-8")  # noqa: SIM115
                break
            except FileExistsError:
                number += 1
        self.attempt = number

    def write(self, kind: str, row: dict[str, Any]) -> None:
        record = finite({"kind": kind, "attempt": self.attempt, **row})
        self._stream.write(json.dumps(record, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
