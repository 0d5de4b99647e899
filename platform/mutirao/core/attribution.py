"""Who used the joules: shares of machine rows for runs and stages. Pure arithmetic over rows.

In: energy rows and usage rows of machines (`energy_rows`), stage marks of runs (`stage_marks`).
Out: parts (run, stage, outcome, device, microjoules) whose sum is the sum of the rows, exactly:
amounts are whole microjoules, split so that no rounding is lost. What no run used is a part with
run '' (unattributed); what the meter itself used has run METER.

  cpu  by CPU seconds of a run's process tree over the busy CPU seconds of the machine
  ram  by resident bytes over used bytes; by CPU seconds where resident bytes are unknown
  gpu  to the runs that use or claim the device's uuid, equally among them; else unattributed

Idle power is not set apart: it goes the way of the busy seconds beside it. A run that is alone on a
machine therefore carries its idle power for as long as anything runs, and an interval in which the
machine did nothing is unattributed.

Stages of one run that overlap share the run's joules equally for the time of the overlap, or by
their own `cpu_s` per second of wall time where every one of them reported it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from mutirao.core.energy_rows import EnergyRow, RunUse, UsageRow
from mutirao.core.stage_marks import USEFUL, Mark

UNATTRIBUTED = ""
METER = "(meter)"
BETWEEN = ""  # the stage of what a run used while no stage was marked
MICRO = 1_000_000


@dataclass(frozen=True)
class Part:
    run: str
    stage: str
    outcome: str
    device: str
    energy_uj: int
    measured: bool
    method: str


def attribute(
    energy: Iterable[EnergyRow], usage: dict[str, list[UsageRow]], marks: Iterable[Mark]
) -> Iterator[Part]:
    """Split energy rows (disjoint per device, see `merge`) into parts.

    usage: disjoint rows per boot id (`merge_usage`). Cost: one pass, constant memory per row.
    """
    by_run = _marks_by_run(marks)
    starts = {boot: [row.t0 for row in rows] for boot, rows in usage.items()}
    for row in energy:
        rows = usage.get(row.boot_id, [])
        pieces = list(_pieces(row, rows, starts.get(row.boot_id, [])))
        amounts = split_exact(round(row.energy_j * MICRO), [t1 - t0 for t0, t1, _ in pieces])
        for (t0, t1, use), amount in zip(pieces, amounts, strict=True):
            shares = device_shares(row.device, use)
            portions = split_exact(amount, [weight for _, weight in shares])
            for (run, _), portion in zip(shares, portions, strict=True):
                for stage, outcome, part in spread(portion, by_run.get(run, []), t0, t1):
                    if part:
                        yield Part(run, stage, outcome, row.device, part, row.measured, row.method)


def cpu_seconds(
    usage: Iterable[UsageRow], run: str, marks: Iterable[Mark]
) -> dict[tuple[str, str], float]:
    """CPU seconds of one run by (stage, outcome), divided among stages as joules are."""
    mine = _marks_by_run(marks).get(run, [])
    total: dict[tuple[str, str], float] = {}
    for row in usage:
        if run in row.runs:
            amount = round(row.runs[run].cpu_s * MICRO)
            for stage, outcome, part in spread(amount, mine, row.t0, row.t1):
                total[stage, outcome] = total.get((stage, outcome), 0.0) + part / MICRO
    return total


def device_shares(device: str, use: UsageRow | None) -> list[tuple[str, float]]:
    """(run, weight) of every taker of a device's joules; the weights add up to one."""
    if use is None:
        return [(UNATTRIBUTED, 1.0)]
    if device.startswith("gpu"):
        return _gpu_shares(device.partition(":")[2], use.runs)
    resident = {run: float(seen.rss_bytes) for run, seen in use.runs.items()}
    if device.startswith("ram") and use.used_bytes and any(resident.values()):
        return _with_rest(resident, float(use.used_bytes))
    seconds = {run: seen.cpu_s for run, seen in use.runs.items()}
    return _with_rest({**seconds, METER: use.meter_cpu_s}, use.busy_cpu_s)


def _with_rest(used: dict[str, float], total: float) -> list[tuple[str, float]]:
    """Shares of `total`, or of the sum of the uses where it is more: the kernel counts processes
    and the machine by different clocks, each to 10 ms."""
    whole = max(total, sum(used.values()))
    if whole <= 0:
        return [(UNATTRIBUTED, 1.0)]
    shares = [(run, amount / whole) for run, amount in sorted(used.items())]
    return [*shares, (UNATTRIBUTED, max(0.0, 1.0 - sum(share for _, share in shares)))]


def _gpu_shares(uuid: str, runs: dict[str, RunUse]) -> list[tuple[str, float]]:
    users = sorted(run for run, use in runs.items() if uuid in use.gpus or "all" in use.gpus)
    return [(run, 1.0 / len(users)) for run in users] or [(UNATTRIBUTED, 1.0)]


def spread(amount: int, marks: list[Mark], t0: float, t1: float) -> list[tuple[str, str, int]]:
    """Divide a run's amount in [t0, t1] among its stages: (stage, outcome, amount)."""
    active = [mark for mark in marks if mark.t0 < t1 and mark.t1 > t0]
    cuts = sorted({t0, t1} | {t for m in active for t in (m.t0, m.t1) if t0 < t < t1})
    labels: list[tuple[str, str]] = []
    weights: list[float] = []
    for a, b in pairwise(cuts):
        here = [mark for mark in active if mark.t0 < b and mark.t1 > a]
        if not here:
            labels.append((BETWEEN, USEFUL))
            weights.append(b - a)
        for mark, share in zip(here, _mark_shares(here), strict=True):
            labels.append((mark.stage, mark.outcome))
            weights.append((b - a) * share)
    portions = split_exact(amount, weights)
    return [(s, o, part) for (s, o), part in zip(labels, portions, strict=True)]


def _mark_shares(marks: list[Mark]) -> list[float]:
    if all(mark.cpu_s for mark in marks):
        rates = [(mark.cpu_s or 0.0) / max(mark.t1 - mark.t0, 1e-9) for mark in marks]
        return [rate / sum(rates) for rate in rates]
    return [1.0 / len(marks)] * len(marks)


def split_exact(amount: int, weights: list[float]) -> list[int]:
    """Whole numbers in proportion to the weights whose sum is exactly `amount`: each is the
    difference of two rounded running totals, so none is off by more than one."""
    total = sum(weights)
    if total <= 0:
        return [amount] + [0] * (len(weights) - 1)
    parts, given, running = [], 0, 0.0
    for weight in weights[:-1]:
        running += weight
        upto = round(amount * running / total)
        parts.append(upto - given)
        given = upto
    return [*parts, amount - given]


def _pieces(
    row: EnergyRow, usage: list[UsageRow], starts: list[float]
) -> Iterator[tuple[float, float, UsageRow | None]]:
    """Cut [t0, t1] of an energy row at the usage rows over it; None where nobody looked."""
    cursor = row.t0
    at = max(bisect_right(starts, row.t0) - 1, 0)
    while at < len(usage) and usage[at].t0 < row.t1:
        use = usage[at]
        at += 1
        if use.t1 <= cursor:
            continue
        if use.t0 > cursor:
            yield cursor, use.t0, None
        a, b = max(cursor, use.t0), min(use.t1, row.t1)
        yield a, b, use
        cursor = b
    if cursor < row.t1:
        yield cursor, row.t1, None


def _marks_by_run(marks: Iterable[Mark]) -> dict[str, list[Mark]]:
    by_run: dict[str, list[Mark]] = {}
    for mark in sorted(marks, key=lambda m: (m.t0, m.t1, m.stage)):
        by_run.setdefault(mark.run, []).append(mark)
    return by_run
