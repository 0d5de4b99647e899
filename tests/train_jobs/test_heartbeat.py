"""A rank that stands still is named by the others, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
import torch
import torch.multiprocessing as mp

from mutirao.core.metrics import read_metrics
from train_jobs import ranks
from train_jobs.heartbeat import LONG_S, Heartbeat, kill_same
from train_jobs.signs import WAITING, Sign, read_signs, sign_path, standing_still, write_sign
from train_jobs.worker import prepare

STALL_S = 2.0


def sign(rank, step, what="computing", idle_s=100.0, **more):
    waits = what == WAITING
    return Sign(rank, "host", 10 + rank, 0.0, step, what, waits=waits, idle_s=idle_s, **more)


def named(*signs, silent=()):
    return [one.rank for one in standing_still(list(signs), set(silent))]


def test_the_rank_in_the_oldest_step_is_named():
    assert named(sign(0, 8), sign(1, 7), sign(2, 8)) == [1]


def test_in_the_same_step_the_ranks_that_wait_for_the_others_are_not_named():
    assert named(sign(0, 8, WAITING), sign(1, 8, "reading"), sign(2, 8, WAITING)) == [1]


def test_a_rank_is_named_only_after_the_patience_that_its_own_phase_has():
    saving = sign(1, 8, "saving", idle_s=40, patience_s=600)
    waiting = sign(0, 8, WAITING, idle_s=40, patience_s=30)
    assert named(waiting, saving) == []
    assert named(waiting, replace(saving, idle_s=601)) == [1]


def test_a_process_without_any_sign_of_life_is_named_whatever_it_was_doing():
    frozen = sign(1, 8, "saving", idle_s=1, patience_s=600)
    assert named(sign(0, 8, WAITING), frozen, silent=[1]) == [1]
    (found,) = standing_still([frozen], {1})
    assert found.text() == "rank 1 (pid 11 on host) gives no sign of life; its last: step 8, saving"


def test_ranks_that_are_equally_far_are_all_named():
    assert named(sign(0, 8), sign(1, 8)) == [0, 1]


def test_the_sentence_says_where_in_the_code_a_rank_stands():
    text = sign(1, 1200, "reading", inside="loader.py:87 batch").text()
    assert text == (
        "rank 1 (pid 11 on host) stands for 100 s at step 1,200, reading, in loader.py:87 batch"
    )


def test_signs_are_read_back_and_a_torn_or_absent_one_counts_as_never_started(tmp_path):
    one = sign(0, 3)
    write_sign(tmp_path, one)
    sign_path(tmp_path, 1).write_text('{"rank": 1, "ste')
    found = read_signs(tmp_path, 3)
    assert found[0] == one
    assert [s.what for s in found[1:]] == ["never started"] * 2


def test_first_steps_and_long_phases_have_patience_and_a_step_ten_times_its_median(tmp_path):
    pulse = Heartbeat(tmp_path, 30)
    try:
        assert pulse.patience_s() == LONG_S
        pulse.at(0, "computing")
        assert pulse.patience_s() == LONG_S
        pulse.steps_s.extend([1.0, 5.0, 90.0])
        assert pulse.patience_s() == 50.0
        pulse.at(1, "saving")
        assert pulse.patience_s() == LONG_S
    finally:
        pulse.close()
    assert read_signs(tmp_path, 1)[0].what == "ended"


def test_a_pid_that_now_belongs_to_another_process_is_not_killed():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = psutil.Process(child.pid).create_time()
        assert not kill_same(child.pid, began - 100)
        assert child.poll() is None
        assert kill_same(child.pid, began)
        assert child.wait() == -signal.SIGKILL


def rank_main(number, rendezvous, root, fault):
    """Steps of two ranks; in step 6 the second freezes, or sleeps without end."""
    sys.stderr = open(root / f"stderr-{number}", "w", buffering=1)  # noqa: SIM115
    prepare(1)
    with ranks.group(number, 2, rendezvous):
        pulse = Heartbeat(root, STALL_S)
        for step in range(1000):
            pulse.at(step, "reading")
            if number == 1 and step == 6:
                (root / "pid").write_text(str(os.getpid()))
                while read_signs(root, 2)[1].step != 6:
                    time.sleep(0.05)
                if fault == "frozen":
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(3600)
            pulse.at(step, WAITING)
            ranks.total([1.0], torch.device("cpu"))
            time.sleep(0.05)


FAULTS = ["frozen", pytest.param("asleep", marks=pytest.mark.soak)]


@pytest.fixture(scope="module", params=FAULTS)
def stall(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    context = mp.start_processes(
        rank_main,
        (str(root / "rendezvous"), root, request.param),
        nprocs=2,
        join=False,
        start_method="spawn",
    )
    for process in context.processes:
        process.join(timeout=120)
    codes = [process.exitcode for process in context.processes]
    for process in context.processes:
        process.kill()
    return request.param, root, codes


def test_a_frozen_or_endless_rank_is_named_and_the_whole_group_ends(stall):
    fault, root, codes = stall
    assert codes[0] == 4
    assert codes[1] in ([-signal.SIGKILL] if fault == "frozen" else [4, -signal.SIGKILL])
    pid = int((root / "pid").read_text())
    assert not psutil.pid_exists(pid)
    said = (root / "stderr-0").read_text()
    assert f"rank 1 (pid {pid} on " in said
    assert "step 6, reading" in said
    assert "Training stood still" in said and "Run the same command again" in said


def test_the_stall_is_an_event_of_the_metrics(stall):
    _, root, _ = stall
    (event,) = read_metrics(root, "event")
    assert event["what"] == "stall" and event["step"] == 6
    assert event["detail"].startswith("rank 1 (pid ")
