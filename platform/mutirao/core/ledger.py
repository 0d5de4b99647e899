"""The energy of a run: totals by stage, as a table, as JSON, as codecarbon's CSV.

In: the machine rows of a workdir (`energy_rows`) and the stage marks of a run (`stage_marks`).
Out: `totals(run_dir)`, the one dict behind `mutirao energy show`, the report and the run's record.
Energy in joules, times in seconds, CO2e in grams.
"""

from __future__ import annotations

import csv
import textwrap
from pathlib import Path
from typing import Any

from mutirao.core import carbon
from mutirao.core.energy_rows import J_PER_KWH, merge, read_rows
from mutirao.core.energy_totals import ratio, totals
from mutirao.core.stage_marks import OUTCOMES

__all__ = ["export_rows", "merge", "read_rows", "show", "totals"]

COLUMNS = 79


def show(run_dir: Path, workdir: Path | None = None, country: str = "") -> list[str]:
    """`totals` as lines for a terminal: kWh first, then by stage, the machine, CO2e, gaps."""
    t = totals(run_dir, workdir, country)
    if not t:
        return [f"{run_dir.name}: no energy was measured"]
    attempts = f" in {t['attempts']} attempts" if t["attempts"] > 1 else ""
    lines = [
        f"{t['run']}: {kwh(t['energy_j'])} kWh ({t['energy_j']:,.1f} J) in {t['wall_s']:,.1f} s"
        f"{attempts}, {t['measured_share']:.0%} measured",
        "",
        f"{'stage':<16}{'kWh':>11}{'share':>7}{'measured':>10}{'wasted':>8}"
        f"{'wall s':>9}{'CPU s':>9}{'gCO2e':>9}",
    ]
    for name, row in t["stages"].items():
        share, measured = ratio(row["energy_j"], t["energy_j"]), row["measured_j"]
        grams = "?" if row["co2e_g"] is None else f"{row['co2e_g']:,.4f}"
        lines.append(
            f"{name:<16}{kwh(row['energy_j']):>11}{share:>7.0%}"
            f"{ratio(measured, row['energy_j']):>10.0%}"
            f"{ratio(row['wasted_j'], row['energy_j']):>8.0%}"
            f"{row['wall_s']:>9,.1f}{row['cpu_s']:>9,.1f}{grams:>9}"
        )
    tail = [*_machine_lines(t), *_carbon_lines(t), *_gap_lines(t)]
    return [*lines, "", *(piece for line in tail for piece in _wrapped(line))]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, COLUMNS, subsequent_indent="  ", drop_whitespace=True)


def kwh(energy_j: float) -> str:
    """Joules as kWh for people: never an exponent."""
    value = energy_j / J_PER_KWH
    return f"{value:.7f}" if value < 0.01 else f"{value:,.4g}"


def _machine_lines(t: dict[str, Any]) -> list[str]:
    m = t["machine"]
    outcomes = ", ".join(f"{name} {ratio(t[f'{name}_j'], t['energy_j']):.0%}" for name in OUTCOMES)
    methods = ", ".join(
        f"{method} {ratio(energy_j, t['energy_j']):.0%}"
        for method, energy_j in t["methods"].items()
    )
    return [
        f"outcome: {outcomes}",
        f"method: {methods or 'none'}",
        f"machine in that time: {kwh(m['energy_j'])} kWh: this run"
        f" {ratio(t['energy_j'], m['energy_j']):.0%},"
        f" other runs {ratio(m['other_runs_j'], m['energy_j']):.0%},"
        f" the meter {ratio(m['meter_j'], m['energy_j']):.1%},"
        f" unattributed {ratio(m['unattributed_j'], m['energy_j']):.0%}",
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


def export_rows(run_dir: Path, path: Path, workdir: Path | None = None, country: str = "") -> int:
    """Write one CSV row per stage under the names of codecarbon's emissions.csv (energies in kWh,
    emissions in kg), so that its tools read it; returns the number of rows. experiment_id is the
    stage; tracking_mode says how the joules came about."""
    t = totals(run_dir, workdir, country)
    stages = t.get("stages", {})
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
        for stage, row in stages.items():
            used_kwh = {d: row["devices"].get(d, 0.0) / J_PER_KWH for d in ("cpu", "gpu", "ram")}
            writer.writerow(
                {
                    "project_name": "mutirao",
                    "run_id": t["run"],
                    "experiment_id": stage,
                    "duration": row["wall_s"],
                    "emissions": "" if row["co2e_g"] is None else row["co2e_g"] / 1000,
                    **{f"{device}_energy": energy for device, energy in used_kwh.items()},
                    "energy_consumed": row["energy_j"] / J_PER_KWH,
                    "country_iso_code": t["carbon"]["country"],
                    "tracking_mode": "; ".join(t["methods"]),
                    "pue": 1.0,
                    "wue": 0.0,
                }
            )
    return len(stages)
