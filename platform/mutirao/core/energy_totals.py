"""What a run used: machine rows and stage marks added up into one dict (`totals`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mutirao.core import carbon
from mutirao.core.attribution import (
    METER,
    MICRO,
    UNATTRIBUTED,
    Part,
    attribute,
    cpu_seconds,
)
from mutirao.core.energy_rows import (
    J_PER_KWH,
    Covered,
    GapRow,
    Row,
    UsageRow,
    merge,
    merge_usage,
    part_of,
    read_rows,
)
from mutirao.core.lease import boot_id, process_start
from mutirao.core.stage_marks import (
    OUTCOMES,
    Attempt,
    Mark,
    close_marks,
    read_attempts,
)

FORMAT = 1
BETWEEN_LABEL = "between stages"
EDGE_S = 1.0  # a meter takes half a second to start; that alone isn't worth a line
HOLE_S = 0.1


def totals(run_dir: Path, workdir: Path | None = None, country: str = "") -> dict[str, Any]:
    """What a run used, over all its attempts and all machines with a meter in this workdir.
    Empty for a run that was never measured. country: default, the one of the last attempt.

    stages: {name: energy_j, measured_j, useful_j, wasted_j, idle_j, wall_s, cpu_s, co2e_g,
    devices}; `machine`: everything the machines used in the run's time, with `unattributed_j`,
    `other_runs_j` and `meter_j`, so that energy_j + these three = machine energy_j.
    Memory and time: linear in the rows of the run's time (one row per device and 10 s).
    """
    workdir = workdir or run_dir.parent.parent
    attempts = read_attempts(run_dir)
    if not attempts:
        return {}
    run, country = attempts[0].run, country or attempts[-1].country
    rows = read_rows(workdir, since=attempts[0].t0)
    usage = {
        boot: seen
        for boot, seen in merge_usage(rows).items()
        if any(run in row.runs for row in seen)
    }
    marks, windows = close_marks(attempts, _last_seen(usage), _alive)
    rows = [row for row in rows if row.boot_id in usage]
    energy = _inside(merge(rows), windows)
    clipped = {boot: _inside(seen, windows) for boot, seen in usage.items()}
    gaps = _gaps(rows, clipped, windows, attempts)
    parts = list(attribute(energy, clipped, marks))
    return _summary(run, parts, marks, windows, clipped, country, gaps)


def _inside(rows: Iterable[Any], windows: list[tuple[float, float]]) -> list[Any]:
    """The parts of the rows inside the windows (disjoint, in order of time)."""
    found, first = [], 0
    for row in sorted(rows, key=lambda row: row.t0):
        while first < len(windows) and windows[first][1] <= row.t0:
            first += 1
        for t0, t1 in windows[first:]:
            if t0 >= row.t1:
                break
            found.append(part_of(row, t0, t1))
    return found


def _last_seen(usage: dict[str, list[UsageRow]]) -> Any:
    def last_seen(attempt: Attempt, before: float) -> float:
        rows = usage.get(attempt.boot_id, [])
        mine = (row for row in rows if attempt.run in row.runs)
        ends = [row.t1 for row in mine if (row.t0 + row.t1) / 2 < before]
        return min(max(ends, default=attempt.t0), before)

    return last_seen


def _alive(attempt: Attempt) -> bool:
    return attempt.boot_id == boot_id() and process_start(attempt.pid) == attempt.started


def _gaps(
    rows: list[Row],
    usage: dict[str, list[UsageRow]],
    windows: list[tuple[float, float]],
    attempts: list[Attempt],
) -> list[dict[str, Any]]:
    """Stretches without energy and why; zero-length gaps carry a meter's warnings."""
    found = [
        {"device": row.device, "t0": row.t0, "t1": row.t1, "reason": row.reason}
        for row in rows
        if isinstance(row, GapRow) and any(row.t1 >= a and row.t0 <= b for a, b in windows)
    ]
    for (t0, t1), attempt in zip(windows, attempts, strict=True):
        seen = Covered()
        for use in usage.get(attempt.boot_id, []):
            seen.add(use.t0, use.t1)
        for a, b in seen.free(t0, t1):
            if b - a >= (EDGE_S if a == t0 or b == t1 else HOLE_S):
                found.append({"device": "all", "t0": a, "t1": b, "reason": "no meter ran"})
    return found


def _summary(
    run: str,
    parts: list[Part],
    marks: list[Mark],
    windows: list[tuple[float, float]],
    usage: dict[str, list[UsageRow]],
    country: str,
    gaps: list[dict[str, Any]],
) -> dict[str, Any]:
    mine = [part for part in parts if part.run == run]
    factors = carbon.factors(country)
    grams = factors[0].g_per_kwh if factors else None
    cpu = cpu_seconds((row for rows in usage.values() for row in rows), run, marks)
    wall_s = round(sum(t1 - t0 for t0, t1 in windows), 3)
    names = dict.fromkeys([mark.stage for mark in marks] + [part.stage for part in mine])
    stages = {
        name or BETWEEN_LABEL: {
            **_sums([part for part in mine if part.stage == name], grams),
            "wall_s": _wall_s(mark for mark in marks if mark.stage == name)
            if name
            else round(max(0.0, wall_s - _wall_s(marks)), 3),
            "cpu_s": round(sum(s for (stage, _), s in cpu.items() if stage == name), 3),
        }
        for name in names
    }
    whole, machine = _sums(mine, grams), _machine(parts, run)
    lost = [gap for gap in gaps if gap["t1"] > gap["t0"]]
    return {
        "format": FORMAT,
        "run": run,
        **whole,
        "energy_kwh": whole["energy_j"] / J_PER_KWH,
        "measured_share": ratio(whole["measured_j"], whole["energy_j"]),
        "wall_s": wall_s,
        "cpu_s": round(sum(cpu.values()), 3),
        "attempts": len(windows),
        "stages": stages,
        "methods": _by(mine, lambda part: f"{part.device} {part.method}"),
        "machine": machine,
        "unattributed_j": machine["unattributed_j"],
        "carbon": _carbon(country, factors, whole["energy_j"]),
        "gaps": lost,
        "gap_s": round(sum(gap["t1"] - gap["t0"] for gap in lost if gap["device"] == "all"), 3),
        "notes": sorted({gap["reason"] for gap in gaps if gap["t1"] == gap["t0"]}),
    }


def _sums(parts: list[Part], grams: float | None) -> dict[str, Any]:
    energy_j = _joules(parts)
    return {
        "energy_j": energy_j,
        "measured_j": _joules(part for part in parts if part.measured),
        **{f"{o}_j": _joules(part for part in parts if part.outcome == o) for o in OUTCOMES},
        "co2e_g": None if grams is None else energy_j / J_PER_KWH * grams,
        "devices": _by(parts, lambda part: part.device.split(":")[0]),
    }


def _joules(parts: Iterable[Part]) -> float:
    return sum(part.energy_uj for part in parts) / MICRO


def _by(parts: Iterable[Part], name: Any) -> dict[str, float]:
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(name(part), []).append(part)
    return {key: _joules(groups[key]) for key in sorted(groups)}


def _machine(parts: list[Part], run: str) -> dict[str, Any]:
    ours = {run, METER, UNATTRIBUTED}
    return {
        "energy_j": _joules(parts),
        "unattributed_j": _joules(part for part in parts if part.run == UNATTRIBUTED),
        "meter_j": _joules(part for part in parts if part.run == METER),
        "other_runs_j": _joules(part for part in parts if part.run not in ours),
    }


def _carbon(country: str, factors: list[carbon.Factor], energy_j: float) -> dict[str, Any]:
    kwh = energy_j / J_PER_KWH
    rows = [{**vars(factor), "co2e_g": kwh * factor.g_per_kwh} for factor in factors]
    grams = [row["co2e_g"] for row in rows]
    span = [min(grams), max(grams)] if len(grams) > 1 else None
    return {"country": country, "factors": rows, "range_g": span}


def _wall_s(marks: Iterable[Mark]) -> float:
    spans = Covered()
    for mark in marks:
        for t0, t1 in spans.free(mark.t0, mark.t1):
            spans.add(t0, t1)
    return round(spans.seconds, 3)


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
