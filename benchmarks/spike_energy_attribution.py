"""Spike: are joules of a shared machine booked once, and to the right run and stage?

Two runs share the machine and one meter. Run `a` burns CPU in children that live 0.2 to 0.4 s, in
two stages that overlap; run `b` burns half of the time in its own process. Both know the truth from
the kernel's own account (`os.times`). Compared: the sum of all parts with the sum of the machine
rows, each run's CPU seconds and its share of the CPU joules with the truth, and what the meter
itself costs. Usage: python benchmarks/spike_energy_attribution.py --seconds 40 [--meter auto]
Result: docs/decisions/0005-energy-attribution.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from mutirao.core import ledger
from mutirao.core.attribution import attribute
from mutirao.core.energy import EnergyMeter
from mutirao.core.energy_rows import EnergyRow, UsageRow, merge, merge_usage, read_rows
from mutirao.core.recipe import Energy

BURN = "import time\ne = time.process_time() + {}\nwhile time.process_time() < e: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--meter", default="auto")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--workdir", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        drive(Path(options.workdir), options.run, options.seconds, options.meter)
        return
    with tempfile.TemporaryDirectory() as folder:
        truth = both(Path(folder), options)
        print(json.dumps(compare(Path(folder), truth), indent=1))


def both(workdir: Path, options: argparse.Namespace) -> dict[str, float]:
    """Start both drivers, three seconds apart; returns the CPU seconds that each says it used."""
    shared = [
        "--workdir",
        str(workdir),
        "--seconds",
        str(options.seconds),
        "--meter",
        options.meter,
    ]
    started = []
    for run in ("a", "b"):
        command = [sys.executable, __file__, "--run", run, *shared]
        started.append((run, subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
        time.sleep(3)
    return {run: float(process.communicate()[0].split()[-1]) for run, process in started}


def drive(workdir: Path, run: str, seconds: float, kind: str) -> None:
    run_dir = workdir / "runs" / run
    run_dir.mkdir(parents=True)
    with EnergyMeter(workdir, run, run_dir, Energy(meter=kind)) as meter:
        before = sum(os.times()[:4])
        (overlapping if run == "a" else half_idle)(meter, seconds)
        used = sum(os.times()[:4]) - before
    print(used)


def overlapping(meter: EnergyMeter, seconds: float) -> None:
    """clean for the first 60 % of the time, exact for the last 60 %; short-lived children."""

    def stage(name: str, start_s: float, length_s: float) -> None:
        time.sleep(start_s)
        chance, end = random.Random(name), time.monotonic() + length_s
        with meter.stage(name):
            while time.monotonic() < end:
                code = BURN.format(chance.uniform(0.2, 0.4))
                subprocess.run([sys.executable, "-c", code], check=True)

    plan = [("clean", 0.0, 0.6 * seconds), ("exact", 0.4 * seconds, 0.6 * seconds)]
    threads = [threading.Thread(target=stage, args=row) for row in plan]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def half_idle(meter: EnergyMeter, seconds: float) -> None:
    end = time.monotonic() + seconds
    with meter.stage("train"):
        while time.monotonic() < end:
            exec(BURN.format(0.3))
            time.sleep(0.3)


def compare(workdir: Path, truth: dict[str, float]) -> dict[str, object]:
    rows = read_rows(workdir)
    energy, usage = merge(rows), merge_usage(rows)
    machine_uj = sum(round(row.energy_j * 1e6) for row in rows if isinstance(row, EnergyRow))
    parts = list(attribute(energy, usage, []))
    totals = {run: ledger.totals(workdir / "runs" / run) for run in truth}
    cpu_j = {run: t["devices"]["cpu"] for run, t in totals.items()}
    share = cpu_j["a"] / sum(cpu_j.values())
    looks = [row for row in rows if isinstance(row, UsageRow)]
    early = [row.t1 for row in energy if row.method == "codecarbon:first_value"]
    ready = max(early, default=looks[0].t0)  # codecarbon has started
    settled = [row for row in looks if row.t0 >= ready]
    return {
        "machine_uj": machine_uj,
        "parts_uj": sum(part.energy_uj for part in parts),
        "cpu_s_truth": truth,
        "cpu_s_ledger": {run: t["cpu_s"] for run, t in totals.items()},
        "share_of_a_truth": truth["a"] / sum(truth.values()),
        "share_of_a_cpu_joules": share,
        "stages_of_a_j": {k: round(v["energy_j"], 2) for k, v in totals["a"]["stages"].items()},
        "machine_of_a_j": totals["a"]["machine"],
        "meter_cpu_s": round(sum(row.meter_cpu_s for row in looks), 2),
        "meter_cpu_percent_settled": round(
            100 * sum(r.meter_cpu_s for r in settled) / sum(r.t1 - r.t0 for r in settled), 2
        ),
        "processes": len(os.listdir("/proc")),
        "busy_cpu_s": round(sum(row.busy_cpu_s for row in looks), 1),
        "gaps_s": {run: t["gap_s"] for run, t in totals.items()},
        "ledger_bytes": sum(p.stat().st_size for p in workdir.glob("ledger/*/*.jsonl")),
    }


if __name__ == "__main__":
    main()
