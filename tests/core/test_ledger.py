"""The ledger on disk and its totals: torn lines, gaps, killed attempts, what the table says."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pytest

from mutirao.core import carbon, ledger
from mutirao.core.energy_rows import (
    EnergyRow,
    GapRow,
    RunUse,
    SegmentWriter,
    UsageRow,
    read_segment,
    segments,
)
from mutirao.core.errors import DataError, UserError
from mutirao.core.stage_marks import MarkWriter, read_attempts

BOOT = "some-boot"


class World:
    """A workdir with one machine and one run, written by hand. Times count from `start`."""

    def __init__(self, root: Path):
        self.root, self.start = root, time.time() - 10_000
        self.run_dir = root / "runs" / "r1"
        self.marks = self.run_dir / "ledger"
        self.marks.mkdir(parents=True)
        self.attempts = 0

    def attempt(self, *lines: tuple) -> None:
        """lines: (time, kind, {values})"""
        path = self.marks / f"{self.attempts:08d}.jsonl"
        self.attempts += 1
        with open(path, "w") as stream:
            for t, kind, values in lines:
                record = {"format": 1, "kind": kind, "t": self.start + t, **values}
                if kind == "attempt":
                    record |= {"run": "r1", "boot_id": BOOT, "pid": 2**22 + 1, "started": "1"}
                    record |= {"country": "BRA"}
                stream.write(json.dumps(record) + "\n")

    def machine(self, until: float, watts: float = 10, share: float = 0.5, since: float = 0):
        rows: list = []
        t = since
        while t < until:
            a, b = self.start + t, self.start + t + 10
            rows.append(EnergyRow(BOOT, "cpu:package-0", a, b, watts * 10, "rapl", True))
            rows.append(EnergyRow(BOOT, "ram", a, b, 10, "codecarbon:ram_model", False))
            rows.append(UsageRow(BOOT, a, b, 10, 0, {"r1": RunUse(10 * share), "other": RunUse(1)}))
            t += 10
        self.write(rows)

    def write(self, rows: list) -> None:
        writer = SegmentWriter(self.root / "ledger" / BOOT)
        writer.append(rows)
        writer.close()


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_totals_by_stage_with_the_machine_around_them(world):
    world.machine(100)
    world.attempt(
        (0, "attempt", {}),
        (0, "begin", {"mark": 1, "stage": "clean", "outcome": "useful"}),
        (40, "end", {"mark": 1}),
        (50, "begin", {"mark": 2, "stage": "train", "outcome": "useful"}),
        (100, "end", {"mark": 2}),
        (100, "attempt_end", {}),
    )
    t = ledger.totals(world.run_dir)
    assert t["energy_j"] == pytest.approx(550)  # half of 1000 J CPU and of 100 J memory
    assert t["stages"]["clean"]["energy_j"] == pytest.approx(220)
    assert t["stages"]["train"]["energy_j"] == pytest.approx(275)
    assert t["stages"]["between stages"]["energy_j"] == pytest.approx(55)
    assert t["stages"]["clean"]["wall_s"] == pytest.approx(40)
    assert t["stages"]["clean"]["cpu_s"] == pytest.approx(20)
    assert t["measured_share"] == pytest.approx(500 / 550)
    machine = t["machine"]
    assert machine["energy_j"] == pytest.approx(1100)
    assert machine["other_runs_j"] == pytest.approx(110)
    assert machine["unattributed_j"] == pytest.approx(440)
    assert t["co2e_g"] == pytest.approx(550 / 3.6e6 * 98.3)
    assert t["carbon"]["range_g"][0] == pytest.approx(550 / 3.6e6 * 38.5)
    assert t["gaps"] == []


def test_rows_outside_the_run_are_not_its_machine(world):
    world.machine(1000)
    world.attempt((105, "attempt", {}), (200, "attempt_end", {}))
    assert ledger.totals(world.run_dir)["machine"]["energy_j"] == pytest.approx(95 * 11)


def test_a_killed_attempt_is_wasted_from_its_last_kept_result_on(world):
    world.machine(60)
    world.machine(200, since=100)
    begin = {"mark": 1, "stage": "train", "outcome": "useful"}
    world.attempt((0, "attempt", {}), (0, "begin", begin), (20, "keep", {"mark": 1}))
    world.attempt(
        (100, "attempt", {}),
        (100, "begin", begin),
        (200, "end", {"mark": 1}),
        (200, "attempt_end", {}),
    )
    t = ledger.totals(world.run_dir)
    row = t["stages"]["train"]
    assert t["attempts"] == 2
    assert row["wasted_j"] == pytest.approx(40 * 5.5)
    assert row["useful_j"] == pytest.approx(120 * 5.5)
    assert row["wall_s"] == pytest.approx(160)


def test_a_hole_in_the_rows_is_a_gap_and_adds_nothing(world):
    world.machine(50)
    world.machine(200, since=100)
    world.attempt((0, "attempt", {}), (200, "attempt_end", {}))
    t = ledger.totals(world.run_dir)
    assert t["machine"]["energy_j"] == pytest.approx(150 * 11)
    assert t["gap_s"] == pytest.approx(50)
    assert "gap: 50.0 s of all: no meter ran" in ledger.show(world.run_dir)


def test_gap_rows_and_notes_keep_their_reason(world):
    world.machine(100)
    a = world.start + 10
    world.write(
        [
            GapRow(BOOT, "gpu:GPU-1", a, a + 5, "impossible: 90,000 W"),
            GapRow(BOOT, "note x", a, a, "only root may read RAPL"),
        ]
    )
    world.attempt((0, "attempt", {}), (100, "attempt_end", {}))
    t = ledger.totals(world.run_dir)
    assert [gap["reason"] for gap in t["gaps"]] == ["impossible: 90,000 W"]
    assert t["notes"] == ["only root may read RAPL"]


def test_a_torn_last_line_costs_that_line_only(world):
    world.machine(100)
    path = segments(world.root / "ledger" / BOOT)[0]
    whole, _ = read_segment(path)
    path.write_bytes(path.read_bytes()[:-20])
    rows, offset = read_segment(path)
    assert rows == whole[:-1]
    with open(path, "ab") as stream:
        stream.write(b"\n")
    with pytest.raises(DataError):  # a damaged line in the middle is no kill's doing
        read_segment(path)
    assert offset < path.stat().st_size


def test_a_newer_ledger_is_refused_with_the_cure(world):
    folder = world.root / "ledger" / BOOT
    folder.mkdir(parents=True)
    (folder / "00000000-1.jsonl").write_text('{"format": 2, "kind": "energy"}\n')
    with pytest.raises(UserError, match="newer mutirao"):
        ledger.read_rows(world.root)


def test_segments_are_numbered_and_never_written_again(tmp_path):
    row = GapRow(BOOT, "cpu", 0, 1, "x")
    for _ in range(3):
        writer = SegmentWriter(tmp_path)
        writer.append([row])
        writer.close()
    SegmentWriter(tmp_path).close()  # nothing to say: no file
    names = [f"{n:08d}-{os.getpid()}.jsonl" for n in range(3)]
    assert [path.name for path in segments(tmp_path)] == names


def test_a_run_that_was_never_measured(tmp_path):
    run_dir = tmp_path / "runs" / "r0"
    run_dir.mkdir(parents=True)
    assert ledger.totals(run_dir) == {}
    assert "no energy was measured" in ledger.show(run_dir)[0]
    assert ledger.export_rows(run_dir, tmp_path / "emissions.csv") == 0


def test_the_csv_has_codecarbons_names_and_units(world, tmp_path):
    world.machine(100)
    world.attempt(
        (0, "attempt", {}),
        (0, "begin", {"mark": 1, "stage": "clean", "outcome": "useful"}),
        (100, "end", {"mark": 1}),
        (100, "attempt_end", {}),
    )
    assert ledger.export_rows(world.run_dir, tmp_path / "emissions.csv") == 1
    with open(tmp_path / "emissions.csv") as stream:
        row = next(iter(csv.DictReader(stream)))
    assert float(row["energy_consumed"]) == pytest.approx(550 / 3.6e6)
    assert float(row["cpu_energy"]) == pytest.approx(500 / 3.6e6)
    assert float(row["emissions"]) == pytest.approx(550 / 3.6e6 * 98.3 / 1000)


def test_the_table_leads_with_kwh_and_names_factor_and_source(world):
    world.machine(100)
    world.attempt((0, "attempt", {}), (100, "attempt_end", {}))
    lines = ledger.show(world.run_dir)
    assert lines[0].startswith("r1: 0.0001528 kWh (550.0 J)")
    text = "\n".join(lines)
    assert "98.3 g/kWh" in text and "38.5 g/kWh" in text and "MCTI" in text
    assert "unattributed 40%" in text


def test_marks_of_a_living_attempt_reach_to_now(tmp_path):
    marks = MarkWriter(tmp_path / "runs" / "r1", "r1", "DEU")
    marks.begin("clean")
    t = ledger.totals(tmp_path / "runs" / "r1")
    assert t["carbon"]["country"] == "DEU"
    assert list(t["stages"]) == ["clean"]
    marks.close()
    assert read_attempts(tmp_path / "runs" / "r1")[0].t1 is not None


def test_every_factor_names_source_and_year_and_an_unknown_country_has_none():
    for country in carbon.countries():
        for factor in carbon.factors(country):
            assert factor.g_per_kwh > 0 and factor.source and factor.method
    assert [f.g_per_kwh for f in carbon.factors("BRA")] == [98.3, 38.5, 56.0]
    assert carbon.factors("XXX") == []
