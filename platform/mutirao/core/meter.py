"""The measuring process: one per machine and workdir, whatever runs there.

`python -m mutirao.core.meter --workdir W ...` is started by `energy.EnergyMeter`. It waits
for the lock `<workdir>/ledger/<boot_id>/meter.lock`; while another run's meter holds it, it does
nothing, and when that one ends (or is killed) it takes over. It measures until its parent is gone
or says SIGTERM. In: the runs registered in `runs/*.json` beside the lock. Out: rows of the ledger.

It looks every `interval` seconds and at once when a run begins or ends a stage (it sees the file of
marks grow, within `TICK_S`), so intervals meet stage borders. Looks between two borders are joined
into one row of at most `APPEND_S`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mutirao.core import processes
from mutirao.core.attribution import METER
from mutirao.core.energy_rows import EnergyRow, GapRow, Row, RunUse, SegmentWriter, UsageRow
from mutirao.core.joined_rows import Joined
from mutirao.core.lease import boot_id, process_start
from mutirao.core.probes import Nvml, Probe, Reading, choose

TICK_S = 0.1
CLOCK_JUMP_S = 1.0


def main() -> None:
    options = _options()
    stop = StopSignal(options.parent)
    folder = Path(options.workdir) / "ledger" / boot_id()
    with open(_made(folder) / "meter.lock", "a+") as lock:
        if not _elected(lock, stop):
            return
        lock.truncate(0)
        lock.write(f"{os.getpid()} {process_start(os.getpid())}\n")
        lock.flush()
        meter = Meter(folder, options.meter, options.country, options.cpu_watts)
        meter.run(options.interval, stop)
        os._exit(0)  # codecarbon's threads would hold up a plain end of the interpreter


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutirao.core.meter")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--parent", type=int, required=True, help="ends with this process")
    parser.add_argument("--meter", default="auto")
    parser.add_argument("--country", default="BRA")
    parser.add_argument("--cpu-watts", type=float)
    parser.add_argument("--interval", type=float, default=1.0)
    return parser.parse_args()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class StopSignal:
    """True after SIGTERM or when the parent has gone (its death makes us a child of another)."""

    def __init__(self, parent: int):
        self.parent, self.asked = parent, False
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends us
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked or os.getppid() != self.parent


def _elected(lock: IO[str], stop: StopSignal) -> bool:
    while not stop:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(2 * TICK_S)
    return False


@dataclass(frozen=True)
class Registration:
    run: str
    pid: int
    started: str
    marks: str
    visible: str | None  # CUDA_VISIBLE_DEVICES of the driver
    gpus: tuple[str, ...]  # claimed by name

    @property
    def alive(self) -> bool:
        return process_start(self.pid) == self.started


class Registry:
    """The runs to be measured on this machine; those whose driver is gone are removed."""

    def __init__(self, folder: Path):
        self.folder = _made(folder)

    def read(self) -> list[Registration]:
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = json.loads(path.read_bytes())
                record.pop("format")
                registration = Registration(**{**record, "gpus": tuple(record["gpus"])})
            except (OSError, ValueError, TypeError, KeyError):
                continue  # taken back this moment
            if registration.alive:
                found.append(registration)
            else:
                path.unlink(missing_ok=True)
        return found


class Clock:
    """UTC seconds that never step: a monotonic clock set once. `slipped` says when the machine
    slept or its clock was put right, and sets it again."""

    def __init__(self) -> None:
        self.base = time.time() - time.monotonic()

    def now(self) -> float:
        return self.base + time.monotonic()

    def slipped(self) -> bool:
        error = time.time() - self.now()
        if abs(error) > CLOCK_JUMP_S:
            self.base += error
            return True
        return False


class Meter:
    """Looks at counters and processes, and turns the differences into rows."""

    def __init__(self, folder: Path, meter: str, country: str, cpu_watts: float | None):
        self.boot = boot_id()
        self.clock = Clock()
        self.registry = Registry(folder / "runs")
        self.writer = SegmentWriter(folder)
        self.joined = Joined(self.writer.append)
        self.trees = processes.Trees()
        self._probes: Callable[[], tuple[list[Probe], Nvml | None, list[str]]] = lambda: choose(
            meter, country, cpu_watts, self.clock.now()
        )
        self._begin()

    def _begin(self) -> None:
        self.probes, self.nvml, self.warnings = self._probes()
        self.said: set[str] = set()
        self.last = self.clock.now()
        self.busy, _ = processes.machine()
        self.runs = self.registry.read()
        self._advance()

    def run(self, interval: float, stop: StopSignal) -> None:
        marks: list[int] = []  # so that the first look is a border and its row on disk at once
        while not stop:
            time.sleep(min(TICK_S, interval))
            if self.clock.slipped():
                self._restart()
                continue
            now_marks = self._marks()
            border = now_marks != marks
            if border or self.clock.now() - self.last >= interval - TICK_S / 2:
                marks = now_marks
                self.look(border)
        self.look(border=True)
        self.writer.append([self._row(r) for p in self.probes for r in p.unfinished(self.last)])
        self.writer.close()

    def look(self, border: bool) -> None:
        """Take the differences since the last look. border: a stage began or ended meanwhile."""
        t0, now = self.last, self.clock.now()
        if now <= t0:
            return
        rows = [self._row(reading) for probe in self.probes for reading in probe.read(now)]
        rows.append(self._usage(t0, now))
        rows += self._notes(now)
        self.last = now
        if border:
            self.joined.flush()
        self.joined.add(rows)
        if border:
            self.joined.flush()

    def _notes(self, now: float) -> list[GapRow]:
        """What the probes warn of, as gaps without length; once, and again for each new run."""
        warnings = self.warnings + [line for probe in self.probes for line in probe.warnings]
        new = [line for line in warnings if line not in self.said]
        self.said.update(new)
        return [GapRow(self.boot, f"note {line}", now, now, line) for line in new]

    def _usage(self, t0: float, t1: float) -> UsageRow:
        known, self.runs = self.runs, self.registry.read()
        if self.runs != known:
            self.said = set()
        before = self.busy
        self.busy, used_bytes = processes.machine()
        cpu = self._advance()
        meter_cpu_s = cpu.pop(METER, 0.0)
        gpus = self._gpus()
        runs = {
            run: RunUse(
                round(cpu_s, 3),
                processes.resident_bytes(self.trees.members(run)),
                gpus.get(run, ()),
            )
            for run, cpu_s in cpu.items()
        }
        busy_s = max(0.0, self.busy - before)
        return UsageRow(self.boot, t0, t1, busy_s, used_bytes, runs, meter_cpu_s)

    def _advance(self) -> dict[str, float]:
        roots = {registration.pid: registration.run for registration in self.runs}
        return self.trees.advance(processes.snapshot(), {**roots, os.getpid(): METER})

    def _gpus(self) -> dict[str, tuple[str, ...]]:
        """run -> uuids it uses (its processes compute there) or claims (registration)."""
        if self.nvml is None:
            return {}
        users = self.nvml.users()
        found: dict[str, set[str]] = {}
        for registration in self.runs:
            claimed = {*registration.gpus, *self.nvml.visible(registration.visible)}
            found.setdefault(registration.run, set()).update(claimed)
        for (pid, _), run in self.trees.owner.items():
            if pid in users and run in found:
                found[run] |= users[pid]
        return {run: tuple(sorted(uuids)) for run, uuids in found.items()}

    def _row(self, reading: Reading) -> Row:
        r = reading
        if r.energy_j is None:
            return GapRow(self.boot, r.device, r.t0, r.t1, r.reason)
        return EnergyRow(self.boot, r.device, r.t0, r.t1, r.energy_j, r.method, r.measured, r.tool)

    def _marks(self) -> list[int]:
        """Changes when a run registers, or begins or ends a stage."""
        sizes = [_stat(registration.marks).st_size for registration in self.runs]
        return [_stat(self.registry.folder).st_mtime_ns, *sizes]

    def _restart(self) -> None:
        """After sleep or a put clock: what is between is a gap; all counters begin again."""
        now = self.clock.now()
        first, last = min(self.last, now), max(self.last, now)
        self.joined.flush()
        reason = "the machine slept or its clock was set"
        self.writer.append([GapRow(self.boot, "all", first, last, reason)])
        self.trees = processes.Trees()
        self._begin()


def _stat(path: str | Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError:
        return os.stat_result([0] * 10)


if __name__ == "__main__":
    main()
