"""What training measured: numbered segments `metrics/NNNNNN.jsonl` of a run, merged by readers.

Every attempt (a start, a resume, a restart after a fault, a rollback) opens the next number and
only appends to it, so no attempt can spoil the rows of another. Readers merge them: an attempt
undoes the rows of the steps after the one where it began, and for the same kind and step the last
row wins; a line torn by a kill is left out. So a run that was stopped or went back reads like one
that went straight, except for its events, which stay.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutirao.core.manifest import check_format

FORMAT = 1  # in the rows of kind attempt; a segment of an earlier version has none
FOLDER = "metrics"
KEPT = ("attempt", "end", "event")  # kinds that no later attempt undoes
Row = dict[str, Any]


def read_metrics(run_dir: Path, kind: str = "train") -> list[Row]:
    """The rows of one kind in order of their step; each has kind, attempt, step and utc_s.

    kind "train": first_step, losses (one per step from first_step to step), tokens (of the run, up
    to here), loss (nats per token at `step`), grad_norm (before clipping), lr, skipped (steps left
    out by the guard so far); of the steps since the row before: tokens_per_s, mfu (6 N + 12 L h s
    FLOPs a token), mfu_matrices (without input embedding and attention; both None for an unknown
    card), data_s (waiting for the loader, on rank 0, within the time of the steps), beside_s
    (held-out losses, samples, standstill for checkpoints, not within it); wall_s since the attempt
    began.
    kind "heldout": loss (nats per token), tokens (that were looked at), streams [{name, loss,
    bits_per_byte, tokens, of_tokens (held out)}].
    kind "checkpoint": stall_s (the training stood still) and what the saver adds when it is whole.
    kind "sample": texts [{prompt, continuation}]. kind "profile": file, wall_s, top [[operation,
    calls, seconds]].
    kind "event", by step and `what`: not-finite, spike, scaler or left-out (of a step: loss,
    grad_norm); compute-fault, memory-fault, rollback, stall (detail).
    kind "attempt": step where it began, tokens until there, workers, engine, device ('': CPU), pid.
    kind "end": cpu_s of rank 0, wall_s.
    A number that was not finite is None.
    """
    rows: dict[Any, Row] = {}
    for row in all_rows(run_dir):
        if row["kind"] == "attempt" and kind not in KEPT:
            rows = {key: one for key, one in rows.items() if one["step"] <= row["step"]}
        if row["kind"] == kind:
            # The saver tells the rest of a checkpoint in a second row.
            more = rows.get(_key(row), {}) if kind == "checkpoint" else {}
            rows[_key(row)] = {**more, **row}
    return [rows[key] for key in sorted(rows)]


def step_losses(run_dir: Path) -> dict[int, float | None]:
    """Training loss in nats per token for every step, whatever `log_every` was; None where it was
    not finite."""
    losses: dict[int, float | None] = {}
    for row in all_rows(run_dir):
        if row["kind"] == "attempt":
            losses = {step: loss for step, loss in losses.items() if step <= row["step"]}
        if row["kind"] == "train":
            losses.update(enumerate(row["losses"], start=row["first_step"]))
    return dict(sorted(losses.items()))


def all_rows(run_dir: Path) -> Iterator[Row]:
    """As they were written, attempt after attempt. Raises UserError for a newer format."""
    for path in segments(run_dir):
        yield from _rows(path, path.read_bytes())


class MetricsTail:
    """The rows that came since the last look; every byte is read once."""

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.offsets: dict[Path, int] = {}

    def new_rows(self) -> list[Row]:
        found: list[Row] = []
        for path in segments(self.run_dir):
            offset = self.offsets.get(path, 0)
            with open(path, "rb") as stream:
                stream.seek(offset)
                data = stream.read()
            whole = data[: data.rfind(b"\n") + 1]
            self.offsets[path] = offset + len(whole)
            found += _rows(path, whole)
        return found


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

    def write(self, kind: str, row: Row) -> None:
        head: Row = {"kind": kind, "attempt": self.attempt, "utc_s": round(time.time(), 3)}
        if kind == "attempt":
            head["format"] = FORMAT
        self._stream.write(json.dumps(finite({**head, **row}), allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _key(row: Row) -> Any:
    if row["kind"] == "attempt":
        return row["step"], row["attempt"]
    return (row["step"], row["what"]) if row["kind"] == "event" else row["step"]


def _rows(path: Path, data: bytes) -> list[Row]:
    rows = []
    for line in data.decode("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "kind" in row and "step" in row:
            if "format" in row:
                check_format(row, FORMAT, path)
            rows.append(row)
    return rows
