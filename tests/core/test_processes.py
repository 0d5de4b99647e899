"""CPU seconds of process trees: children that end, orphans, workers that are no descendants."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mutirao.core.processes import Environment, Process, Trees, assign, machine


def table(*rows: tuple) -> dict[int, Process]:
    """rows: (pid, parent, cpu_s, reaped_s)"""
    return {pid: Process(pid, f"s{pid}", parent, cpu, reaped) for pid, parent, cpu, reaped in rows}


def test_a_process_belongs_to_the_nearest_root_above_it():
    seen = table((1, 0, 0, 0), (10, 1, 0, 0), (11, 10, 0, 0), (20, 10, 0, 0), (21, 20, 0, 0))
    owner = assign(seen, {10: "a", 20: "b"})
    assert owner == {10: "a", 11: "a", 20: "b", 21: "b"}


def test_a_worker_elsewhere_belongs_to_the_run_its_environment_names():
    seen = table((1, 0, 0, 0), (10, 1, 0, 0), (30, 1, 0, 0), (40, 1, 0, 0))
    names = {30: "a", 40: "unregistered"}
    environment = Environment(lambda pid: names.get(pid, ""))
    assert assign(seen, {10: "a"}, environment, frozenset({"a"})) == {10: "a", 30: "a"}


def trees() -> Trees:
    return Trees(Environment(lambda pid: ""))


def test_the_first_look_counts_nothing_and_later_ones_the_difference():
    clock = trees()
    assert clock.advance(table((10, 1, 7, 3)), {10: "a"}) == {"a": 0.0}
    assert clock.advance(table((10, 1, 9, 3)), {10: "a"}) == {"a": 2.0}


def test_a_child_that_ended_between_looks_is_counted_once_and_whole():
    clock = trees()
    clock.advance(table((10, 1, 1, 0)), {10: "a"})
    assert clock.advance(table((10, 1, 1, 0), (11, 10, 4, 0)), {10: "a"})["a"] == 4.0
    # it used one second more, then its parent reaped it: 5 s appear in the parent's children
    assert clock.advance(table((10, 1, 1, 5)), {10: "a"})["a"] == 1.0


def test_a_child_that_was_never_seen_is_counted_through_its_parent():
    clock = trees()
    clock.advance(table((10, 1, 1, 0)), {10: "a"})
    assert clock.advance(table((10, 1, 1, 3)), {10: "a"})["a"] == 3.0


def test_a_whole_branch_that_ended_is_counted_once():
    clock = trees()
    clock.advance(table((10, 1, 0, 0)), {10: "a"})
    clock.advance(table((10, 1, 0, 0), (11, 10, 2, 0), (12, 11, 3, 0)), {10: "a"})
    assert clock.advance(table((10, 1, 0, 6)), {10: "a"})["a"] == 1.0


def test_a_child_that_nobody_reaps_takes_nothing_back():
    clock = trees()
    clock.advance(table((10, 1, 0, 0), (11, 10, 5, 0)), {10: "a"})
    assert clock.advance(table((10, 1, 2, 0)), {10: "a"})["a"] == 2.0


def test_an_orphan_stays_with_its_run():
    clock = trees()
    clock.advance(table((10, 1, 0, 0), (11, 10, 1, 0), (12, 11, 1, 0)), {10: "a"})
    assert clock.advance(table((10, 1, 0, 1), (12, 1, 4, 0)), {10: "a"})["a"] == 3.0


def test_a_process_that_joins_late_brings_no_past():
    names: dict[int, str] = {}
    clock = Trees(Environment(lambda pid: names.get(pid, "")))
    clock.advance(table((10, 1, 0, 0), (30, 1, 900, 0)), {10: "a"})
    names[30] = "a"
    assert clock.advance(table((10, 1, 1, 0), (30, 1, 901, 0)), {10: "a"})["a"] == 1.0
    assert clock.advance(table((10, 1, 1, 0), (30, 1, 903, 0)), {10: "a"})["a"] == 2.0


COUNTS = """
import json, os, subprocess, sys, time
from mutirao.core.processes import Trees, snapshot
burn = "import time\\ne = time.process_time() + 0.3\\nwhile time.process_time() < e: pass"
clock = Trees()
clock.advance(snapshot(), {os.getpid(): "a"})
before = os.times()
child = subprocess.Popen([sys.executable, "-c", burn])
total = 0.0
while child.poll() is None:
    total += clock.advance(snapshot(), {os.getpid(): "a"})["a"]
    time.sleep(0.05)
subprocess.run([sys.executable, "-c", burn], check=True)
total += clock.advance(snapshot(), {os.getpid(): "a"})["a"]
after = os.times()
print(json.dumps([total, sum(after[:4]) - sum(before[:4])]))
"""


def test_real_children_are_counted_whole_whether_seen_or_not():
    """In a process of its own: what other tests started here would be counted too."""
    done = subprocess.run([sys.executable, "-c", COUNTS], check=True, capture_output=True)
    total, truth = json.loads(done.stdout)
    assert truth >= 0.6
    assert total == pytest.approx(truth, abs=0.05)  # ticks of 10 ms


def test_the_machine_is_busy_and_uses_memory():
    busy, used = machine()
    assert busy > 0 and used > 0
