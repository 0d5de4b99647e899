"""When which stage of a run was at work: marks in `runs/<id>/ledger/NNNNNNNN.jsonl`.

Each attempt of a run appends to its own numbered file: {attempt, begin, keep, end, attempt_end}.
A begin without an end is an attempt that was killed: the stage is closed at the last moment a meter
saw the run, and booked as wasted from its last `keep` on. `keep` says that the work so far will be
reused (a checkpoint, a finished part). A stage that never says so is booked as wasted as a whole,
though a restart may reuse some of it: the ledger would rather overstate waste than hide it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutirao.core.lease import boot_id, process_start
from mutirao.core.manifest import check_format

FORMAT = 1
USEFUL, WASTED, IDLE = "useful", "wasted", "idle"
OUTCOMES = (USEFUL, WASTED, IDLE)


@dataclass(frozen=True)
class Mark:
    """A stretch of one stage. Times are UTC seconds; cpu_s is the stage's own count, if any."""

    run: str
    stage: str
    t0: float
    t1: float
    outcome: str = USEFUL
    cpu_s: float | None = None


@dataclass
class Attempt:
    """One life of a run's driver."""

    run: str
    boot_id: str
    pid: int
    started: str  # of the process, as the kernel writes it: tells a reused pid
    country: str
    t0: float
    t1: float | None = None  # None: it has not said that it ended
    marks: dict[int, dict[str, Any]] = field(default_factory=dict)


class MarkWriter:
    """Appends the marks of one attempt; safe to use from several threads."""

    def __init__(self, run_dir: Path, run: str, country: str = ""):
        self.folder = run_dir / "ledger"
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.stem) for path in mark_files(run_dir)]
        self.path = self.folder / f"{max(numbers, default=-1) + 1:08d}.jsonl"
        self._stream = open(self.path, "ab")  # noqa: SIM115 - open as long as the attempt lives
        self._lock = threading.Lock()
        self._count = 0
        self.write(
            "attempt",
            run=run,
            boot_id=boot_id(),
            pid=os.getpid(),
            started=process_start(os.getpid()),
            country=country,
        )

    def write(self, kind: str, t: float | None = None, **values: Any) -> None:
        t = round(time.time() if t is None else t, 6)
        record = {"format": FORMAT, "kind": kind, "t": t, **values}
        line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()

    def begin(self, stage: str, outcome: str = USEFUL) -> int:
        with self._lock:
            self._count += 1
            mark = self._count
        self.write("begin", mark=mark, stage=stage, outcome=outcome)
        return mark

    def close(self) -> None:
        self.write("attempt_end")
        os.fsync(self._stream.fileno())
        self._stream.close()


def mark_files(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "ledger").glob("[0-9]" * 8 + ".jsonl"))


def read_attempts(run_dir: Path) -> list[Attempt]:
    """The attempts of a run in order of time; a torn last line is skipped."""
    attempts = [attempt for path in mark_files(run_dir) if (attempt := _read(path))]
    return sorted(attempts, key=lambda attempt: attempt.t0)


def _read(path: Path) -> Attempt | None:
    attempt: Attempt | None = None
    data = path.read_bytes()
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        record = json.loads(line)
        check_format(record, FORMAT, path)
        kind, t = record["kind"], record["t"]
        if kind == "attempt":
            names = ("run", "boot_id", "pid", "started", "country")
            attempt = Attempt(**{name: record[name] for name in names}, t0=t)
            continue
        assert attempt is not None, f"{path} does not begin with its attempt"
        if kind == "attempt_end":
            attempt.t1 = t
        elif kind == "begin":
            attempt.marks[record["mark"]] = {**record, "t0": t}
        else:  # keep, end
            attempt.marks[record["mark"]].update({kind: t, **_given(record)})
    return attempt


def _given(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("outcome", "cpu_s") if record.get(name) is not None}


def close_marks(
    attempts: list[Attempt], last_seen: Callable[[Attempt, float], float], alive: Callable
) -> tuple[list[Mark], list[tuple[float, float]]]:
    """Marks with an end and an outcome, and the window [t0, t1] of each attempt.

    last_seen(attempt, before): the end of the last machine row that names the run before a time.
    alive(attempt): whether its driver still runs; then open marks reach to now and are useful.
    """
    marks: list[Mark] = []
    windows: list[tuple[float, float]] = []
    nexts = [attempt.t0 for attempt in attempts[1:]] + [time.time()]
    for attempt, limit in zip(attempts, nexts, strict=True):
        running = attempt.t1 is None and alive(attempt)
        end = attempt.t1 or (limit if running else last_seen(attempt, limit))
        end = max(end, attempt.t0)
        windows.append((attempt.t0, end))
        for record in attempt.marks.values():
            marks += _closed(attempt.run, record, end, running)
    return marks, windows


def _closed(run: str, record: dict[str, Any], end: float, running: bool) -> list[Mark]:
    stage, t0 = record["stage"], record["t0"]
    t1 = max(record.get("end", end), t0)
    finished = "end" in record or running or record["outcome"] == IDLE
    outcome = record["outcome"] if finished else WASTED
    kept = min(record.get("keep", t0), t1)
    if outcome != WASTED or kept <= t0:
        return [Mark(run, stage, t0, t1, outcome, record.get("cpu_s"))]
    useful = Mark(run, stage, t0, kept, USEFUL)
    return [useful, Mark(run, stage, kept, t1, WASTED)] if kept < t1 else [useful]
