"""The learning rate at the steps that matter."""

from __future__ import annotations

import pytest

from tiny_train import make_recipe
from train_jobs.schedule import learning_rate, total_steps


def test_cosine_warms_up_peaks_and_ends_at_the_floor():
    train = make_recipe(lr=1.0, warmup_steps=10, min_lr_ratio=0.1).train
    rates = [learning_rate(train, step, 111) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == max(rates) == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)


def test_wsd_stays_and_then_decays_linearly():
    train = make_recipe(lr=1.0, warmup_steps=10, schedule="wsd", decay_fraction=0.2).train
    rates = [learning_rate(train, step, 100) for step in range(100)]
    assert set(rates[9:80]) == {1.0}
    assert rates[89] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[99] == pytest.approx(0.1)


def test_the_sqrt_decay_falls_fast_and_then_slowly():
    options = {"lr": 1.0, "schedule": "wsd", "decay_fraction": 0.2, "min_lr_ratio": 0.0}
    train = make_recipe(decay_shape="sqrt", **options).train
    rates = [learning_rate(train, step, 100) for step in range(100)]
    assert set(rates[2:80]) == {1.0}
    assert rates[84] == pytest.approx(1 - 0.25**0.5)
    assert rates[99] == pytest.approx(0.0)


@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_a_re_decay_has_the_rates_of_a_run_that_decays_from_there(shape):
    options = {"lr": 0.3, "schedule": "wsd", "decay_shape": shape}
    whole = make_recipe(decay_fraction=0.2, **options).train
    decay = make_recipe(decay_fraction=1.0, warmup_steps=0, **options).train
    rates = [learning_rate(whole, step, 100) for step in range(80, 100)]
    assert rates == [learning_rate(decay, step, 20) for step in range(20)]


def test_a_warm_up_longer_than_the_run_is_cut():
    train = make_recipe(lr=1.0, warmup_steps=1000).train
    assert max(learning_rate(train, step, 10) for step in range(10)) == 1.0


def test_steps_use_up_the_tokens():
    assert total_steps(make_recipe(tokens=11 * 16).train, 16) == 2
    assert total_steps(make_recipe(tokens=8 * 16).train, 16) == 1
