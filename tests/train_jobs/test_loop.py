"""The loop in this process: resume bit for bit, stop, guard, passes; one real kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mutirao.core.errors import RecipeError, UserError
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.stop import request_stop
from tiny_train import VOCAB, make_pack, make_plan, make_recipe
from train_jobs import checkpoint, loop
from train_jobs.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def undisturbed(pack, tmp_path_factory):
    plan = make_plan(make_recipe(), pack, tmp_path_factory.mktemp("undisturbed"))
    assert loop.train(plan) == 10
    return plan.run_dir


def same_state(one: Path, other: Path) -> bool:
    a, b = checkpoint.newest(one), checkpoint.newest(other)
    assert a.step == b.step and a.state == b.state
    return all(torch.equal(a.full(n, k), b.full(n, k)) for n in a.shapes for k in checkpoint.KINDS)


@pytest.fixture(autouse=True)
def default_sigterm():
    """As in a worker of its own: a Ray started earlier in this process has put a handler there."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_it_learns(undisturbed):
    losses = step_losses(undisturbed)
    assert list(losses) == list(range(1, 11))
    assert losses[1] == pytest.approx(math.log(VOCAB), abs=0.2)
    assert losses[10] < losses[1] - 0.1
    assert [row["step"] for row in read_metrics(undisturbed, "heldout")] == [5, 10]


def test_n_then_stop_then_m_is_n_plus_m_bit_for_bit(pack, undisturbed, tmp_path):
    plan = make_plan(make_recipe(), pack, tmp_path / "run")

    def stop_at_4(row):
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert loop.train(plan, stop_at_4) == 5  # the step after the signal is finished, then saved
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoint.steps(plan.run_dir)[-1] == 5
    assert loop.train(plan) == 10
    assert same_state(plan.run_dir, undisturbed)
    assert step_losses(plan.run_dir) == step_losses(undisturbed)
    assert [row["step"] for row in read_metrics(plan.run_dir, "attempt")] == [0, 5]


def test_a_stop_file_stops_the_run(pack, tmp_path):
    plan = make_plan(make_recipe(), pack, tmp_path / "run")
    request_stop(plan.run_dir, "energy budget used")
    assert loop.train(plan) == 1
    assert checkpoint.steps(plan.run_dir) == [1]


def test_a_truncated_newest_checkpoint_costs_steps_but_not_the_result(pack, undisturbed, tmp_path):
    plan = make_plan(make_recipe(), pack, tmp_path / "run")
    request = {6: lambda: request_stop(plan.run_dir, "test")}
    loop.train(plan, lambda row: request.get(row["step"], lambda: None)())
    (plan.run_dir / "stop.json").unlink()
    assert checkpoint.steps(plan.run_dir) == [4, 7]
    newest = plan.run_dir / "checkpoints" / "step-00000007"
    os.truncate(next(newest.glob("*.safetensors")), 100)
    assert loop.train(plan) == 10
    assert same_state(plan.run_dir, undisturbed)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_train import make_recipe, make_plan
from mutirao.core.manifest import read_manifest
from train_jobs import loop
pack, run_dir = read_manifest(Path(sys.argv[2])), Path(sys.argv[3])
plan = make_plan(make_recipe(checkpoint_every=1), pack, run_dir)
loop.train(plan)
"""


def test_kill_9_leaves_a_checkpoint_that_continues_to_the_same_weights(pack, undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", KILLED, str(here), str(pack.directory), str(run_dir)]
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": path})
    while not checkpoint.steps(run_dir) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert checkpoint.newest(run_dir) is not None
    assert loop.train(make_plan(make_recipe(), pack, run_dir)) == 10
    assert same_state(run_dir, undisturbed)


def test_passes_and_checkpointing_do_not_change_the_result(pack, undisturbed, tmp_path):
    plan = make_plan(
        make_recipe(micro_batch=3, gradient_checkpointing=True), pack, tmp_path / "run"
    )
    loop.train(plan)
    for step, loss in step_losses(undisturbed).items():
        assert step_losses(plan.run_dir)[step] == pytest.approx(loss, abs=1e-4)


def test_a_changed_identity_field_is_refused_by_name(pack, undisturbed):
    plan = make_plan(make_recipe(lr=0.5), pack, undisturbed)
    with pytest.raises(RecipeError, match=r"train.lr: 0.01 -> 0.5"):
        loop.train(plan)


def poison(monkeypatch, bad_steps):
    """NaN gradients at the given steps (1-based), through the real backward pass."""
    real, seen = TorchEngine.accumulate, {"step": 0}

    def accumulate(self, inputs, scale, last):
        seen["step"] += 1
        return real(self, inputs, math.nan if seen["step"] in bad_steps else scale, last)

    monkeypatch.setattr(TorchEngine, "accumulate", accumulate)


def test_the_guard_leaves_out_a_step_that_is_not_finite(pack, tmp_path, monkeypatch):
    poison(monkeypatch, {3})
    plan = make_plan(make_recipe(), pack, tmp_path / "run")
    assert loop.train(plan) == 10
    saved = checkpoint.newest(plan.run_dir)
    assert saved.state["guard"]["skipped"] == 1
    assert saved.state["adam_step"] == 9
    assert all(saved.full(name).isfinite().all() for name in saved.shapes)
    assert step_losses(plan.run_dir)[3] is None
    assert saved.state["cursor"]["sequences"] == 80


def test_the_guard_ends_a_run_that_never_recovers(pack, tmp_path, monkeypatch):
    poison(monkeypatch, set(range(1, 100)))
    plan = make_plan(make_recipe(tokens=8 * 16 * 40), pack, tmp_path / "run")
    with pytest.raises(UserError, match="went back 3 times"):
        loop.train(plan)


def test_norms_do_not_decay_and_matrices_do():
    from mutirao.core.model_size import resolve
    from train_jobs.model import build_model, decay_groups

    model = build_model(resolve(make_recipe().model, VOCAB), seed=1)
    decayed, plain = decay_groups(model, 0.1)
    assert {p.dim() for p in decayed["params"]} == {2} and decayed["weight_decay"] == 0.1
    assert {p.dim() for p in plain["params"]} == {1} and plain["weight_decay"] == 0.0
