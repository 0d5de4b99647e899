"""Faults of data and memory, injected into real trainings: found, undone, the same weights at last.

A NaN comes from the forward pass of chosen sequences, a fault of memory is one bit flipped in the
live module, a damaged shard is a damaged file. Two ranks are started once for all of their cases.
"""

from __future__ import annotations

import gc
import math
import os
import weakref
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from mutirao.core.errors import DataError
from mutirao.core.files import read_json, write_json
from mutirao.core.manifest import read_manifest
from mutirao.core.metrics import read_metrics
from mutirao.core.stop import clear_stop, request_stop
from test_integrity import flip
from tiny_train import make_pack, make_plan, make_recipe
from train_jobs import begin, checkpoint, loop, ranks
from train_jobs.loader import Loader
from train_jobs.skips import SkipList, guard_summary
from train_jobs.worker import prepare

GUARD = {"window": 8, "rollback_after": 3, "recompute_every": 0, "weights_every": 0}
STEPS = {"tokens": 24 * 8 * 16, "checkpoint_every": 4, "eval_every": 100}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


def same_end(one: Path, other: Path) -> bool:
    """Weights, moments and state, bit for bit."""
    a, b = checkpoint.newest(one), checkpoint.newest(other)
    assert a.step == b.step and a.state == b.state
    return all(torch.equal(a.full(n, k), b.full(n, k)) for n in a.shapes for k in checkpoint.KINDS)


def poisoned_data(monkeypatch, pack, recipe, steps, factor: float) -> None:
    """What the model says of the sequences of these steps is multiplied by `factor`, wherever and
    whenever they are read."""
    loader = Loader(pack, recipe, 16)
    bad = {row.tobytes() for step in steps for row in loader.batch(step - 1).labels}
    real = begin.build_model

    def hook(module, inputs):
        hidden, labels, weights = inputs
        hit = torch.tensor([row.numpy().tobytes() in bad for row in labels])
        hidden = hidden.clone()
        hidden[hit] = hidden[hit] * factor
        return hidden, labels, weights

    def build(*arguments):
        model = real(*arguments)
        model.lm_head.register_forward_pre_hook(hook)
        return model

    monkeypatch.setattr(begin, "build_model", build)


@pytest.mark.parametrize(("factor", "kind"), [(math.nan, "not-finite"), (30.0, "spike")])
def test_a_bad_stretch_of_data_ends_as_if_it_had_been_left_out_from_the_start(
    pack, tmp_path, monkeypatch, factor, kind
):
    recipe = make_recipe(**STEPS, guard={**GUARD, "window": 128 if kind == "not-finite" else 8})
    poisoned_data(monkeypatch, pack, recipe, range(13, 17), factor)
    run = make_plan(recipe, pack, tmp_path / "run")
    assert loop.train(run) == 24
    record = read_json(run.run_dir / "guard.json")
    assert [one["left_out"] for one in record["rollbacks"]] == [
        [[9 * 8, 12 * 8], [12 * 8, 13 * 8], [13 * 8, 14 * 8], [14 * 8, 15 * 8]]
    ]
    assert kind in record["rollbacks"][0]["detail"]
    event = next(row for row in read_metrics(run.run_dir, "event") if row["what"] == "rollback")
    assert (event["step"], event["to_step"], event["cause"]) == (15, 8, "bad-steps")
    content, machine = guard_summary(run.run_dir)
    assert content == {
        "skipped_steps": 1,
        "rollbacks": 1,
        "sequences_left_out": 48,
    }  # step 16 alone
    assert not any(machine.values())

    other = make_plan(recipe, pack, tmp_path / "listed")
    write_json(other.run_dir / "guard.json", record)
    assert loop.train(other) == 24
    assert same_end(run.run_dir, other.run_dir)


def test_a_stop_and_a_lost_guard_json_change_nothing_about_a_rollback(pack, tmp_path, monkeypatch):
    # Of stops close together each leaves a checkpoint; one from before the bad steps has to stay.
    recipe = make_recipe(**STEPS, guard=GUARD, log_every=1, keep_last=4)
    poisoned_data(monkeypatch, pack, recipe, range(13, 16), math.nan)
    straight = make_plan(recipe, pack, tmp_path / "straight")
    loop.train(straight)
    stopped = make_plan(recipe, pack, tmp_path / "stopped")
    for at in (10, 13, 18):  # before, among and after the bad steps
        loop.train(
            stopped, lambda row, at=at: row["step"] == at and request_stop(stopped.run_dir, "t")
        )
        clear_stop(stopped.run_dir)
        if at == 18:
            (stopped.run_dir / "guard.json").unlink()
    assert loop.train(stopped) == 24
    assert same_end(straight.run_dir, stopped.run_dir)
    assert SkipList(stopped.run_dir).ranges == SkipList(straight.run_dir).ranges == [[72, 120]]


def in_hand(monkeypatch) -> list:
    """What `loop.begin` makes, kept for the test to reach into."""
    found, real = [], loop.begin

    def begin_(*arguments):
        found[:] = [real(*arguments)]
        return found[0]

    monkeypatch.setattr(loop, "begin", begin_)
    return found


def test_a_pass_that_computes_something_else_the_second_time_is_done_again(
    pack, tmp_path, monkeypatch
):
    guard = {**GUARD, "recompute_every": 1}
    recipe = make_recipe(guard=guard, log_every=1, checkpoint_every=2, eval_every=100)
    undisturbed = make_plan(recipe, pack, tmp_path / "undisturbed")
    loop.train(undisturbed)
    run, engines, faults = in_hand(monkeypatch), [], []

    def between_passes(module, *_):
        if not faults:  # once, after the first pass of step 6
            faults.append(1)
            flip(module.model.layers[1].mlp.down_proj.weight, 7, 30)

    def at_5(row):
        if row["step"] == 5 and not faults:
            engines.append(weakref.ref(run[0].engine))
            run[0].engine.module.register_forward_hook(between_passes)

    disturbed = make_plan(recipe, pack, tmp_path / "disturbed")
    assert loop.train(disturbed, at_5) == 10
    run.clear()
    gc.collect()
    assert engines[0]() is None
    assert guard_summary(disturbed.run_dir)[1] == {"compute_faults": 1, "memory_faults": 0}
    event = next(
        row for row in read_metrics(disturbed.run_dir, "event") if row["what"] == "rollback"
    )
    assert (event["step"], event["to_step"], event["detail"]) == (6, 4, "rank 0")
    assert guard_summary(disturbed.run_dir)[0] == guard_summary(undisturbed.run_dir)[0]
    assert same_end(disturbed.run_dir, undisturbed.run_dir)


def test_an_engine_is_free_before_the_next_attempt_begins(pack, tmp_path, monkeypatch):
    recipe = make_recipe(**STEPS, guard=GUARD)
    poisoned_data(monkeypatch, pack, recipe, range(13, 16), math.nan)
    engines, alive, real = [], [], loop.begin_engine

    def begin_engine(*arguments):
        alive.append(sum(engine() is not None for engine in engines))
        engine, saved = real(*arguments)
        engines.append(weakref.ref(engine))
        return engine, saved

    monkeypatch.setattr(loop, "begin_engine", begin_engine)
    loop.train(make_plan(recipe, pack, tmp_path / "run"))
    assert alive == [0, 0]


def test_ids_that_the_model_does_not_know_end_the_run_with_a_sentence(tmp_path):
    pack = make_pack(tmp_path / "pack")
    plan = make_plan(make_recipe(), pack, tmp_path / "run")
    path = pack.directory / "train-00001.tokens.arrow"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 64 * 64
    data[middle : middle + 2000] = b"\xff" * 2000  # as many bytes: only the tokens are others
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"Token id 65,535 in step \d+, .* below 300") as caught:
        loop.train(plan)
    assert caught.value.code == "bad-tokens"


def test_a_token_file_that_is_short_ends_the_run_with_a_sentence(tmp_path):
    pack = make_pack(tmp_path / "pack")
    plan = make_plan(make_recipe(), pack, tmp_path / "run")
    path = pack.directory / "train-00001.tokens.arrow"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"Not a readable Arrow file.*train-00001"):
        loop.train(plan)
    whole = make_pack(tmp_path / "other", train=5000).directory  # readable, of another pack
    path.write_bytes((whole / "train-00001.tokens.arrow").read_bytes())
    with pytest.raises(DataError, match="has 5,500 of 6,000 tokens"):
        loop.train(plan)


WEIGHT = "model.layers.1.mlp.down_proj.weight"  # under ZeRO 2 in the part of rank 1
# Two ranks: name -> (engine, what is flipped in which rank after step 5, what the rollback says).
CASES = {
    "torch-weight": ("torch", ("weight", 1), f"ranks 0, 1 differ: {WEIGHT}"),
    "torch-moment": ("torch", ("moment", 0), f"ranks 0, 1 differ: {WEIGHT}/exp_avg"),
    "zero2-replica": ("zero2", ("weight", 1), f"rank 1: {WEIGHT} is not its master, cast"),
    "zero2-master": ("zero2", ("master", 0), "rank 0: "),
    "zero3-master": ("zero3", ("master", 1), "rank 1: "),
}
ENGINES = {
    "torch": {"engine": "torch"},
    "zero2": {"engine": "deepspeed", "zero_stage": 2},
    "zero3": {"engine": "deepspeed", "zero_stage": 3, "dtype": "bf16"},
}


def options(engine: str) -> dict:
    guard = {**GUARD, "recompute_every": 3, "weights_every": 3}
    return {**ENGINES[engine], "guard": guard, "workers": 2, "log_every": 1, "eval_every": 100}


def disturb(run, what: str) -> None:
    """The highest bit of the fraction: the value stays a usual one, and only the checks see it."""
    engine, bit = run.engine, 22
    weight = dict(engine.module.named_parameters())[WEIGHT]
    if what == "weight":
        flip(weight, 3, bit)
    elif what == "moment":
        flip(engine.optimizer.state[weight]["exp_avg"], 3, bit)
    else:
        flip(engine.slices()[0].master, 3, bit)


def rank_main(number: int, rendezvous: str, root: Path) -> None:
    prepare(1)
    pack = read_manifest(root / "pack")
    patch = pytest.MonkeyPatch()
    run = in_hand(patch)
    with ranks.group(number, 2, rendezvous):
        for name, (engine, (what, where), _) in CASES.items():
            done: list[int] = []

            def at_5(row, what=what, where=where, done=done):
                if row["step"] == 5 and not done:
                    done.append(1)
                    if ranks.rank() == where:
                        disturb(run[0], what)

            loop.train(make_plan(make_recipe(**options(engine)), pack, root / name), at_5)
        for engine in ENGINES:
            loop.train(make_plan(make_recipe(**options(engine)), pack, root / engine))
    patch.undo()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    make_pack(root / "pack")
    arguments = (str(root / "rendezvous"), root)
    mp.start_processes(rank_main, arguments, nprocs=2, start_method="spawn")
    return root


@pytest.mark.parametrize("name", CASES)
def test_a_flipped_bit_is_found_named_and_undone(two_ranks, name):
    engine, _, said = CASES[name]
    fault = read_json(two_ranks / name / "guard.json")["rollbacks"]
    assert [(one["cause"], one["step"]) for one in fault] == [("memory-fault", 6)]
    assert fault[0]["detail"].startswith(said)
    assert same_end(two_ranks / name, two_ranks / engine)


def test_without_a_fault_the_checks_find_none(two_ranks):
    for engine in ENGINES:
        assert not (two_ranks / engine / "guard.json").exists()
        assert checkpoint.newest(two_ranks / engine).step == 10
