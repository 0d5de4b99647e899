"""Workers that die, freeze, come and go under Ray Train: the weights are those of a quiet run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch.multiprocessing as mp
from ray.train.v2.api.exceptions import WorkerGroupError

from mutirao.core.errors import DataError, EnvironmentProblem, Stopped, UserError
from mutirao.core.job import StageJob
from mutirao.core.manifest import read_manifest
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.progress import Progress
from mutirao.core.stop import request_stop
from tiny_train import make_pack, make_plan, make_recipe, make_tokenizer
from train_jobs import checkpoint, fit, loop, ranks, signs
from train_jobs.launch import run_train
from train_jobs.worker import clear_error, leave_error, left_error, prepare

STEPS = 170
OPTIONS = {
    "engine": "deepspeed",
    "workers": 2,
    "zero_stage": 2,
    "tokens": 16 * 8 * STEPS,
    "checkpoint_every": 5,
    "eval_every": 1000,
}


def job_of(root, recipe, run="run"):
    """pack, tokenizer and folders under `root`, made where they are not there yet."""
    inputs = {}
    for name, make in (("pack", make_pack), ("tokenizer", make_tokenizer)):
        inputs[name] = read_manifest(root / name) or make(root / name)
    (root / f"{run}-train").mkdir()
    folders = (root / f"{run}-train", inputs, root / run)
    return StageJob("train", recipe, *folders, Progress(quiet=True))


def undisturbed(number, rendezvous, root, options):
    prepare(1)
    with ranks.group(number, 2, rendezvous):
        pack = read_manifest(root / "pack")
        loop.train(make_plan(make_recipe(**options), pack, root / "undisturbed"))


def hashes(run_dir):
    newest = checkpoint.newest(run_dir)
    assert newest.step == STEPS
    return [file["sha256"] for file in newest.record["files"]]


def when_there(condition, limit_s=300.0):
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def hit(run_dir, rank, number=signal.SIGKILL):
    """Send a signal to a rank; to pid 0 it would go to this process and all of its group."""
    os.kill(when_there(lambda: signs.read_signs(run_dir, 2)[rank].pid), number)


def at_start(run_dir):
    hit(run_dir, 1)


def in_a_step(run_dir):
    when_there(lambda: checkpoint.steps(run_dir))
    hit(run_dir, 0)


def during_save(run_dir):
    """As soon as a checkpoint after the first has files and no manifest yet."""
    when_there(lambda: checkpoint.steps(run_dir))

    def writing():
        folders = checkpoint.checkpoints(run_dir).glob("step-*")
        return any(not (folder / "manifest.json").exists() for folder in folders)

    when_there(writing)
    hit(run_dir, 1)


def freeze(run_dir):
    when_there(lambda: checkpoint.steps(run_dir))
    hit(run_dir, 1, signal.SIGSTOP)


def trained_with(fault, root, options):
    """The run's folder after a training that met `fault` once, and what `attempts` says."""
    job = job_of(root, make_recipe(**options))
    culprit = threading.Thread(target=fault, args=(job.run_dir,), daemon=True)
    culprit.start()
    found = run_train(job)
    assert not culprit.is_alive()
    arguments = (str(root / "rendezvous"), root, options)
    mp.start_processes(undisturbed, arguments, nprocs=2, start_method="spawn")
    return job.run_dir, found.notes["attempts"]


@pytest.mark.ray
@pytest.mark.soak
def test_a_worker_killed_in_a_step_costs_time_but_not_the_result(ray_session, tmp_path):
    run_dir, attempts = trained_with(in_a_step, tmp_path, {**OPTIONS, "engine": "torch"})
    assert attempts == 2
    assert hashes(run_dir) == hashes(tmp_path / "undisturbed")


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.parametrize("fault", [at_start, in_a_step, during_save])
def test_a_killed_worker_of_deepspeed_too(ray_session, tmp_path, fault):
    run_dir, attempts = trained_with(fault, tmp_path, OPTIONS)
    assert attempts in ((1, 2) if fault is at_start else (2,))
    assert hashes(run_dir) == hashes(tmp_path / "undisturbed")


@pytest.mark.ray
@pytest.mark.soak
def test_a_frozen_worker_is_named_and_the_group_started_again(ray_session, tmp_path):
    run_dir, attempts = trained_with(freeze, tmp_path, {**OPTIONS, "stall_s": 6.0})
    assert attempts == 2
    assert hashes(run_dir) == hashes(tmp_path / "undisturbed")
    stalls = [row for row in read_metrics(run_dir, "event") if row["what"] == "stall"]
    assert "rank 1 (pid " in stalls[0]["detail"]


def another_machine(cluster):
    """Ray gives a new raylet 30 s, which a busy machine may not have for it at once."""
    for _ in range(4):
        with contextlib.suppress(Exception):
            return cluster.add_node(num_cpus=1)
    return cluster.add_node(num_cpus=1)


def elastic(root, options):
    """A cluster of two machines with one CPU each, of which one goes and another comes."""
    import ray
    from ray.cluster_utils import Cluster

    from mutirao.run.session import prepare_environment

    prepare_environment()
    fit.RESIZE_S = 5.0
    head = {"num_cpus": 1, "include_dashboard": False}
    # A node that is to go at exit sets signal handlers, which a thread beside the training cannot.
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    other = another_machine(cluster)
    ray.init(address=cluster.address, log_to_driver=False)
    job = job_of(root, make_recipe(**options))

    def workers():
        return [row["workers"] for row in read_metrics(job.run_dir, "attempt")]

    def machines():
        when_there(lambda: checkpoint.steps(job.run_dir))
        cluster.remove_node(other, allow_graceful=False)
        when_there(lambda: workers()[-1:] == [1])
        another_machine(cluster)
        when_there(lambda: workers()[-1:] == [2])
        grown = read_metrics(job.run_dir, "attempt")[-1]["step"]
        when_there(lambda: grown + 10 in step_losses(job.run_dir))
        request_stop(job.run_dir, "the machines came back")

    thread = threading.Thread(target=machines, daemon=True)
    thread.start()
    try:
        with pytest.raises(Stopped):
            run_train(job)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_machines_that_go_and_come_change_the_workers_and_not_the_learning(tmp_path):
    options = {
        "workers": 2,
        "min_workers": 1,
        "micro_batch": 1,
        "global_batch": 64,
        "tokens": 16 * 64 * 5000,  # more than there is time for
        "max_epochs": 1000,
        "lr": 1e-3,
        "checkpoint_every": 20,
        "eval_every": 10_000,
        "log_every": 1,
    }
    process = multiprocessing.get_context("spawn").Process(target=elastic, args=(tmp_path, options))
    process.start()
    process.join(timeout=900)
    assert process.exitcode == 0
    sizes = [row["workers"] for row in read_metrics(tmp_path / "run", "attempt")]
    assert sizes[0] == 2 and sizes[-1] == 2 and 1 in sizes
    found = step_losses(tmp_path / "run")
    alone = make_recipe(**{**options, "micro_batch": 0})
    plan = make_plan(alone, read_manifest(tmp_path / "pack"), tmp_path / "alone")

    def enough(row):
        if row.get("step") == len(found):
            request_stop(plan.run_dir, "as far as the other")

    loop.train(plan, enough)
    wanted = step_losses(plan.run_dir)
    assert list(found) == list(range(1, len(found) + 1))
    for step, loss in found.items():
        assert loss == pytest.approx(wanted[step], abs=5e-3), step


@pytest.mark.ray
def test_more_workers_than_cpus_are_refused_instead_of_waiting_for_ever(ray_session, tmp_path):
    job = job_of(tmp_path, make_recipe(engine="deepspeed", workers=64, global_batch=64))
    with pytest.raises(EnvironmentProblem, match=r"train\.workers is 64") as caught:
        run_train(job)
    assert caught.value.code == "no-room"


def test_elastic_training_needs_room_for_the_fewest_workers_only(ray_session):
    train = make_recipe(workers=64, min_workers=1, global_batch=64).train
    fit.check_room(train, 0)
    assert fit.scaling(train, 0).num_workers == (1, 64)
    assert fit.scaling(make_recipe(workers=2).train, 0).num_workers == 2
    with pytest.raises(EnvironmentProblem, match=r"train\.min_workers is 32"):
        fit.check_room(make_recipe(workers=64, min_workers=32).train, 0)


def test_what_a_worker_left_is_raised_as_it_was(tmp_path):
    assert left_error(tmp_path) is None
    leave_error(tmp_path, DataError("A token shard is damaged", "a.arrow", "Mend it.", "damaged"))
    found = left_error(tmp_path)
    assert isinstance(found, DataError) and found.exit_code == 3
    assert (found.problem, found.where, found.code) == (
        "A token shard is damaged",
        "a.arrow",
        "damaged",
    )
    clear_error(tmp_path)
    assert left_error(tmp_path) is None


def test_workers_that_died_too_often_end_the_run_with_rank_cause_and_cure(tmp_path):
    job = job_of(tmp_path, make_recipe(max_restarts=2))
    error = WorkerGroupError("workers", {1: RuntimeError("The actor died: SIGKILL\nmore")})
    found = fit.died(job, error, [])
    assert isinstance(found, UserError) and found.code == "workers-died"
    assert str(found).startswith(
        "A worker died, also after 2 restarts (train.max_restarts): rank 1: The actor died: SIGKILL"
    )
    assert "Run the same command again" in found.hint
    assert fit.died(job, error, ["rank 1 stands"]).code == "stalled"
