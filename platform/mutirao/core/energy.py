"""Measures the energy of a run: starts the measuring process, marks stages, watches the budget.

    with EnergyMeter(workdir, run_id, run_dir, recipe.energy, progress) as meter:
        with meter.stage("clean"):
            ...
    ledger.totals(run_dir)

The measuring itself happens in another process (`meter`), one per machine and workdir,
which ends when this one does. Measuring never fails a run: what goes wrong is a line in `warnings`
and a gap in the ledger. On leaving, the ledger holds all rows up to that moment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mutirao.core import carbon
from mutirao.core.budget import STOP, Budget
from mutirao.core.energy_rows import read_segment, segments
from mutirao.core.errors import Stopped
from mutirao.core.files import write_json
from mutirao.core.lease import boot_id, process_start
from mutirao.core.processes import RUN_VARIABLE
from mutirao.core.progress import Progress
from mutirao.core.recipe import Energy
from mutirao.core.stage_marks import USEFUL, WASTED, MarkWriter

WATCH_S = 1.0
BUDGET_S = 5.0
MAX_RESTARTS = 3


class StageMark:
    """One open stage. finished: a folder and a glob of files that a restart will not make again
    (`*.part.json`); the work up to the newest of them is kept whatever happens."""

    def __init__(self, marks: MarkWriter, number: int, finished: tuple[Path, str] | None):
        self._marks, self._number, self._finished = marks, number, finished
        self._kept = time.time()
        self._look_at = 0.0
        self.cpu_s: float | None = None  # set it to share overlaps by CPU seconds

    def keep(self, until: float | None = None) -> None:
        """The work up to now (or to a time, UTC seconds) will be reused."""
        self._marks.write("keep", until, mark=self._number)

    def keep_finished(self) -> None:
        if self._finished:
            folder, pattern = self._finished
            newest = max((_modified(path) for path in folder.glob(pattern)), default=0.0)
            if newest > self._kept:
                self._kept = newest
                self.keep(newest)

    def keep_now_and_then(self) -> None:
        """`keep_finished`, but at most 2 % of the time, however many files there are."""
        began = time.monotonic()
        if began >= self._look_at:
            self.keep_finished()
            self._look_at = began + 50 * (time.monotonic() - began)


class EnergyMeter:
    """Use as a context manager, once, in the driver of a run (and on further machines, in a process
    that lives as long as the run's work there)."""

    def __init__(
        self,
        workdir: Path,
        run_id: str,
        run_dir: Path,
        energy: Energy,
        progress: Progress | None = None,
    ):
        self.workdir, self.run_id, self.run_dir = Path(workdir), run_id, Path(run_dir)
        self.energy, self.progress = energy, progress
        self.warnings: list[str] = []
        self.folder = self.workdir / "ledger" / boot_id()
        self.registration = self.folder / "runs" / f"{run_id}-{os.getpid()}.json"
        self.process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._open: dict[int, StageMark] = {}
        self._ended = threading.Event()

    def __enter__(self) -> EnergyMeter:
        if not carbon.factors(self.energy.country):
            known = ", ".join(carbon.countries())
            self._warn(f"no CO2e factor for {self.energy.country!r}; known: {known}")
        self.budget = Budget(self.workdir, self.run_dir, self.run_id, self.energy.budget_kwh)
        self.marks = MarkWriter(self.run_dir, self.run_id, self.energy.country)
        self._outer = os.environ.get(RUN_VARIABLE)
        os.environ[RUN_VARIABLE] = self.run_id
        self._register(())
        self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        self.marks.close()
        self._await_rows(time.time())
        self._end_process()
        self.registration.unlink(missing_ok=True)
        if self._outer is None:
            os.environ.pop(RUN_VARIABLE, None)
        else:
            os.environ[RUN_VARIABLE] = self._outer

    @contextmanager
    def stage(
        self, name: str, outcome: str = USEFUL, finished: tuple[Path, str] | None = None
    ) -> Iterator[StageMark]:
        """Mark what happens inside as stage `name`. Where it ends by an exception or a kill, the
        work since its last kept result is wasted; Stopped comes after a checkpoint and wastes
        nothing. finished: see StageMark; looked at each second."""
        number = self.marks.begin(name, outcome)
        mark = self._open[number] = StageMark(self.marks, number, finished)
        try:
            yield mark
        except BaseException as error:
            mark.keep_finished()
            lost = outcome if isinstance(error, Stopped) else WASTED
            self.marks.write("end", mark=number, outcome=lost, cpu_s=mark.cpu_s)
            raise
        else:
            self.marks.write("end", mark=number, cpu_s=mark.cpu_s)
        finally:
            del self._open[number]

    def claim_gpus(self, uuids: tuple[str, ...]) -> None:
        """Book these GPUs to this run, where neither CUDA_VISIBLE_DEVICES of the driver nor the
        driver's list of processes says so (a container with its own process numbers)."""
        self._register(uuids)

    def check_budget(self) -> str:
        """'ok', 'warn' (80 %) or 'stop' (100 %): the whole run, earlier attempts included. Cheap:
        reads what the meter has appended since, every 5 s at most."""
        return self.budget.state(BUDGET_S)

    def over_budget(self) -> bool:
        return self.check_budget() == STOP

    def _register(self, gpus: tuple[str, ...]) -> None:
        record = {
            "format": 1,
            "run": self.run_id,
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "marks": str(self.marks.path.absolute()),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "gpus": gpus,
        }
        write_json(self.registration, record)

    def _start(self) -> None:
        command = [sys.executable, "-m", "mutirao.core.meter"]
        command += ["--workdir", str(self.workdir.absolute()), "--parent", str(os.getpid())]
        command += ["--meter", self.energy.meter, "--country", self.energy.country]
        command += ["--interval", str(self.energy.interval_s)]
        if self.energy.cpu_watts:
            command += ["--cpu-watts", str(self.energy.cpu_watts)]
        try:
            with open(self.folder / "meter.log", "ab") as log:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C at the terminal is the driver's to handle
                )
        except OSError as error:
            self._warn(f"the energy meter did not start ({error}): a gap in the ledger")

    def _watch(self) -> None:
        """Start a meter that was killed again, and look at the budget where there is one."""
        while not self._ended.wait(WATCH_S):
            code = self.process.poll() if self.process else None
            if code is not None and self._restarts < MAX_RESTARTS:
                self._restarts += 1
                self._warn(
                    f"the energy meter ended (code {code}), started again: a gap in the ledger"
                )
                self._start()
            self._keep_finished()

    def _keep_finished(self) -> None:
        for mark in list(self._open.values()):
            mark.keep_now_and_then()

    def _measuring(self) -> int:
        """The pid of the meter that holds the lock of this machine and workdir, or 0."""
        try:
            pid, started = (self.folder / "meter.lock").read_text().split()
        except (OSError, ValueError):
            return 0
        return int(pid) if process_start(int(pid)) == started else 0

    def _await_rows(self, until: float) -> None:
        """Where another run's meter measures for us: wait for its row of this moment, 2 s and two
        intervals at most. (Our own writes its last rows when told to end.)"""
        holder = self._measuring()
        if not holder or (self.process and holder == self.process.pid):
            return
        deadline = time.monotonic() + 2.0 + 2 * self.energy.interval_s
        while time.monotonic() < deadline and self._measuring() == holder:
            if self._newest() >= until - 0.05:
                return
            time.sleep(0.1)

    def _newest(self) -> float:
        paths = segments(self.folder)
        rows = read_segment(paths[-1])[0] if paths else []
        return max((row.t1 for row in rows), default=0.0)

    def _end_process(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._warn("the energy meter did not end and was killed: a gap in the ledger")

    def _warn(self, line: str) -> None:
        self.warnings.append(line)
        if self.progress:
            self.progress.say(f"  energy: {line}")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
