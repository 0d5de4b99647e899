"""The energy of a run: totals by stage, as a table, as JSON, as codecarbon's CSV.

In: the machine rows of a workdir (`energy_rows`) and the stage marks of a run (`stage_marks`).
Out: `totals(run_dir)`, the one dict behind `mutirao energy show`, the report and the run's record.
Energy in joules, times in seconds, CO2e in grams.
"""

from __future__ import annotations

import csv
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
from mutirao.core.budget import J_PER_KWH
from mutirao.core.energy_rows import (
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

__all__ = ["export_rows", "merge", "read_rows", "show", "totals"]

FORMAT = 1
BETWEEN_LABEL = "(between stages)"
STRAY_GAP_S = 0.5  # shorter holes at the edges of a run are not worth a line


def totals(run_dir: Path, workdir: Path | None = None, country: str = "BRA") -> dict[str, Any]:
    """What a run used, over all its attempts and all machines with a meter in this workdir.

    stages: {name: energy_j, measured_j, useful_j, wasted_j, idle_j, wall_s, cpu_s, co2e_g,
    devices}; `machine`: everything the machines used in the run's time, with `unattributed_j`,
    `other_runs_j` and `meter_j`, so that energy_j + these three = machine energy_j.
    Memory and time: linear in the rows of the run's time (one row per device and 10 s).
    """
    workdir = workdir or run_dir.parent.parent
    attempts = read_attempts(run_dir)
    if not attempts:
        return _summary(run_dir.name, [], [], [], {}, country, [])
    run = attempts[0].run
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
        ends = [row.t1 for row in rows if attempt.run in row.runs and row.t0 < before]
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
            if b - a >= STRAY_GAP_S:
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
    names = dict.fromkeys([mark.stage for mark in marks] + [part.stage for part in mine])
    stages = {
        name or BETWEEN_LABEL: {
            **_sums([part for part in mine if part.stage == name], grams),
            "wall_s": _wall_s(mark for mark in marks if mark.stage == name),
            "cpu_s": round(sum(s for (stage, _), s in cpu.items() if stage == name), 3),
        }
        for name in names
    }
    whole = _sums(mine, grams)
    lost = [gap for gap in gaps if gap["t1"] > gap["t0"]]
    return {
        "format": FORMAT,
        "run": run,
        **whole,
        "energy_kwh": whole["energy_j"] / J_PER_KWH,
        "measured_share": _ratio(whole["measured_j"], whole["energy_j"]),
        "wall_s": round(sum(t1 - t0 for t0, t1 in windows), 3),
        "cpu_s": round(sum(cpu.values()), 3),
        "attempts": len(windows),
        "stages": stages,
        "methods": _by(mine, lambda part: f"{part.device} {part.method}"),
        "machine": _machine(parts, run),
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


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def show(run_dir: Path, workdir: Path | None = None, country: str = "BRA") -> list[str]:
    """`totals` as lines for a terminal: kWh first, then by stage, the machine, CO2e, gaps."""
    t = totals(run_dir, workdir, country)
    attempts = f" in {t['attempts']} attempts" if t["attempts"] > 1 else ""
    lines = [
        f"{t['run']}: {_kwh(t['energy_j'])} kWh ({t['energy_j']:,.1f} J) in {t['wall_s']:,.1f} s"
        f"{attempts}, {t['measured_share']:.0%} measured, the rest estimated",
        "",
        f"{'stage':<18}{'kWh':>11}{'share':>7}{'measured':>10}{'wasted':>8}"
        f"{'wall s':>10}{'CPU s':>10}{'gCO2e':>10}",
    ]
    for name, row in t["stages"].items():
        share, measured = _ratio(row["energy_j"], t["energy_j"]), row["measured_j"]
        grams = "?" if row["co2e_g"] is None else f"{row['co2e_g']:.3g}"
        lines.append(
            f"{name:<18}{_kwh(row['energy_j']):>11}{share:>7.0%}"
            f"{_ratio(measured, row['energy_j']):>10.0%}"
            f"{_ratio(row['wasted_j'], row['energy_j']):>8.0%}"
            f"{row['wall_s']:>10,.1f}{row['cpu_s']:>10,.1f}{grams:>10}"
        )
    return lines + ["", *_machine_lines(t), *_carbon_lines(t), *_gap_lines(t)]


def _kwh(energy_j: float) -> str:
    return f"{energy_j / J_PER_KWH:.4g}"


def _machine_lines(t: dict[str, Any]) -> list[str]:
    m = t["machine"]
    outcomes = ", ".join(f"{name} {_ratio(t[f'{name}_j'], t['energy_j']):.0%}" for name in OUTCOMES)
    methods = ", ".join(
        f"{method} {_ratio(energy_j, t['energy_j']):.0%}"
        for method, energy_j in t["methods"].items()
    )
    return [
        f"outcome: {outcomes}",
        f"method: {methods or 'none'}",
        f"machine in that time: {_kwh(m['energy_j'])} kWh: this run"
        f" {_ratio(t['energy_j'], m['energy_j']):.0%},"
        f" other runs {_ratio(m['other_runs_j'], m['energy_j']):.0%},"
        f" the meter {_ratio(m['meter_j'], m['energy_j']):.1%},"
        f" unattributed {_ratio(m['unattributed_j'], m['energy_j']):.0%}",
    ]


def _carbon_lines(t: dict[str, Any]) -> list[str]:
    factors = carbon.factors(t["carbon"]["country"])
    if not factors:
        return [f"CO2e: no factor for {t['carbon']['country']}"]
    lines = [f"CO2e: {t['co2e_g']:.3g} g at {factors[0]}"]
    if span := t["carbon"]["range_g"]:
        others = "; ".join(str(factor) for factor in factors[1:])
        lines.append(f"  by other accounts {span[0]:.3g} to {span[1]:.3g} g: {others}")
    return lines


def _gap_lines(t: dict[str, Any]) -> list[str]:
    reasons: dict[tuple[str, str], float] = {}
    for gap in t["gaps"]:
        key = (gap["device"], gap["reason"])
        reasons[key] = reasons.get(key, 0.0) + gap["t1"] - gap["t0"]
    lines = [f"gap: {s:,.1f} s of {device}: {why}" for (device, why), s in reasons.items()]
    return lines + [f"note: {line}" for line in t["notes"]]


def export_rows(
    run_dir: Path, path: Path, workdir: Path | None = None, country: str = "BRA"
) -> int:
    """Write one CSV row per stage under the names of codecarbon's emissions.csv (energies in kWh,
    emissions in kg), so that its tools read it; returns the number of rows. experiment_id is the
    stage; tracking_mode says how the joules came about."""
    t = totals(run_dir, workdir, country)
    names = [
        "project_name",
        "run_id",
        "experiment_id",
        "duration",
        "emissions",
        "cpu_energy",
        "gpu_energy",
        "ram_energy",
        "energy_consumed",
        "country_iso_code",
        "tracking_mode",
        "pue",
        "wue",
    ]
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        for stage, row in t["stages"].items():
            kwh = {d: row["devices"].get(d, 0.0) / J_PER_KWH for d in ("cpu", "gpu", "ram")}
            writer.writerow(
                {
                    "project_name": "mutirao",
                    "run_id": t["run"],
                    "experiment_id": stage,
                    "duration": row["wall_s"],
                    "emissions": "" if row["co2e_g"] is None else row["co2e_g"] / 1000,
                    **{f"{device}_energy": energy for device, energy in kwh.items()},
                    "energy_consumed": row["energy_j"] / J_PER_KWH,
                    "country_iso_code": country,
                    "tracking_mode": "; ".join(t["methods"]),
                    "pue": 1.0,
                    "wue": 0.0,
                }
            )
    return len(t["stages"])
