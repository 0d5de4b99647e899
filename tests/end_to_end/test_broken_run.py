"""Killed, interrupted, damaged: the same command ends with the same bytes as an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tiny_recipe import RECIPE

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_killed_drivers_and_workers_end_with_the_same_hashes(finished, place):
    """kill -9 of the driver in a data stage and in training, Ctrl-C in training, kill -9 of a
    training worker; text, tokens and weights are bit for bit those of the calm run."""
    command = ["run", str(RECIPE)]
    process = place.start(*command)
    place.wait_for("\nfilter ", process)
    time.sleep(random.uniform(0, 1.5))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    process = place.start(*command)
    place.wait_for("  train:", process)
    wait_for_step(place, 20, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert "Continue with:" in place.output()
    assert place.record()["status"] == "interrupted"

    process = place.start(*command)
    wait_for_step(place, 40, process)
    os.kill(training_worker(process), signal.SIGKILL)
    assert process.wait(timeout=240) == 0, place.output()
    assert "Traceback" not in place.output()
    assert place.hashes() == finished[0].hashes()


@pytest.mark.parametrize("engine", [["--no-ray"], pytest.param([], marks=pytest.mark.soak)])
def test_sigterm_in_a_data_stage_is_resumable_with_exit_75(place, finished, engine):
    process = place.start("run", str(RECIPE), "--until", "split", *engine)
    place.wait_for("\nlangid ", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75, place.output()
    assert place.record()["status"] == "stopped"
    done = place.call("run", str(RECIPE), "--until", "split", "--no-ray")
    assert done.returncode == 0, done.stderr
    calm = finished[0].hashes()
    assert all(value == calm[name] for name, value in place.hashes().items())


@pytest.mark.soak  # above: as far as split; test_same_bytes.py: all stages, another text
def test_without_ray_the_data_is_the_same(place, finished):
    done = place.call("run", str(RECIPE), "--until", "pack", "--no-ray")
    assert done.returncode == 0, done.stderr
    calm = finished[0].hashes()
    assert place.hashes() == {name: calm[name] for name in place.hashes()}
    assert set(place.hashes()) >= {"split", "pack"}


def test_damage_in_the_store_is_found_and_mended(place):
    done = place.call("run", str(RECIPE), "--until", "clean", "--no-ray")
    assert done.returncode == 0, done.stderr
    before = place.hashes()
    (shard,) = place.workdir.glob("store/clean/*/text-00000-000.arrow")
    with open(shard, "r+b") as stream:
        stream.seek(5000)
        stream.write(b"\0\1\2\3")
    checked = place.look("store", "verify")
    assert checked.returncode == 3 and shard.name in checked.stdout
    again = place.call("run", str(RECIPE), "--until", "clean", "--no-ray", "--redo", "clean")
    assert again.returncode == 0
    assert place.look("store", "verify").returncode == 0
    assert place.hashes() == before


def test_removed_runs_leave_results_that_gc_gives_back(place):
    assert place.call("run", str(RECIPE), "--until", "clean", "--no-ray").returncode == 0
    assert place.look("runs", "remove", "tiny", "--yes").returncode == 0
    gone = json.loads(place.look("store", "gc", "--json").stdout)
    assert {item["stage"] for item in gone["removed"]} == {"ingest", "clean"}
    assert list(place.workdir.glob("store/*/*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_after_room_is_made(tmp_path, finished):
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)])
    if mounted.returncode != 0:
        pytest.skip("this system lets nobody mount a tmpfs")
    try:
        place = type(finished[0])(disk / "work")
        done = place.call("run", str(RECIPE), "--until", "split", "--no-ray")
        assert done.returncode == 1, done.stderr
        assert "The disk is full" in done.stderr and "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        done = place.call("run", str(RECIPE), "--until", "split", "--no-ray")
        assert done.returncode == 0, done.stderr
        assert place.hashes()["split"] == finished[0].hashes()["split"]
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def wait_for_step(place, step: int, process, timeout: float = 240) -> None:
    """Until a checkpoint of at least this step is committed."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for path in place.workdir.glob("runs/*/checkpoints/step-*/manifest.json"):
            if int(path.parent.name.split("-")[1]) >= step:
                return
        assert process.poll() is None, place.output()
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {step}:\n{place.output()}")


def training_worker(driver: subprocess.Popen) -> int:
    """The pid of one of the Ray Train workers of this driver."""
    import psutil

    for child in psutil.Process(driver.pid).children(recursive=True):
        name = " ".join(child.cmdline()) if Path(f"/proc/{child.pid}").exists() else ""
        if "RayTrainWorker" in name:
            return child.pid
    raise AssertionError("no training worker found")
