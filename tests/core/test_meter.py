"""The measuring process for real: election, take-over, kill -9 of meter and driver, budget."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from mutirao.core import ledger
from mutirao.core.energy import EnergyMeter
from mutirao.core.energy_rows import APPEND_S, EnergyRow, RunUse, UsageRow
from mutirao.core.errors import Stopped
from mutirao.core.joined_rows import Joined
from mutirao.core.recipe import Energy

FAST = Energy(meter="constant", cpu_watts=100.0, interval_s=0.2)


def measured(workdir: Path, run: str, energy: Energy = FAST) -> EnergyMeter:
    run_dir = workdir / "runs" / run
    run_dir.mkdir(parents=True, exist_ok=True)
    return EnergyMeter(workdir, run, run_dir, energy)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def rows(workdir: Path, kind: type) -> list:
    return [row for row in ledger.read_rows(workdir) if isinstance(row, kind)]


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def running(meter: EnergyMeter) -> Callable[[], bool]:
    return lambda: meter._measuring() != 0


def test_a_run_is_measured_by_stage_and_the_meter_ends_with_it(tmp_path):
    with measured(tmp_path, "r1") as meter:
        wait_for(running(meter), "the meter")
        with meter.stage("clean"):
            burn(0.5)
        with meter.stage("train"):
            time.sleep(0.3)
        process = meter.process
    assert process is not None and process.returncode == 0
    assert meter.warnings == []
    t = ledger.totals(tmp_path / "runs" / "r1")
    assert t["stages"]["clean"]["energy_j"] > t["stages"]["train"]["energy_j"]
    assert t["cpu_s"] == pytest.approx(0.5, abs=0.3)
    assert t["measured_share"] == 0.0 and "cpu constant" in t["methods"]
    parts = t["machine"]
    others = parts["unattributed_j"] + parts["other_runs_j"] + parts["meter_j"]
    assert t["energy_j"] + others == pytest.approx(parts["energy_j"], abs=1e-5)
    assert list((tmp_path / "ledger").glob("*/runs/*")) == []


def test_the_driver_tells_its_children_whose_they_are(tmp_path):
    assert "MUTIRAO_RUN_ID" not in os.environ
    with measured(tmp_path, "r1"):
        assert os.environ["MUTIRAO_RUN_ID"] == "r1"
    assert "MUTIRAO_RUN_ID" not in os.environ


DRIVER = """
    import sys, time
    from pathlib import Path
    from mutirao.core.energy import EnergyMeter
    from mutirao.core.recipe import Energy

    workdir, run, cpu_s, wait_s = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    energy = Energy(meter="constant", cpu_watts=100.0, interval_s=0.2)
    run_dir = workdir / "runs" / run
    run_dir.mkdir(parents=True, exist_ok=True)
    with EnergyMeter(workdir, run, run_dir, energy) as meter:
        while not meter._measuring():
            time.sleep(0.02)
        print(meter.process.pid, flush=True)
        with meter.stage("clean"):
            end = time.process_time() + float(cpu_s)
            while time.process_time() < end:
                pass
            time.sleep(float(wait_s))
"""


def driver(workdir: Path, run: str, cpu_s: float, wait_s: float = 0.0) -> subprocess.Popen:
    code = textwrap.dedent(DRIVER)
    command = [sys.executable, "-c", code, str(workdir), run, str(cpu_s), str(wait_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_two_runs_share_one_meter_and_no_joule_is_booked_twice(tmp_path):
    one, two = driver(tmp_path, "a", 1.5), driver(tmp_path, "b", 0.5, 1.2)
    assert one.wait(60) == 0 and two.wait(60) == 0
    a, b = (ledger.totals(tmp_path / "runs" / run) for run in "ab")
    assert a["cpu_s"] == pytest.approx(1.5, abs=0.4)
    assert b["cpu_s"] == pytest.approx(0.5, abs=0.4)
    usage = sorted(rows(tmp_path, UsageRow), key=lambda row: row.t0)
    assert {"a", "b"} in [set(row.runs) for row in usage]
    for before, after in pairwise(usage):
        assert before.t1 <= after.t0 + 1e-6  # never two meters at the same time
    merged = ledger.merge(rows(tmp_path, EnergyRow))
    machine_j = sum(row.energy_j for row in merged)
    assert sum(row.energy_j for row in rows(tmp_path, EnergyRow)) == pytest.approx(machine_j)
    assert a["energy_j"] + b["energy_j"] < machine_j
    assert a["machine"]["other_runs_j"] > 0


def test_a_waiting_meter_takes_over_when_the_first_run_ends(tmp_path):
    first = driver(tmp_path, "a", 0.1, 0.5)
    assert first.stdout is not None
    holder = int(first.stdout.readline())
    with measured(tmp_path, "b") as meter:
        assert first.wait(30) == 0
        assert meter.process is not None
        wait_for(lambda: meter._measuring() == meter.process.pid, "the second meter")
        assert holder != meter.process.pid
        with meter.stage("clean"):
            burn(0.4)
    t = ledger.totals(tmp_path / "runs" / "b")
    assert t["stages"]["clean"]["cpu_s"] > 0.2


def test_rows_of_a_meter_killed_with_kill_9_are_readable_and_the_gap_shows(tmp_path):
    with measured(tmp_path, "r1") as meter:
        wait_for(running(meter), "the meter")
        with meter.stage("clean"):
            burn(0.5)
        end = time.time()
        wait_for(
            lambda: any(row.t1 >= end for row in rows(tmp_path, UsageRow)), "rows of the stage"
        )
        first = meter.process
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: meter.process is not first and meter._measuring() != 0, "a new meter")
        with meter.stage("train"):
            burn(0.3)
    assert any("ended early" in line or "started again" in line for line in meter.warnings)
    t = ledger.totals(tmp_path / "runs" / "r1")
    assert t["stages"]["clean"]["energy_j"] > 0 and t["stages"]["train"]["energy_j"] > 0
    assert t["gap_s"] > 0 and any(gap["reason"] == "no meter ran" for gap in t["gaps"])


def test_a_meter_ends_when_its_driver_is_killed_and_the_stage_is_wasted(tmp_path):
    process = driver(tmp_path, "a", 0.5, 60)
    assert process.stdout is not None
    meter_pid = int(process.stdout.readline())
    wait_for(lambda: rows(tmp_path, UsageRow), "the first rows")
    time.sleep(0.8)
    process.kill()
    process.wait()
    wait_for(lambda: gone(meter_pid), "the end of the meter")
    t = ledger.totals(tmp_path / "runs" / "a")
    row = t["stages"]["clean"]
    assert row["wasted_j"] > 0 and row["useful_j"] == 0
    assert row["wall_s"] < 30  # closed at the last row, not now


def test_a_stopped_stage_is_useful_and_a_failed_one_wasted_but_for_its_finished_parts(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    with measured(tmp_path, "r1") as meter:
        wait_for(running(meter), "the meter")
        with pytest.raises(Stopped), meter.stage("train"):
            burn(0.2)
            raise Stopped("SIGTERM")
        with pytest.raises(ValueError), meter.stage("clean", finished=(parts, "*.part.json")):
            burn(0.3)
            (parts / "0.part.json").write_text("{}")
            burn(0.3)
            raise ValueError
    stages = ledger.totals(tmp_path / "runs" / "r1")["stages"]
    assert stages["train"]["wasted_j"] == 0 and stages["train"]["useful_j"] > 0
    half = stages["clean"]["energy_j"] / 2
    assert stages["clean"]["wasted_j"] == pytest.approx(half, rel=0.4)
    assert stages["clean"]["useful_j"] == pytest.approx(half, rel=0.4)


def test_the_budget_says_stop_and_counts_earlier_attempts(tmp_path):
    energy = FAST.model_copy(update={"budget_kwh": 20 / 3.6e6})  # 20 J
    with measured(tmp_path, "r1", energy) as meter:
        wait_for(running(meter), "the meter")
        assert meter.check_budget() == "ok"
        with meter.stage("train"):
            burn(1.0)  # 50 to 100 J
    with measured(tmp_path, "r1", energy) as meter:
        assert meter.check_budget() == "stop" and meter.over_budget()
    raised = FAST.model_copy(update={"budget_kwh": 1.0})
    with measured(tmp_path, "r1", raised) as meter:
        assert meter.check_budget() == "ok"


def test_the_budget_is_noticed_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("mutirao.core.energy.BUDGET_S", 0.0)
    energy = FAST.model_copy(update={"budget_kwh": 60 / 3.6e6})
    with measured(tmp_path, "r1", energy) as meter:
        wait_for(running(meter), "the meter")
        seen = []
        for _ in range(100):
            with meter.stage("clean"):  # each border puts the rows before it on disk
                burn(0.1)
            seen.append(meter.check_budget())
            time.sleep(0.1)
            if seen[-1] == "stop":
                break
    assert seen[0] == "ok" and seen[-1] == "stop"
    assert seen == sorted(seen, key=["ok", "warn", "stop"].index)


def test_an_unknown_country_is_a_warning_and_no_grams(tmp_path):
    with measured(tmp_path, "r1", FAST.model_copy(update={"country": "XXX"})) as meter:
        pass
    assert "no CO2e factor for 'XXX'" in meter.warnings[0]
    t = ledger.totals(tmp_path / "runs" / "r1")
    assert t["co2e_g"] is None
    assert "CO2e: no factor for XXX" in ledger.show(tmp_path / "runs" / "r1")


def test_looks_that_meet_become_one_row_of_ten_seconds():
    out: list = []
    joined = Joined(out.extend)
    for n in range(25):
        t0, t1 = n * 1.0, n + 1.0
        use = UsageRow("b", t0, t1, 2.0, 50, {"r": RunUse(1.0, 10)}, 0.1)
        joined.add([EnergyRow("b", "cpu", t0, t1, 5.0, "rapl", True), use])
    joined.flush()
    usage = [row for row in out if isinstance(row, UsageRow)]
    assert [row.t1 - row.t0 for row in usage] == [APPEND_S, APPEND_S, 5.0]
    assert usage[0].runs["r"] == RunUse(10.0, 10) and usage[0].busy_cpu_s == 20.0
    assert [row.energy_j for row in out if isinstance(row, EnergyRow)] == [50.0, 50.0, 25.0]


def test_looks_with_other_methods_or_holes_between_stay_apart():
    out: list = []
    joined = Joined(out.extend)
    joined.add([EnergyRow("b", "cpu", 0, 1, 5.0, "rapl", True)])
    joined.add([EnergyRow("b", "cpu", 1, 2, 5.0, "constant", False)])
    joined.add([EnergyRow("b", "cpu", 3, 4, 5.0, "constant", False)])
    joined.flush()
    assert [(row.t0, row.t1) for row in out] == [(0, 1), (1, 2), (3, 4)]
