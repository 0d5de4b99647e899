"""`train.from`: what a fork begins with, what it reads next, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from mutirao.core.errors import DataError, RecipeError
from mutirao.core.files import read_json, write_json
from mutirao.core.manifest import commit
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.recipe import Source
from tiny_train import VOCAB, chain, make_pack, make_plan, make_recipe, make_tokenizer, write_stream
from train_jobs import checkpoint, loop
from train_jobs.checkpoint import KINDS
from train_jobs.loader import Loader
from train_jobs.mix import Mix, Share
from train_jobs.model import build_model
from train_jobs.origin import check_origin, load_weights, open_origin

STEP = 8 * 16  # tokens
WSD = {"schedule": "wsd", "tokens": 14 * STEP, "decay_fraction": 6 / 14, "keep_last": 9}


def fork_of(plan, run_dir, step, pack, **train):
    recipe = make_recipe(**{"from": f"{plan.run_dir.name}@{step}", **train})
    folder = checkpoint.checkpoints(plan.run_dir) / f"step-{step:08d}"
    return replace(make_plan(recipe, pack, run_dir), origin=folder)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def stable(pack, tmp_path_factory):
    """14 steps, the last 6 of them in the decay; checkpoints at 4, 8, 12, 14."""
    plan = make_plan(make_recipe(**WSD), pack, tmp_path_factory.mktemp("stable"))
    loop.train(plan)
    return plan


def test_a_re_decay_from_a_stable_checkpoint_is_the_decay_of_one_run_bit_for_bit(
    pack, stable, tmp_path
):
    decay = {"schedule": "wsd", "decay_fraction": 1.0, "warmup_steps": 0, "tokens": 6 * STEP}
    plan = fork_of(stable, tmp_path / "fork", 8, pack, from_optimizer=True, **decay)
    assert loop.train(plan) == 6
    one, other = checkpoint.newest(stable.run_dir), checkpoint.newest(plan.run_dir)
    assert (one.state["adam_step"], other.state["adam_step"]) == (14, 14)
    for name in one.shapes:
        for kind in KINDS:
            assert torch.equal(one.full(name, kind), other.full(name, kind)), (name, kind)
    straight = step_losses(stable.run_dir)
    assert step_losses(plan.run_dir) == {s - 8: straight[s] for s in range(9, 15)}
    # A fork of the fork goes on behind both.
    assert other.state["cursor"]["streams"] == one.state["cursor"]["streams"] == [14 * 8]


def test_a_fork_continues_from_its_own_checkpoint_without_its_origin(pack, stable, tmp_path):
    options = {"from_optimizer": True, "tokens": 6 * STEP}
    plan = fork_of(stable, tmp_path / "fork", 8, pack, **options)
    loop.train(plan, lambda row: row["step"] == 2 and (plan.run_dir / "stop.json").write_text("{}"))
    (plan.run_dir / "stop.json").unlink()
    gone = replace(plan, origin=tmp_path / "gone")
    assert 0 < checkpoint.newest(plan.run_dir).step < 6
    assert loop.train(gone) == 6
    whole = fork_of(stable, tmp_path / "whole", 8, pack, **options)
    loop.train(whole)
    assert step_losses(whole.run_dir) == step_losses(plan.run_dir)
    assert checkpoint.newest(whole.run_dir).state["identity"]["origin"]


def test_weights_alone_begin_the_data_and_the_moments_anew(pack, stable, tmp_path):
    plan = fork_of(stable, tmp_path / "fork", 8, pack, tokens=2 * STEP)
    loop.train(plan)
    saved = checkpoint.newest(plan.run_dir)
    assert saved.state["adam_step"] == 2 and saved.state["cursor"]["streams"] == [16]
    first = step_losses(plan.run_dir)[1]
    assert first < step_losses(stable.run_dir)[1] - 0.05


def test_a_fork_on_other_text_with_replay_learns_it_and_keeps_the_old(pack, stable, tmp_path):
    def heldout(run_dir):
        rows = read_metrics(run_dir, "heldout")
        return [{one["name"]: one["loss"] for one in row["streams"]} for row in rows]

    both = two_streams(tmp_path / "both")
    options = {"tokens": 40 * STEP, "eval_every": 20, "max_epochs": 20.0}
    after = {}
    for name, weight in (("replay", 0.5), ("none", 0.0)):
        plan = fork_of(stable, tmp_path / name, 14, both, **options)
        sources = (Source(path="new.txt"), Source(path="old.txt", weight=weight))
        recipe = plan.recipe.model_copy(update={"sources": sources})
        loop.train(replace(plan, recipe=recipe))
        after[name] = heldout(plan.run_dir)
    assert after["replay"][-1]["new"] < after["replay"][0]["new"] - 0.1
    assert after["replay"][-1]["old"] < after["none"][-1]["old"] - 0.1


def two_streams(directory):
    """`new`, a chain with other successors, and `old`, that of the first training."""
    parts, streams = [], []
    for number, (name, tokens) in enumerate({"new": other_chain(), "old": chain(4000)}.items()):
        sizes = {"train": tokens[:3500], "heldout": tokens[3500:]}
        for side, some in sizes.items():
            parts += write_stream(directory, f"{side}-{number:02d}-00000", some)
        counts = {s: {"tokens": len(t), "text_bytes": 4 * len(t)} for s, t in sizes.items()}
        streams.append({"name": name, **counts})
    sums = {k: {s: sum(x[s][k] for x in streams) for s in ("train", "heldout")}
            for k in ("tokens", "text_bytes")}  # fmt: skip
    info = {"dtype": "uint16", "eos_id": 0, "vocab_size": VOCAB, "streams": streams, **sums}
    content = {"parts": [asdict(part) for part in parts], "counts": {}, "info": info}
    return commit(directory, content, {})


def other_chain() -> np.ndarray:
    """The first chain with each token under another id: as hard, and other text."""
    return np.random.default_rng(1).permutation(VOCAB)[chain(4000)].astype(np.uint16)


def test_what_the_origin_read_is_not_read_again_before_an_epoch_ends():
    sizes = [Share("a", 6400, 400, 1.0, 1.0), Share("b", 1600, 100, 2.0, 2.0)]
    first = Mix(sizes, 300, 16, seed=3)
    read = first.read_until(150)
    assert sum(read) == 150
    behind = [replace(share, already=n) for share, n in zip(sizes, read, strict=True)]
    fork = Mix(behind, 200, 16, seed=3)
    before = set(zip(*first.locate(np.arange(150)), strict=True))
    after = set(zip(*fork.locate(np.arange(200)), strict=True))
    assert len(after) == 200 and not before & after
    for stream, number in enumerate(read):
        assert min(k for s, k in after if s == stream) == number
    assert fork.read_until(200) == [n + q for n, q in zip(read, fork.quotas, strict=True)]


def test_an_epoch_cap_counts_what_the_origin_read():
    share = Share("a", 1600, 100, 1.0, 2.0, already=150)
    assert Mix([share], 50, 16, seed=3).quotas == [50]
    with pytest.raises(RecipeError, match="allows 800 more tokens"):
        Mix([share], 51, 16, seed=3)


def test_on_other_shards_or_another_seed_the_data_begins_anew(pack, stable, tmp_path):
    plan = fork_of(stable, tmp_path / "fork", 8, pack, from_optimizer=True, tokens=STEP)
    plan = replace(plan, recipe=plan.recipe.model_copy(update={"seed": 7}))
    loop.train(plan)
    loader = Loader(pack, plan.recipe, 16, plan.run_dir)
    assert loader.read_so_far(1) == [8]
    assert checkpoint.newest(plan.run_dir).state["adam_step"] == 9


@pytest.fixture(scope="module")
def llama(stable, tmp_path_factory):
    """As transformers writes it: bf16, in several files with their index."""
    from transformers import LlamaForCausalLM

    from train_jobs.model import llama_config

    folder = tmp_path_factory.mktemp("llama")
    model = LlamaForCausalLM(llama_config(stable.shape, 0)).bfloat16()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    return folder, model


def test_a_sharded_llama_from_elsewhere_is_begun_with(pack, stable, llama, tmp_path):
    folder, theirs = llama
    ours = build_model(stable.shape, seed=1)
    load_weights(ours, open_origin(folder))
    named = dict(ours.named_parameters())
    assert all(torch.equal(named[n], p.float()) for n, p in theirs.named_parameters())
    plan = replace(make_plan(make_recipe(tokens=STEP), pack, tmp_path / "run"), origin=folder)
    assert loop.train(plan) == 1
    record = read_json(plan.run_dir / "origin.json")
    assert record["step"] is None and record["streams"] is None


def refused(folder, stable, tokenizer, **train):
    check_origin(folder, make_recipe(**train), stable.shape, tokenizer)


def test_another_shape_is_refused_field_by_field(stable, llama, tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    for file in llama[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "num_hidden_layers": 3, "rms_norm_eps": 1e-6})
    with pytest.raises(RecipeError, match=r"model.layers: 2, origin 3; model.norm_eps") as caught:
        refused(folder, stable, tmp_path)
    assert caught.value.hint == "Set model.layers=3 model.norm_eps=1e-06"
    write_json(folder / "config.json", {**config, "rope_scaling": {"type": "linear", "factor": 2}})
    with pytest.raises(RecipeError, match="rope_scaling"):
        refused(folder, stable, tmp_path)


def test_weights_that_are_not_the_models_are_refused_by_name(stable, llama):
    wider = replace(stable.shape, intermediate_size=50, layers=3)
    with pytest.raises(RecipeError, match=r"9 missing \(model.layers.2.*down_proj.weight is"):
        load_weights(build_model(wider, seed=1), open_origin(llama[0]))


def test_another_tokenizer_is_refused_and_a_renamed_spare_id_is_not(stable, llama, tmp_path):
    ours = make_tokenizer(tmp_path / "ours").directory
    text = (ours / "tokenizer.json").read_text()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for file in llama[0].iterdir():
        (theirs / file.name).write_bytes(file.read_bytes())
    record = json.loads(text)
    (theirs / "tokenizer.json").write_text(text)
    refused(theirs, stable, ours)
    vocabulary = record["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (theirs / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(RecipeError, match="2 of them mean something else") as caught:
        refused(theirs, stable, ours)
    assert caught.value.hint == f"Set tokenizer.path: {theirs}"
    for folder, name in ((theirs, "<|spare_0|>"), (ours, "<|user|>")):
        record = json.loads(text)
        record["model"]["vocab"].pop("spare9")
        special = {"id": 266, "content": name, "special": True}
        record["added_tokens"].append(special)
        (folder / "tokenizer.json").write_text(json.dumps(record))
    refused(theirs, stable, ours)


def test_moments_are_asked_of_a_checkpoint_alone(stable, llama, tmp_path):
    with pytest.raises(RecipeError, match="needs the moments"):
        refused(llama[0], stable, tmp_path, from_optimizer=True, **{"from": "x"})


def test_pickled_weights_are_never_opened(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(RecipeError, match=r"no \*.safetensors") as caught:
        open_origin(tmp_path)
    assert "never opened" in caught.value.hint


def test_a_damaged_origin_is_refused(pack, stable, tmp_path):
    folder = tmp_path / "checkpoints" / "step-00000008"
    shutil.copytree(checkpoint.checkpoints(stable.run_dir) / folder.name, folder)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    plan = replace(make_plan(make_recipe(), pack, tmp_path / "run"), origin=folder)
    with pytest.raises(DataError, match="does not match its hash"):
        loop.train(plan)
    shutil.rmtree(folder)
    with pytest.raises(RecipeError, match="no longer there"):
        open_origin(folder)


def test_a_checkpoint_of_the_version_before_still_continues(pack, tmp_path):
    """Format 1: `skipped` for the guard, names without the attempt, no count of streams."""
    plan = make_plan(make_recipe(tokens=8 * STEP), pack, tmp_path / "run")
    loop.train(plan)
    straight = checkpoint.newest(plan.run_dir)
    before = make_plan(make_recipe(tokens=8 * STEP), pack, tmp_path / "before")
    loop.train(before)
    shutil.rmtree(checkpoint.checkpoints(before.run_dir) / "step-00000008")
    (folder,) = checkpoint.checkpoints(before.run_dir).iterdir()
    record = read_json(folder / "manifest.json")
    for file in record["files"]:
        name = "rank-00000-of-00001.safetensors"
        (folder / file["path"]).rename(folder / name)
        file["path"] = name
    state = record["state"]
    del state["guard"], state["scaler"], state["cursor"]["streams"], state["cursor"]["skips"]
    write_json(folder / "manifest.json", {**record, "format": 1, "state": {**state, "skipped": 0}})
    assert loop.train(before) == 8
    one = checkpoint.newest(before.run_dir)
    assert all(torch.equal(one.full(n), straight.full(n)) for n in one.shapes)
    old = replace(plan, run_dir=tmp_path / "fork", origin=folder)
    recipe = make_recipe(from_optimizer=True)
    with pytest.raises(DataError, match="does not say what it had read"):
        loop.train(replace(old, recipe=recipe))
