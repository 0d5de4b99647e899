"""Ray Train restarts a killed worker's group; the weights are those of an undisturbed run."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch.multiprocessing as mp

from mutirao.core.errors import EnvironmentProblem
from mutirao.core.job import StageJob
from mutirao.core.manifest import read_manifest
from mutirao.core.metrics import read_metrics
from mutirao.core.progress import Progress
from tiny_train import make_pack, make_plan, make_recipe
from train_jobs import checkpoint, loop, ranks
from train_jobs.launch import run_train
from train_jobs.worker import prepare

OPTIONS = {
    "engine": "deepspeed",
    "workers": 2,
    "zero_stage": 2,
    "tokens": 16 * 8 * 170,
    "checkpoint_every": 5,
    "eval_every": 1000,
}


def undisturbed(number, rendezvous, root):
    prepare(1)
    with ranks.group(number, 2, rendezvous):
        pack = read_manifest(root / "pack")
        loop.train(make_plan(make_recipe(**OPTIONS), pack, root / "undisturbed"))


def kill_once(run_dir):
    """SIGKILL rank 0 as soon as a checkpoint is there to continue from."""
    while not checkpoint.steps(run_dir):
        time.sleep(0.01)
    os.kill(read_metrics(run_dir, "attempt")[0]["pid"], signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.soak
def test_a_killed_worker_costs_time_but_not_the_result(ray_session, tmp_path):
    make_pack(tmp_path / "pack")
    inputs = {"pack": read_manifest(tmp_path / "pack")}
    run_dir, directory = tmp_path / "run", tmp_path / "train"
    directory.mkdir()
    killer = threading.Thread(target=kill_once, args=(run_dir,), daemon=True)
    killer.start()
    recipe = make_recipe(**OPTIONS)
    job = StageJob("train", recipe, directory, inputs, run_dir, Progress(quiet=True))
    found = run_train(job)
    assert not killer.is_alive()
    assert found.notes["attempts"] == 2

    arguments = (str(tmp_path / "rendezvous"), tmp_path)
    mp.start_processes(undisturbed, arguments, nprocs=2, start_method="spawn")
    one, other = checkpoint.newest(run_dir), checkpoint.newest(tmp_path / "undisturbed")
    hashes = [[f["sha256"] for f in saved.record["files"]] for saved in (one, other)]
    assert one.step == other.step == 170
    assert hashes[0] == hashes[1]


@pytest.mark.ray
def test_more_workers_than_cpus_are_refused_instead_of_waiting_for_ever(ray_session, tmp_path):
    make_pack(tmp_path / "pack")
    inputs = {"pack": read_manifest(tmp_path / "pack")}
    recipe = make_recipe(engine="deepspeed", workers=64)
    quiet = Progress(quiet=True)
    job = StageJob("train", recipe, tmp_path / "train", inputs, tmp_path / "run", quiet)
    with pytest.raises(EnvironmentProblem, match=r"train\.workers is 64") as caught:
        run_train(job)
    assert caught.value.code == "no-room"
