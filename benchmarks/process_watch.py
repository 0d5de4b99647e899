"""Watches a tree of processes from outside: memory of each, CPU-seconds, files that come and go.

    with Watch(pid, folder) as watch: ...
    watch.memory(begin, end), watch.cpu_s(begin, end), watch.files(folder)

A look every half second. CPU-seconds are read as the energy meter does (`core.processes.Trees`), so
what ended children used is not lost. Memory is in bytes: `rss` counts shared pages in every process
that maps them (text shards, Ray's object store), `pss` divides them among those, `private` leaves
them out. What lived for less than a look is not seen. Killer: SIGKILLs Ray workers of that tree.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from mutirao.core.processes import Trees, snapshot

EVERY_S = 0.5
# Processes of Ray itself that carry a worker's title; without its agents a node ends as a whole.
NOT_WORK = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::_")
SMALL = 100_000_000  # below it the kernel is not asked for the finer figures
FINE = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}
Memory = dict[str, int]


class Watch(threading.Thread):
    """Use as a context manager around the life of process `pid`; folder: whose files are noted."""

    def __init__(self, pid: int, folder: Path):
        super().__init__(daemon=True)
        self.pid, self.folder = pid, folder
        self.used: list[tuple[float, float]] = []  # (time, CPU-seconds since the look before)
        self.seen: list[tuple[float, str, Memory]] = []  # (time, kind of process, its memory)
        self.sizes: dict[Path, int] = {}  # the largest size of every file that was seen
        self.members: list[int] = []
        self._trees, self._ended = Trees(), threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        now = time.time()
        gain = self._trees.advance(snapshot(), {self.pid: "run"})
        self.used.append((now, gain["run"]))
        self.members = self._trees.members("run")
        for pid in self.members:
            try:
                kind = kind_of(psutil.Process(pid).cmdline(), pid == self.pid)
                self.seen.append((now, kind, memory_of(pid)))
            except (psutil.Error, OSError):
                continue  # it ended meanwhile
        self._note_files()

    def _note_files(self) -> None:
        for folder in self.folder.glob("*/*"):
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = Path(entry.path)
                        self.sizes[path] = max(self.sizes.get(path, 0), entry.stat().st_size)
            except OSError:
                continue  # a file was renamed meanwhile; the next look sees it

    def cpu_s(self, begin: float, end: float) -> float:
        return round(sum(used for at, used in self.used if begin <= at < end), 2)

    def memory(self, begin: float, end: float) -> dict[str, Memory]:
        """{kind of process: the largest of each figure in one process} between two times."""
        found: dict[str, Memory] = defaultdict(dict)
        for at, kind, memory in self.seen:
            if begin <= at < end:
                for name, value in memory.items():
                    found[kind][name] = max(found[kind].get(name, 0), value)
        return dict(sorted(found.items()))

    def files(self, folder: Path) -> dict[str, int]:
        """{name: largest size} of the files that were seen in a folder, sidecars left out."""
        seen = {path.name: size for path, size in self.sizes.items() if path.parent == folder}
        other = (".json", ".lock")  # sidecars and the lease
        return {n: size for n, size in seen.items() if not n.endswith(other) and "tmp" not in n}


def kind_of(command: list[str], is_root: bool) -> str:
    """driver, a Ray worker by its title without what it works on, or the program's name."""
    if is_root:
        return "driver"
    if not command:
        return "ended"
    if command[0].startswith("ray::"):
        return command[0].split("(")[0].split()[0]
    for word in command[:4]:  # `python -u /path/to/program.py`
        name = Path(word).name
        if name and not name.startswith(("python", "-")):
            return name
    return Path(command[0]).name


def memory_of(pid: int) -> Memory:
    """rss, and for larger processes pss and private, in bytes."""
    rss = psutil.Process(pid).memory_info().rss
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if rss < SMALL or not rollup.exists():
        return {"rss": rss}
    found = {"rss": 0, "pss": 0, "private": 0}
    for line in rollup.read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        if (figure := FINE.get(name.rstrip(":"))) is not None:
            found[figure] += int(value) * 1024
    return found


class Killer(threading.Thread):
    """SIGKILLs a random Ray worker that has work: first after about `every_s` seconds, then at ever
    longer intervals, since a unit longer than the interval would never end."""

    def __init__(self, watch: Watch, every_s: float, seed: int):
        super().__init__(daemon=True)
        self.watch, self.every_s, self.dice = watch, every_s, random.Random(seed)
        self.killed: list[tuple[float, str]] = []  # (time, kind)
        self._ended = threading.Event()

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(self._interval() * self.dice.uniform(0.5, 1.5)):
            if victim := self._victim():
                pid, kind = victim
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.killed.append((time.time(), kind))

    def _interval(self) -> float:
        return self.every_s * (1 + len(self.killed) / 5)

    def _victim(self) -> tuple[int, str] | None:
        """Among the workers of the watched tree alone, by what they do at this moment."""
        busy: list[tuple[int, str]] = []
        for pid in self.watch.members:
            try:
                kind = kind_of(psutil.Process(pid).cmdline(), pid == self.watch.pid)
            except psutil.Error:
                continue
            if kind.startswith("ray::") and not kind.startswith(NOT_WORK):
                busy.append((pid, kind))
        return self.dice.choice(busy) if busy else None

    def by_kind(self) -> dict[str, int]:
        kinds = [kind for _, kind in self.killed]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def kill_tree(child: subprocess.Popen[bytes], members: list[int]) -> None:
    """SIGKILL to our child first, then to those of its processes that are still the same ones."""
    processes = []
    for pid in set(members) - {child.pid}:
        try:
            processes.append(psutil.Process(pid))
        except psutil.Error:
            continue
    child.kill()
    child.wait()
    kill_all(processes)
    psutil.wait_procs(processes, timeout=10)


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()  # psutil looks that the pid was not taken by another since
        except psutil.Error:
            continue


def summary(watch: Watch, begin: float, end: float) -> dict[str, Any]:
    """The largest process between two times, and all kinds."""
    kinds = watch.memory(begin, end)
    largest = {
        name: max((memory.get(name, 0) for memory in kinds.values()), default=0)
        for name in ("rss", "pss", "private")
    }
    return {**{f"largest_{name}": value for name, value in largest.items()}, "by_kind": kinds}
