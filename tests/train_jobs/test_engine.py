"""The engines in one process: precision, the loss scale of fp16, the plain engine's arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from mutirao.core.errors import EnvironmentProblem, RecipeError
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.model_size import precision, resolve
from mutirao.core.recipe import Train
from mutirao.core.stop import clear_stop, request_stop
from tiny_train import VOCAB, make_pack, make_plan, make_recipe
from train_jobs import checkpoint, loop, loss_scale, ranks
from train_jobs.engine import build_engine, import_deepspeed
from train_jobs.loss_scale import LossScale
from train_jobs.model import build_model
from train_jobs.worker import prepare


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


def tiny_engine(**train):
    recipe = make_recipe(**train)
    return build_engine(build_model(resolve(recipe.model, VOCAB), 1), recipe.train, 8, 1)


def batch():
    ids = (torch.arange(8 * 17) * 7 % VOCAB).view(8, 17)
    weights = torch.ones(8, 16)
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "weights": weights}


@pytest.mark.parametrize(
    "dtype, cuda, native, expected",
    [
        ("auto", False, True, "fp32"),
        ("auto", True, True, "bf16"),
        ("auto", True, False, "fp16"),
        ("bf16", False, False, "bf16"),
        ("fp32", True, True, "fp32"),
    ],
)
def test_auto_is_fp32_on_cpu_and_bf16_where_the_card_has_it(dtype, cuda, native, expected):
    assert precision(Train(dtype=dtype), cuda, native) == expected


def test_the_scale_halves_at_once_and_grows_after_a_window_of_good_steps():
    scale = LossScale()
    assert scale.lower()
    assert scale.value == loss_scale.INITIAL / 2
    for _ in range(loss_scale.WINDOW):
        scale.good()
    assert scale.value == loss_scale.INITIAL
    other = LossScale()
    other.restore(scale.state())
    assert other.state() == scale.state()


def test_a_scale_of_one_is_not_to_blame_for_gradients_that_are_not_finite():
    scale = LossScale()
    while scale.lower():
        pass
    assert scale.value == 1


def test_gradients_that_overflow_fp16_leave_out_the_step_and_halve_the_scale():
    engine = tiny_engine(dtype="fp16")
    engine.scale.value = 2.0**40
    before = [p.detach().clone() for p in engine.module.parameters()]
    verdicts = []
    for _ in range(30):
        loss = engine.accumulate(batch(), 1 / 128, last=True)
        verdicts.append(engine.step(1e-3, float(loss)).verdict)
        if not verdicts[-1]:
            break
        same = zip(before, engine.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
    assert verdicts.count("scaler") == len(verdicts) - 1 > 0
    assert engine.scale.value == 2.0 ** (40 - verdicts.count("scaler"))
    assert engine.adam_step() == 1


def test_a_loss_that_is_not_finite_is_the_guards_and_not_the_scalers():
    engine = tiny_engine(dtype="fp16")
    engine.accumulate(batch(), math.nan, last=True)
    assert engine.step(1e-3, math.nan).verdict == "not-finite"
    assert engine.scale.value == loss_scale.INITIAL


def test_fp16_learns_as_fp32_does():
    norms, losses = [], []
    for dtype in ("fp32", "fp16"):
        engine = tiny_engine(dtype=dtype)
        for _ in range(5):
            loss = float(engine.accumulate(batch(), 1 / 128, last=True))
            outcome = engine.step(1e-3, loss)
            assert not outcome.skipped
        norms.append(outcome.grad_norm)
        losses.append(loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


def test_a_run_in_fp16_that_stops_and_goes_on_is_one_that_did_not(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**34)
    monkeypatch.setattr(loss_scale, "WINDOW", 3)
    straight = make_plan(make_recipe(dtype="fp16"), pack, tmp_path / "straight")
    assert loop.train(straight) == 10
    stopped = make_plan(make_recipe(dtype="fp16"), pack, tmp_path / "stopped")

    def stop_at_6(row):
        if row["step"] == 6:
            request_stop(stopped.run_dir, "test")

    assert loop.train(stopped, stop_at_6) < 10
    clear_stop(stopped.run_dir)
    assert loop.train(stopped) == 10
    one, other = (checkpoint.newest(plan.run_dir) for plan in (straight, stopped))
    assert one.state["scaler"] == other.state["scaler"] != {}
    for name in one.shapes:
        for kind in checkpoint.KINDS:
            assert torch.equal(one.full(name, kind), other.full(name, kind)), (name, kind)
    assert step_losses(straight.run_dir) == step_losses(stopped.run_dir)
    skips = [row for row in read_metrics(straight.run_dir, "event") if row["what"] == "scaler"]
    assert skips, "the first scale is far too high"
    assert one.state["guard"]["skipped"] == 0


def test_clipping_leaves_the_direction_and_bounds_the_norm():
    engine = tiny_engine(clip=0.01)
    engine.accumulate(batch(), 1 / 128, last=True)
    plain = [p.grad.clone() for p in engine.parameters]
    seen = {}
    engine.optimizer.register_step_pre_hook(
        lambda *_: seen.update(g=[p.grad.clone() for p in engine.parameters])
    )
    norm = engine.step(1e-3, 1.0).grad_norm
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in plain]).norm()), rel=1e-5)
    for before, after in zip(plain, seen["g"], strict=True):
        assert torch.allclose(before * (0.01 / norm), after, rtol=1e-3)


@pytest.fixture
def alone(tmp_path):
    prepare(1)  # DeepSpeed's extension is found where the environment has it
    with ranks.group(0, 1, str(tmp_path / "rendezvous")):
        yield


def test_a_key_that_deepspeed_does_not_know_is_an_error_of_the_recipe(alone):
    with pytest.raises(RecipeError, match="overlap_com"):
        tiny_engine(engine="deepspeed", deepspeed={"zero_optimization": {"overlap_com": True}})


def test_fp16_where_deepspeed_has_none_is_said_with_what_to_take(alone, monkeypatch):
    import_deepspeed()
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: False)
    with pytest.raises(EnvironmentProblem, match="fp16") as refused:
        tiny_engine(engine="deepspeed", dtype="fp16")
    assert "train.engine=torch" in refused.value.hint
