"""A sign of life of every rank, so one that stands still is named and none waits for ever.

In: where the loop is (`at`). Out: `ranks/rank-00000.json` of each rank, every 2 s. A thread beside
the loop of each rank looks at the files of all once its own loop stands still, and finds the rank
that the others wait for: one that gives no sign of life any more (its process is frozen or gone),
else the one least far in the step. It says so on stderr and as the event `stall` of the metrics;
`stall_s` later it kills that process, where it runs on the same host, and ends its own with exit
code 4. Ray Train then starts the group again; a run without Ray is over and can be continued.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import threading
import time
from collections import deque
from pathlib import Path

import psutil

from mutirao.core.errors import EXIT_ENVIRONMENT, EnvironmentProblem, UserError
from mutirao.core.metrics import MetricsWriter
from train_jobs import ranks
from train_jobs.signs import WAITING, Sign, read_signs, standing_still, write_sign

PERIOD_S = 2.0
LONG_S = 600.0  # what may take long while nothing is wrong: imports, compiling, all held-out text
LOADING_S = 120.0  # loading a library can hold the interpreter's lock, and so the thread, so long
LONG = ("starting", "held-out loss", "sample texts", "saving", "profile")
SLOW = 10  # times the median step before a step counts as standing still


class Heartbeat:
    """`at` is called by the loop; a thread beside it watches this rank and the others."""

    def __init__(self, run_dir: Path, stall_s: float):
        self.run_dir, self.stall_s = run_dir, stall_s
        self.rank, self.world = ranks.rank(), ranks.world()
        self.host, self.pid = socket.gethostname(), os.getpid()
        self.started = psutil.Process().create_time()
        self.loop = threading.get_ident()
        self.place, self.moves = (0, "starting"), 0
        self.step_began, self.steps_s = 0.0, deque[float](maxlen=64)
        self.done = threading.Event()
        self.watcher = Watcher(self)
        self.thread = threading.Thread(target=self.watcher.run, name="heartbeat", daemon=True)
        self.thread.start()

    def at(self, step: int, what: str) -> None:
        if step != self.place[0] or self.place[1] == "starting":
            now = time.monotonic()
            if self.step_began:
                self.steps_s.append(now - self.step_began)
            self.step_began = now
        self.place, self.moves = (step, what), self.moves + 1

    def close(self) -> None:
        self.at(self.place[0], "ended")
        self.done.set()
        self.thread.join()

    def patience_s(self) -> float:
        """How long the loop may stay where it is now. The first step compiles and allocates."""
        long = self.place[1] in LONG or not self.steps_s
        step_s = statistics.median(list(self.steps_s) or [0.0])
        return max(self.stall_s, SLOW * step_s, LONG_S if long else 0.0)


class Watcher:
    """The thread. It counts time by its own ticks: while a machine sleeps, nobody stands still."""

    def __init__(self, pulse: Heartbeat):
        self.pulse = pulse
        self.period_s = min(PERIOD_S, pulse.stall_s / 8)
        self.clock_s = self.moved_s = 0.0
        self.moves = -1
        self.seen: dict[int, tuple[float, float, bool]] = {}  # rank -> last time, clock, any change
        self.named: list[Sign] = []
        self.named_s = 0.0

    def run(self) -> None:
        before = time.monotonic()
        write_sign(self.pulse.run_dir, self._sign())  # from the start it is known who is who
        while True:
            ended = self.pulse.done.wait(self.period_s)
            now = time.monotonic()
            self.clock_s += min(now - before, 2 * self.period_s)
            before = now
            self._tick()
            if ended:
                return

    def _tick(self) -> None:
        pulse = self.pulse
        if pulse.moves != self.moves:
            self.moves, self.moved_s = pulse.moves, self.clock_s
            self.named = []
        write_sign(pulse.run_dir, self._sign())
        starting = pulse.place[1] == "starting"
        idle_s = self.clock_s - self.moved_s
        if pulse.place[1] == "ended":
            return
        if starting or idle_s >= pulse.stall_s / 2:
            signs = read_signs(pulse.run_dir, pulse.world)
            silent = self._silent(signs, starting)
            if idle_s >= pulse.stall_s:
                self._judge(standing_still(signs, silent))
        else:
            self.seen = {}

    def _sign(self) -> Sign:
        pulse = self.pulse
        step, what = pulse.place
        frame, inside, waits = sys._current_frames().get(pulse.loop), "", what == WAITING
        if frame is not None:
            code = frame.f_code
            inside = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
        while frame is not None:
            waits |= frame.f_code.co_filename.endswith("distributed_c10d.py")
            frame = frame.f_back
        return Sign(
            rank=pulse.rank,
            host=pulse.host,
            pid=pulse.pid,
            started=pulse.started,
            step=step,
            what=what,
            inside=inside,
            waits=waits,
            idle_s=self.clock_s - self.moved_s,
            patience_s=pulse.patience_s(),
            time=time.time(),
        )

    def _silent(self, signs: list[Sign], starting: bool) -> set[int]:
        """Ranks whose file has not changed for too long. One that never changed while this rank
        starts may be of an earlier attempt, and its new owner still on its way."""
        found = set()
        for sign in signs:
            last, since, changed = self.seen.get(sign.rank, (sign.time, self.clock_s, not starting))
            if last != sign.time:
                since, changed = self.clock_s, True
            self.seen[sign.rank] = (sign.time, since, changed)
            limit_s = self.pulse.stall_s / 2 if changed else LONG_S
            if sign.what == "starting":
                limit_s = max(limit_s, LOADING_S)
            if self.clock_s - since >= limit_s:
                found.add(sign.rank)
        return found

    def _judge(self, stalled: list[Sign]) -> None:
        if not stalled:
            self.named = []
        elif not self.named:
            self.named, self.named_s = stalled, self.clock_s
            self._tell()
        elif self.clock_s - self.named_s >= self.pulse.stall_s:
            self.named = stalled
            self._end()

    def _tell(self) -> None:
        detail = "; ".join(sign.text() for sign in self.named)
        print(f"mutirao: {detail}", file=sys.stderr, flush=True)
        others = set(range(self.pulse.world)) - {sign.rank for sign in self.named}
        if self.pulse.rank == min(others, default=0):
            try:
                writer = MetricsWriter(self.pulse.run_dir)
                writer.write(
                    "event", {"step": self.named[0].step, "what": "stall", "detail": detail}
                )
                writer.close()
            except OSError:
                pass  # it was said on stderr; a full disk must not keep the thread from ending this

    def _end(self) -> None:
        problem = stall_error(self.named, self.pulse.run_dir)
        print(f"mutirao: {problem}", file=sys.stderr, flush=True)
        for sign in self.named:
            if sign.host == self.pulse.host and sign.pid != self.pulse.pid:
                kill_same(sign.pid, sign.started)
        os._exit(EXIT_ENVIRONMENT)


def stall_error(stalled: list[Sign], run_dir: Path) -> UserError:
    return EnvironmentProblem(
        f"Training stood still: {'; '.join(sign.text() for sign in stalled)}",
        str(run_dir / "ranks"),
        "Run the same command again to continue from the last checkpoint. If nothing was wrong, "
        "raise train.stall_s.",
        "stalled",
    )


def kill_same(pid: int, started: float) -> bool:
    """SIGKILL to the process of this pid if it is still the one that began then: a frozen process
    can do nothing itself, and its number may be another's by now."""
    try:
        if abs(psutil.Process(pid).create_time() - started) > 1:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
    except (psutil.Error, OSError):
        return False
