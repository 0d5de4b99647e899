"""CPU seconds of process trees, with what ended children used, from one look at all processes.

A look is one read of /proc/<pid>/stat per process (about 15 microseconds each; psutil where there
is no /proc). CPU times count in ticks of 10 ms. A process belongs to the nearest registered root
above it, else to the run that MUTIRAO_RUN_ID in its environment names (workers of a cluster are no
descendants of the driver), so to one run at most.

What an ended child used since the last look isn't lost: the kernel adds the whole of it to its
parent's `cutime` when the parent reaps it, so the gain of `cutime` less what was already counted of
the vanished is the rest. Only a child that nobody in the tree reaps (double fork, SIGCHLD ignored)
loses its last interval.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN_VARIABLE = "MUTIRAO_RUN_ID"
LOOKS_AT_ENVIRONMENT = 3  # a process between fork and exec still shows its parent's environment
HAS_PROC = Path("/proc/self/stat").exists()
Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: str  # with the pid, the identity of a process
    parent: int
    cpu_s: float  # user + system of its own
    reaped_s: float  # user + system of children it has waited for, and of theirs

    @property
    def key(self) -> Key:
        return (self.pid, self.started)


def snapshot() -> dict[int, Process]:
    """All processes of this machine that can be seen, by pid."""
    return _from_proc() if HAS_PROC else _from_psutil()


def _from_proc() -> dict[int, Process]:
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    f = stream.read().rsplit(b")", 1)[1].split()
            except (OSError, IndexError):
                continue  # it ended meanwhile
            cpu, reaped = int(f[11]) + int(f[12]), int(f[13]) + int(f[14])
            pid = int(name)
            found[pid] = Process(pid, f[19].decode(), int(f[1]), cpu / tick, reaped / tick)
    return found


def _from_psutil() -> dict[int, Process]:
    found = {}
    for process in psutil.process_iter(["ppid", "create_time", "cpu_times"]):
        info = process.info
        if times := info["cpu_times"]:
            reaped = times.children_user + times.children_system
            cpu = times.user + times.system
            started = str(info["create_time"])
            found[process.pid] = Process(process.pid, started, info["ppid"] or 0, cpu, reaped)
    return found


def machine() -> tuple[float, int]:
    """Busy CPU seconds since boot (no idle, no disk wait, no steal), and used bytes of memory."""
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq")
    busy = sum(getattr(times, name, 0.0) for name in names)
    memory = psutil.virtual_memory()
    return busy, memory.total - memory.available


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident bytes of a group: what each has alone, and once the largest shared part (the object
    store that all workers of a run map)."""
    alone = shared = 0
    for pid in pids:
        try:
            info = psutil.Process(pid).memory_info()
        except psutil.Error:
            continue
        common = getattr(info, "shared", 0)
        alone += info.rss - common
        shared = max(shared, common)
    return alone + shared


class Environment:
    """Which run a process names in its environment; asked a few times, then remembered."""

    def __init__(self, read: Callable[[int], str] | None = None):
        self.read = read or _run_variable
        self.known: dict[Key, tuple[int, str]] = {}

    def run_of(self, process: Process) -> str:
        looks, run = self.known.get(process.key, (0, ""))
        if run or looks >= LOOKS_AT_ENVIRONMENT:
            return run
        run = self.read(process.pid)
        self.known[process.key] = (looks + 1, run)
        return run

    def forget(self, living: set[Key]) -> None:
        self.known = {key: value for key, value in self.known.items() if key in living}


def _run_variable(pid: int) -> str:
    try:
        return psutil.Process(pid).environ().get(RUN_VARIABLE, "")
    except (psutil.Error, OSError):
        return ""


def assign(
    processes: dict[int, Process],
    roots: dict[int, str],
    environment: Environment | None = None,
    runs: frozenset[str] = frozenset(),
) -> dict[int, str]:
    """pid -> run for every process that belongs to one. roots: pid of a driver -> run."""
    owner: dict[int, str] = {0: "", **roots}

    def climb(pid: int) -> str:
        path = []
        while pid not in owner:
            path.append(pid)
            owner[pid] = ""  # ends a walk in a circle of reused pids
            parent = processes.get(pid)
            pid = parent.parent if parent else 0
        run = owner[pid]
        for step in path:
            owner[step] = run
        return run

    for pid in processes:
        climb(pid)
    if environment and runs:
        for pid, process in processes.items():
            if not owner[pid] and (run := environment.run_of(process)) in runs:
                owner[pid] = run
    return {pid: owner[pid] for pid in processes if owner[pid]}


class Trees:
    """CPU seconds of every run from look to look. A process once seen in a run stays in it, also
    when its parent ends and it becomes a child of init."""

    def __init__(self, environment: Environment | None = None) -> None:
        self.environment = environment or Environment()
        self.before: dict[Key, Process] = {}  # everything alive at the last look
        self.owner: dict[Key, str] = {}

    def advance(self, processes: dict[int, Process], roots: dict[int, str]) -> dict[str, float]:
        """Seconds since the last look by run; 0.0 for a run at its first look. roots: driver pid ->
        run. `owner` then says whose each living process is."""
        known = set(self.owner.values())
        assigned = assign(processes, roots, self.environment, frozenset(roots.values()))
        now = {process.key: process for process in processes.values()}
        owner = {
            key: run
            for key, process in now.items()
            if (run := assigned.get(process.pid) or self.owner.get(key, ""))
        }
        used = dict.fromkeys(roots.values(), 0.0)
        for run in known & set(used):
            used[run] = self._used(run, now, owner)
        self.before, self.owner = now, owner
        self.environment.forget(set(now))
        return used

    def members(self, run: str) -> list[int]:
        return [pid for (pid, _), name in self.owner.items() if name == run]

    def _used(self, run: str, now: dict[Key, Process], owner: dict[Key, str]) -> float:
        own = 0.0
        gained: dict[int, float] = {}  # children's seconds that a survivor has reaped
        for key, name in owner.items():
            if name == run:
                process, before = now[key], self.before.get(key)
                if before is None or key in self.owner:  # not one that joined late
                    own += process.cpu_s - (before.cpu_s if before else 0.0)
                    gained[process.pid] = process.reaped_s - (before.reaped_s if before else 0.0)
        for key, name in self.owner.items():
            if name == run and key not in now:
                process = self.before[key]
                if reaper := self._reaper(process, gained):
                    gained[reaper] -= process.cpu_s + process.reaped_s
        return max(0.0, own) + sum(max(0.0, gain) for gain in gained.values())

    def _reaper(self, process: Process, gained: dict[int, float]) -> int:
        """The nearest survivor above a process that vanished, or 0."""
        parents = {p.pid: p.parent for p in self.before.values()}
        pid, steps = process.parent, 0
        while pid not in gained and pid in parents and steps < len(parents):
            pid, steps = parents[pid], steps + 1
        return pid if pid in gained else 0
