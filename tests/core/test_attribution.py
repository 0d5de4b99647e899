"""Shares of machine rows: nothing counted twice, nothing lost, to the microjoule."""

from __future__ import annotations

import random

import pytest

from mutirao.core.attribution import METER, UNATTRIBUTED, attribute, cpu_seconds, split_exact
from mutirao.core.energy_rows import EnergyRow, RunUse, UsageRow, merge, merge_usage
from mutirao.core.stage_marks import USEFUL, WASTED, Mark

BOOT = "boot-1"


def energy(device: str, t0: float, t1: float, joules: float, **more) -> EnergyRow:
    return EnergyRow(more.pop("boot", BOOT), device, t0, t1, joules, "rapl", True, **more)


def usage(t0: float, t1: float, busy: float, meter: float = 0.0, used: int = 0, **runs) -> UsageRow:
    seen = {run: use if isinstance(use, RunUse) else RunUse(use) for run, use in runs.items()}
    return UsageRow(BOOT, t0, t1, busy, used, seen, meter)


def by(parts, *names: str) -> dict:
    total: dict = {}
    for part in parts:
        key = tuple(getattr(part, name) for name in names)
        key = key[0] if len(key) == 1 else key
        total[key] = total.get(key, 0) + part.energy_uj / 1e6
    return total


def test_cpu_joules_follow_cpu_seconds_and_the_rest_is_visible():
    parts = attribute(
        [energy("cpu:package-0", 0, 10, 100)],
        {BOOT: [usage(0, 10, busy=10, meter=1, a=5, b=2)]},
        [],
    )
    assert by(parts, "run") == pytest.approx({"a": 50, "b": 20, METER: 10, UNATTRIBUTED: 20})


def test_two_clocks_that_disagree_never_give_away_more_than_there_is():
    parts = list(attribute([energy("cpu", 0, 1, 30)], {BOOT: [usage(0, 1, busy=1, a=1, b=2)]}, []))
    assert by(parts, "run") == pytest.approx({"a": 10, "b": 20})


def test_energy_that_nobody_watched_is_unattributed():
    parts = list(attribute([energy("cpu", 0, 10, 100)], {BOOT: [usage(5, 10, busy=1, a=1)]}, []))
    assert by(parts, "run") == pytest.approx({UNATTRIBUTED: 50, "a": 50})
    assert by(attribute([energy("cpu", 0, 1, 7)], {}, []), "run") == {UNATTRIBUTED: 7}


def test_memory_goes_by_resident_bytes_and_by_cpu_where_they_are_unknown():
    known = usage(0, 1, 10, used=100, a=RunUse(1.0, 25), b=RunUse(9.0, 50))
    parts = by(attribute([energy("ram", 0, 1, 4)], {BOOT: [known]}, []), "run")
    assert parts == pytest.approx({"a": 1, "b": 2, UNATTRIBUTED: 1})
    unknown = usage(0, 1, 10, used=100, a=5.0)
    parts = by(attribute([energy("ram", 0, 1, 4)], {BOOT: [unknown]}, []), "run")
    assert parts == pytest.approx({"a": 2, UNATTRIBUTED: 2})


def test_a_gpu_goes_to_those_who_hold_it():
    row = usage(0, 1, 2, a=RunUse(1, 0, ("GPU-1",)), b=RunUse(1, 0, ("GPU-1", "GPU-2")))
    rows = [energy(f"gpu:GPU-{n}", 0, 1, 100) for n in (1, 2, 3)]
    parts = by(attribute(rows, {BOOT: [row]}, []), "run", "device")
    assert parts == pytest.approx(
        {
            ("a", "gpu:GPU-1"): 50,
            ("b", "gpu:GPU-1"): 50,
            ("b", "gpu:GPU-2"): 100,
            (UNATTRIBUTED, "gpu:GPU-3"): 100,
        }
    )


def test_overlapping_stages_share_equally_or_by_their_own_cpu_seconds():
    rows, seen = [energy("cpu", 0, 10, 100)], {BOOT: [usage(0, 10, busy=10, a=10)]}
    marks = [Mark("a", "clean", 0, 6), Mark("a", "exact", 4, 10)]
    assert by(attribute(rows, seen, marks), "stage") == pytest.approx({"clean": 50, "exact": 50})
    marks = [Mark("a", "clean", 0, 10, cpu_s=30), Mark("a", "exact", 0, 10, cpu_s=10)]
    assert by(attribute(rows, seen, marks), "stage") == pytest.approx({"clean": 75, "exact": 25})


def test_stages_of_another_run_take_nothing():
    marks = [Mark("a", "clean", 0, 10), Mark("b", "train", 0, 5)]
    seen = {BOOT: [usage(0, 10, busy=10, a=5, b=5)]}
    parts = by(attribute([energy("cpu", 0, 10, 100)], seen, marks), "run", "stage")
    assert parts == pytest.approx({("a", "clean"): 50, ("b", "train"): 25, ("b", ""): 25})


def test_outcomes_are_kept_apart():
    marks = [Mark("a", "train", 0, 6, USEFUL), Mark("a", "train", 6, 10, WASTED)]
    seen = {BOOT: [usage(0, 10, busy=10, a=10)]}
    parts = by(attribute([energy("cpu", 0, 10, 100)], seen, marks), "outcome")
    assert parts == pytest.approx({USEFUL: 60, WASTED: 40})
    assert cpu_seconds(seen[BOOT], "a", marks) == pytest.approx(
        {("train", USEFUL): 6, ("train", WASTED): 4}
    )


def test_the_parts_are_the_machine_exactly():
    chance = random.Random(7)
    rows, seen, t = [], [], 0.0
    for _ in range(200):
        dt = chance.uniform(0.1, 3)
        rows.append(energy("cpu:package-0", t, t + dt, chance.uniform(0, 500)))
        rows.append(energy("ram", t - 0.05, t + dt - 0.05, chance.uniform(0, 9)))
        rows.append(energy("gpu:GPU-1", t, t + dt, chance.uniform(0, 900)))
        uses = {run: RunUse(chance.uniform(0, 2), 9, ("GPU-1",)) for run in "abc"}
        seen.append(usage(t, t + dt * 0.99, chance.uniform(0, 8), 0.01, 50, **uses))
        t += dt
    marks = []
    for run in "abc":
        for stage in ("clean", "exact", "train"):
            start = chance.uniform(0, t)
            marks.append(Mark(run, stage, start, start + chance.uniform(0, t / 2)))
    parts = list(attribute(rows, {BOOT: seen}, marks))
    assert sum(part.energy_uj for part in parts) == sum(round(r.energy_j * 1e6) for r in rows)
    assert all(part.energy_uj >= 0 for part in parts)


def test_split_exact_loses_nothing():
    assert split_exact(100, [1, 1, 1]) == [33, 34, 33]
    assert split_exact(7, []) == [7]
    assert split_exact(7, [0, 0]) == [7, 0]
    for amount in range(50):
        assert sum(split_exact(amount, [0.1, 0.7, 0.2, 1e-9])) == amount


def test_two_meters_that_saw_the_same_machine_are_one():
    first = [energy("cpu:package-0", t, t + 10, 100, tool="one") for t in (0, 10, 20)]
    second = [energy("cpu:package-0", t, t + 10, 100, tool="two") for t in (5, 15, 25)]
    merged = merge(first, second)
    assert sum(row.energy_j for row in merged) == pytest.approx(350)
    assert merged == merge(second, first)
    assert merge(first, first) == merge(first)
    again = merge(merged, first, second)
    assert sum(row.energy_j for row in again) == pytest.approx(350)


def test_the_same_device_name_on_two_machines_is_added():
    rows = merge([energy("cpu:package-0", 0, 1, 5)], [energy("cpu:package-0", 0, 1, 5, boot="b2")])
    assert sum(row.energy_j for row in rows) == 10


def test_a_counter_beats_an_estimate_of_the_same_time():
    counter = energy("cpu:package-0", 10, 20, 500)
    guess = EnergyRow(BOOT, "cpu", 0, 30, 300, "codecarbon:cpu_load", False)
    merged = merge([guess], [counter])
    assert sum(row.energy_j for row in merged if row.measured) == 500
    assert sum(row.energy_j for row in merged if not row.measured) == pytest.approx(200)


def test_runs_known_to_different_meters_meet_in_one_usage_row():
    one = usage(0, 10, busy=10, a=4)
    two = usage(5, 15, busy=10, b=6)
    rows = merge_usage([one, two, one])[BOOT]
    assert [(row.t0, row.t1) for row in rows] == [(0, 5), (5, 10), (10, 15)]
    assert {run: use.cpu_s for run, use in rows[1].runs.items()} == {"a": 2, "b": 3}
    assert rows[1].busy_cpu_s == 5
