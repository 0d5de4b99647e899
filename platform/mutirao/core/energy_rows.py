"""Rows of the energy ledger on disk: what a meter writes, how it is read back and merged.

A meter appends to `<workdir>/ledger/<boot_id>/NNNNNNNN-<pid>.jsonl`, one JSON row per line, at most
`APPEND_S` seconds after the fact: kill -9 loses that much and shows as a gap. A segment has one
writer, is left alone for good when that writer ends or starts the next number, and may end in a
torn line, which readers skip. Kinds of row, all with boot_id, t0, t1 (UTC, seconds):

  energy  device (cpu:package-0, cpu, ram, gpu:<uuid>), energy_j, method, measured, tool
  usage   busy CPU seconds of the machine, used memory, and per registered run its CPU seconds,
          resident bytes and GPUs: the ground for attribution
  gap     device and the reason why an interval has no energy
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from mutirao.core.errors import DataError
from mutirao.core.manifest import check_format

FORMAT = 1
J_PER_KWH = 3.6e6
APPEND_S = 10.0
SEGMENT_BYTES = 4 << 20  # then the writer starts the next number


@dataclass(frozen=True)
class EnergyRow:
    boot_id: str
    device: str
    t0: float
    t1: float
    energy_j: float
    method: str  # nvml_counter, nvml_power, rapl, codecarbon:<mode>, constant
    measured: bool  # False: a model said so, not a counter
    tool: str = ""  # name and version of what measured


@dataclass(frozen=True)
class RunUse:
    """What one run used of a machine in an interval."""

    cpu_s: float = 0.0
    rss_bytes: int = 0  # mean over the interval
    gpus: tuple[str, ...] = ()  # uuids


@dataclass(frozen=True)
class UsageRow:
    boot_id: str
    t0: float
    t1: float
    busy_cpu_s: float  # of the whole machine: user, nice, system, irq
    used_bytes: int
    runs: dict[str, RunUse] = field(default_factory=dict)
    meter_cpu_s: float = 0.0


@dataclass(frozen=True)
class GapRow:
    boot_id: str
    device: str
    t0: float
    t1: float
    reason: str


Row = EnergyRow | UsageRow | GapRow
Interval = TypeVar("Interval", EnergyRow, UsageRow)
KINDS: dict[str, type] = {"energy": EnergyRow, "usage": UsageRow, "gap": GapRow}
NAMES = {kind: name for name, kind in KINDS.items()}


class SegmentWriter:
    """Appends rows to the next free segment number of a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(p.name[:8]) for p in segments(self.folder)]
        self.path = self.folder / f"{max(numbers, default=-1) + 1:08d}-{os.getpid()}.jsonl"
        self._stream = open(self.path, "ab")  # noqa: SIM115 - open as long as the meter lives

    def append(self, rows: Iterable[Row]) -> None:
        """One write and one fsync for all rows, so an interval is on disk whole or not at all."""
        data = b"".join(to_line(row) for row in rows)
        if not data:
            return
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if self._stream.tell() > SEGMENT_BYTES:
            self._stream.close()
            self._open()

    def close(self) -> None:
        self._stream.close()
        if self.path.stat().st_size == 0:
            self.path.unlink()


def to_line(row: Row) -> bytes:
    record = {"format": FORMAT, "kind": NAMES[type(row)], **asdict(row)}
    for name in ("t0", "t1", "energy_j", "busy_cpu_s", "meter_cpu_s"):
        if name in record:
            record[name] = round(record[name], 6)
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def from_record(record: dict[str, Any], where: str) -> Row:
    check_format(record, FORMAT, where)
    values = {k: v for k, v in record.items() if k not in ("format", "kind")}
    if record["kind"] == "usage":
        values["runs"] = {
            run: RunUse(use["cpu_s"], use["rss_bytes"], tuple(use["gpus"]))
            for run, use in values["runs"].items()
        }
    return KINDS[record["kind"]](**values)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]" * 8 + "-*.jsonl"))


def read_segment(path: Path, offset: int = 0) -> tuple[list[Row], int]:
    """Rows from byte `offset` on, and the offset after the last whole line.

    Raises DataError for a damaged line that is not the last one, UserError for a newer format.
    """
    with open(path, "rb") as stream:
        stream.seek(offset)
        data = stream.read()
    whole = data[: data.rfind(b"\n") + 1]
    rows = []
    for number, line in enumerate(whole.splitlines(), 1):
        where = f"{path}, line {number}" if offset == 0 else str(path)
        try:
            rows.append(from_record(json.loads(line), where))
        except (ValueError, KeyError, TypeError) as error:
            hint = "Move the file away; the ledger then shows a gap for its time."
            raise DataError(f"Damaged ledger row: {error}", where, hint, "bad-ledger") from error
    return rows, offset + len(whole)


def read_rows(workdir: Path, since: float = 0.0, until: float = float("inf")) -> list[Row]:
    """All rows of all machines in a workdir that overlap [since, until] (UTC, seconds)."""
    found: list[Row] = []
    for folder in sorted((workdir / "ledger").glob("*/")):
        for path in segments(folder):
            if path.stat().st_mtime >= since:  # a segment is written after the facts in it
                rows, _ = read_segment(path)
                found += [row for row in rows if row.t1 > since and row.t0 < until]
    return found


def part_of(row: Interval, t0: float, t1: float) -> Interval:
    """The part of a row inside [t0, t1], with amounts in proportion to time."""
    if t0 <= row.t0 and t1 >= row.t1:
        return row
    a, b = max(t0, row.t0), min(t1, row.t1)
    share = (b - a) / (row.t1 - row.t0)
    if isinstance(row, EnergyRow):
        return replace(row, t0=a, t1=b, energy_j=row.energy_j * share)  # type: ignore[call-arg]
    runs = {run: replace(use, cpu_s=use.cpu_s * share) for run, use in row.runs.items()}
    return replace(
        row,
        t0=a,
        t1=b,
        busy_cpu_s=row.busy_cpu_s * share,
        meter_cpu_s=row.meter_cpu_s * share,
        runs=runs,
    )


class Covered:
    """Disjoint time intervals already spoken for, sorted; `free` says what is left of one."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def free(self, t0: float, t1: float) -> list[tuple[float, float]]:
        left, cursor = [], t0
        at = max(bisect_left(self.spans, (t0, t0)) - 1, 0)
        while at < len(self.spans) and self.spans[at][0] < t1:
            start, end = self.spans[at]
            if start > cursor:
                left.append((cursor, start))
            cursor = max(cursor, end)
            at += 1
        if cursor < t1:
            left.append((cursor, t1))
        return left

    def add(self, t0: float, t1: float) -> None:
        insort(self.spans, (t0, t1))

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.spans)


def merge(*ledgers: Iterable[Row]) -> list[EnergyRow]:
    """The union over time of what several meters (or the same files read twice) saw.

    Per (boot id, device) every instant counts once: counters before estimates, then the earlier
    row; what another row already covers is cut off in proportion to time. A row of a whole class
    (`cpu`) fills only the time in which no row of a member (`cpu:package-0`) stands.
    The result doesn't depend on the order of the rows.
    """
    rows = {row for ledger in ledgers for row in ledger if isinstance(row, EnergyRow)}
    covered: dict[tuple[str, str], Covered] = {}
    classes: dict[tuple[str, str], Covered] = {}
    kept: list[EnergyRow] = []
    for row in sorted(rows, key=_preference):
        family = row.device.split(":")[0]
        taken = covered.setdefault((row.boot_id, row.device), Covered())
        members = classes.setdefault((row.boot_id, family), Covered())
        whole = row.device == family
        for t0, t1 in (members if whole else taken).free(row.t0, row.t1):
            kept.append(part_of(row, t0, t1))
            taken.add(t0, t1)
        for t0, t1 in members.free(row.t0, row.t1):
            members.add(t0, t1)
    return sorted(kept, key=lambda row: (row.boot_id, row.t0, row.device))


def _preference(row: EnergyRow) -> tuple[Any, ...]:
    whole = ":" not in row.device
    return (
        whole,
        not row.measured,
        row.t0,
        -row.t1,
        row.device,
        row.method,
        row.energy_j,
        row.tool,
    )


def merge_usage(rows: Iterable[Row]) -> dict[str, list[UsageRow]]:
    """Per boot id, disjoint usage rows in order of time. Where two meters overlap, the machine's
    figures are the larger ones and each run's figure comes from whichever meter knew it."""
    boots: dict[str, dict[tuple[Any, ...], UsageRow]] = {}
    for row in rows:
        if isinstance(row, UsageRow) and row.t1 > row.t0:
            runs = tuple(sorted((run, use.cpu_s) for run, use in row.runs.items()))
            key = (row.t0, row.t1, row.busy_cpu_s, row.used_bytes, row.meter_cpu_s, runs)
            boots.setdefault(row.boot_id, {})[key] = row
    return {
        boot: list(_disjoint([unique[key] for key in sorted(unique)]))
        for boot, unique in sorted(boots.items())
    }


def _disjoint(rows: list[UsageRow]) -> Iterator[UsageRow]:
    """Cut overlapping rows (sorted by t0) at every boundary and join what lies on one another."""
    at = 0
    while at < len(rows):
        end, stop = rows[at].t1, at + 1
        while stop < len(rows) and rows[stop].t0 < end:
            end, stop = max(end, rows[stop].t1), stop + 1
        cluster = rows[at:stop]
        at = stop
        if len(cluster) == 1:
            yield cluster[0]
            continue
        cuts = sorted({t for row in cluster for t in (row.t0, row.t1)})
        for t0, t1 in pairwise(cuts):
            active = [part_of(r, t0, t1) for r in cluster if r.t0 < t1 and r.t1 > t0]
            if active:
                yield _joined(active)


def _joined(rows: list[UsageRow]) -> UsageRow:
    runs: dict[str, RunUse] = {}
    for row in rows:
        for run, use in row.runs.items():
            if run not in runs or use.cpu_s > runs[run].cpu_s:
                runs[run] = use
    return replace(
        rows[0],
        busy_cpu_s=max(row.busy_cpu_s for row in rows),
        used_bytes=max(row.used_bytes for row in rows),
        meter_cpu_s=sum(row.meter_cpu_s for row in rows),
        runs=runs,
    )
