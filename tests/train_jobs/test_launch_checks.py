"""What is refused before a training is launched, with one clear error each."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mutirao.core.errors import DataError, EnvironmentProblem, RecipeError, UserError
from mutirao.core.files import read_json
from mutirao.core.job import StageJob
from mutirao.core.manifest import commit
from mutirao.core.model_size import resolve
from mutirao.core.progress import Progress
from mutirao.core.recipe import Ray
from tiny_train import VOCAB, make_pack, make_recipe, make_tokenizer, write_stream
from train_jobs import check
from train_jobs.check import (
    CHECKED,
    check_folder,
    check_machine,
    check_settings,
    check_shards,
    check_training,
)
from train_jobs.launch import run_train

CONTEXT = 16


def shape_of(recipe):
    return resolve(recipe.model, VOCAB)


def job_of(root, pack, recipe=None, tokenizer=None):
    inputs = {"pack": pack, "tokenizer": tokenizer or make_tokenizer(root / "tokenizer")}
    (root / "train").mkdir(exist_ok=True)
    quiet = Progress(quiet=True)
    recipe = recipe or make_recipe()
    return StageJob("train", recipe, root / "train", inputs, root / "run", quiet, use_ray=False)


def refused(job, kind, code, match):
    with pytest.raises(kind, match=match) as caught:
        check_training(job, shape_of(job.recipe))
    assert caught.value.code == code
    assert caught.value.where and caught.value.hint
    return caught.value


def test_a_sound_training_is_not_refused(tmp_path):
    job = job_of(tmp_path, make_pack(tmp_path / "pack"))
    check_training(job, shape_of(job.recipe))


@pytest.mark.parametrize(
    ("train", "match"),
    [
        ({"workers": 2, "min_workers": 3}, "min_workers is 3, but train.workers is 2"),
        ({"workers": 9}, "workers is 9, but a step has 8 sequences"),
        ({"tokens": 7 * CONTEXT}, "make 7 sequences of 16 tokens, fewer than the 8"),
        ({"offload": "optimizer"}, "offload is optimizer, which train.engine torch has not"),
        ({"deepspeed": {"x": 1}}, "deepspeed has keys, but train.engine is torch"),
        ({"profile": [3, 0]}, "profile names step 0, and the steps are 1 to 10"),
        ({"from_optimizer": True}, "there is no train.from to take them from"),
        ({"profile": [11]}, "profile names step 11, and the steps are 1 to 10"),
        (
            {"engine": "deepspeed", "deepspeed": {"zero_optimization": {"stage": 3}}},
            r"deepspeed may not set zero_optimization\.stage",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(train, match):
    with pytest.raises(RecipeError, match=match) as caught:
        check_settings(make_recipe(**train).train, CONTEXT)
    assert caught.value.where.startswith("train.") and caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("train", [{"attention": "flex"}, {"kernels": "liger"}])
def test_a_gpu_that_this_machine_has_not_is_missed_before_the_launch(tmp_path, monkeypatch, train):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = job_of(tmp_path, make_pack(tmp_path / "pack"), make_recipe(**train))
    refused(job, EnvironmentProblem, "no-gpu", "needs a CUDA GPU")
    on_a_cluster = job.recipe.model_copy(update={"ray": Ray(address="10.0.0.7:6379")})
    shape = resolve(job.recipe.model, VOCAB)
    check_machine(on_a_cluster, shape, use_ray=True)  # its workers look for themselves
    with pytest.raises(EnvironmentProblem):
        check_machine(on_a_cluster, shape, use_ray=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of workers that compute on CPUs")
def test_workers_that_this_machine_has_no_memory_for_are_refused_with_what_fits(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("train_jobs.memory.machine_bytes", lambda: 1_000_000_000)
    job = job_of(tmp_path, make_pack(tmp_path / "pack"), make_recipe(workers=2))
    with pytest.raises(EnvironmentProblem, match="2 workers need about") as caught:
        check_machine(job.recipe, resolve(job.recipe.model, VOCAB), use_ray=True)
    assert caught.value.code == "no-memory"


def test_a_missing_package_of_an_exporter_is_met_before_the_launch(tmp_path, monkeypatch):
    monkeypatch.setattr("train_jobs.exporters.find_spec", lambda name: None)
    job = job_of(tmp_path, make_pack(tmp_path / "pack"), make_recipe(tensorboard=True))
    refused(job, EnvironmentProblem, "no-exporter", "train.tensorboard needs the package")


def test_token_shards_of_another_tokenizer_are_refused(tmp_path):
    pack, tokenizer = make_pack(tmp_path / "pack"), make_tokenizer(tmp_path / "tokenizer")
    of = {**pack.content, "inputs": {"tokenizer": tokenizer.content_hash}}
    pack = commit(tmp_path / "pack", of, {})
    check_training(job_of(tmp_path, pack, tokenizer=tokenizer), shape_of(make_recipe()))
    other = commit(tmp_path / "other", {**tokenizer.content, "counts": {"merges": 1}}, {})
    refused(job_of(tmp_path, pack, tokenizer=other), DataError, "other-tokenizer", "of another")


def test_a_tokenizer_with_another_end_of_text_is_refused(tmp_path):
    pack, tokenizer = make_pack(tmp_path / "pack"), make_tokenizer(tmp_path / "tokenizer")
    other = replace(tokenizer, content={**tokenizer.content, "info": {"eos_id": 3}})
    job = job_of(tmp_path, pack, tokenizer=other)
    refused(job, DataError, "other-tokenizer", "eos_id 0 in the shards, 3 in the tokenizer")


def test_an_id_beyond_the_vocabulary_is_refused_and_the_file_named(tmp_path):
    pack = make_pack(tmp_path / "pack")
    tokens = np.full(500, VOCAB, dtype=np.uint16)
    bad = write_stream(tmp_path / "pack", "train-00001", tokens)
    parts = [vars(p) for p in pack.parts if not p.path.startswith("train-00001")]
    content = {**pack.content, "parts": parts + [vars(part) for part in bad]}
    job = job_of(tmp_path, commit(tmp_path / "pack", content, {}))
    error = refused(job, DataError, "bad-id", "Token id 300 is beyond .* of 300")
    assert error.where.endswith("train-00001.tokens.arrow")


def test_a_flipped_byte_of_a_shard_is_found_and_the_file_named(tmp_path):
    pack = make_pack(tmp_path / "pack")
    path = tmp_path / "pack" / "train-00001.tokens.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    error = refused(job_of(tmp_path, pack), DataError, "damaged-shard", "does not match its hash")
    assert error.where == str(path)


@pytest.mark.parametrize(("size", "match"), [(0, "0 bytes instead of"), (None, "is missing")])
def test_an_empty_or_missing_shard_is_refused(tmp_path, size, match):
    pack = make_pack(tmp_path / "pack")
    path = tmp_path / "pack" / "train-00000.tokens.arrow"
    path.unlink()
    if size is not None:
        path.touch()
    refused(job_of(tmp_path, pack), DataError, "damaged-shard", match)


@pytest.mark.parametrize(("side", "sizes"), [("train", (0, 500)), ("heldout", (6000, 0))])
def test_a_pack_without_tokens_on_one_side_is_refused(tmp_path, side, sizes):
    pack = make_pack(tmp_path / "pack", *sizes)
    refused(job_of(tmp_path, pack), DataError, "no-tokens", f"No {side} tokens")


def test_bytes_are_read_once_and_again_only_where_a_file_changed(tmp_path, monkeypatch):
    pack = make_pack(tmp_path / "pack")
    read = []
    whole = check.check_shard
    monkeypatch.setattr(
        "train_jobs.check.check_shard", lambda *a: read.append(a[1].path) or whole(*a)
    )
    check_shards(pack, VOCAB, tmp_path / "run")
    assert len(read) == 3
    check_shards(pack, VOCAB, tmp_path / "run")
    assert len(read) == 3
    os.utime(tmp_path / "pack" / "train-00001.tokens.arrow", ns=(1, 1))
    check_shards(pack, VOCAB, tmp_path / "run")
    assert read[3:] == ["train-00001.tokens.arrow"]
    assert read_json(tmp_path / "run" / CHECKED)["format"] == 1


def test_too_little_disk_for_the_checkpoints_is_refused_with_both_sizes(tmp_path, monkeypatch):
    recipe = make_recipe(keep_last=4)
    room = os.statvfs(tmp_path).f_bavail
    big = replace(shape_of(recipe), hidden_size=2**15, intermediate_size=2**17, layers=room)
    with pytest.raises(EnvironmentProblem, match=r"5 checkpoints .* GB more, and .* are free") as e:
        check_folder(tmp_path, big, recipe.train)
    assert e.value.code == "disk-full"


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()  # also root cannot make a folder in a file
    with pytest.raises(UserError, match="Cannot write") as caught:
        check_folder(tmp_path / "file" / "run", shape_of(make_recipe()), make_recipe().train)
    assert caught.value.code == "cannot-write"


def test_a_context_longer_than_all_tokens_is_refused(tmp_path):
    pack = make_pack(tmp_path / "pack", train=12)
    with pytest.raises(RecipeError):
        run_train(job_of(tmp_path, pack))


def test_checkpoints_of_another_recipe_are_refused_field_by_field_before_launch(
    tmp_path, monkeypatch
):
    pack = make_pack(tmp_path / "pack")
    run_train(job_of(tmp_path, pack, make_recipe(tokens=8 * CONTEXT * 2, checkpoint_every=1)))
    monkeypatch.setattr("train_jobs.launch.launch", lambda *a: pytest.fail("launched"))
    other = make_recipe(tokens=8 * CONTEXT * 9, lr=5e-3)
    with pytest.raises(RecipeError, match=r"train\.lr: 0\.01 -> 0\.005; train\.tokens: 256") as e:
        run_train(job_of(tmp_path, pack, other))
    assert e.value.code == "other-recipe"


@pytest.mark.parametrize("name", ["*.safetensors", "manifest.json"])
def test_a_finished_training_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    tmp_path, name
):
    pack = make_pack(tmp_path / "pack")
    recipe = make_recipe(tokens=8 * CONTEXT * 3, checkpoint_every=1)
    first = run_train(job_of(tmp_path, pack, recipe))
    (last,) = (tmp_path / "run" / "checkpoints").glob(f"step-00000003/{name}")
    last.write_bytes(last.read_bytes()[:-10])
    again = run_train(job_of(tmp_path, pack, recipe))
    assert again.info == first.info
    assert [p.sha256 for p in again.parts] == [p.sha256 for p in first.parts]
