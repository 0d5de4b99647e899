"""Held-out text is judged as training read it: document by document, on answers alone."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from mutirao.core.errors import DataError
from mutirao.core.metrics import read_metrics
from mutirao.core.model_size import resolve
from mutirao.core.progress import Progress
from mutirao.core.recipe import Train
from test_answers import CHAT, EOS, ROLES, chat_pack, oracle, talk
from test_train_stages import run_stage
from tiny_train import VOCAB, make_plan, make_recipe, make_tokenizer
from train_jobs import evaluate
from train_jobs.begin import begin_engine
from train_jobs.evaluate import measured, run_evaluate, unigram_answer_loss
from train_jobs.heldout import heldout_losses, heldout_mean
from train_jobs.loader import token_streams
from train_jobs.model import build_model, token_losses


def mixed(count: int, seed: int) -> np.ndarray:
    """Conversations and, after every third, a plain document."""
    random, found, talks = np.random.default_rng(seed), [], talk(count)
    for number, document in enumerate(np.split(talks, np.flatnonzero(talks == EOS) + 1)):
        found += document.tolist()
        if number % 3 == 0:
            found += [*random.integers(20, VOCAB, 7).tolist(), EOS]
    return np.array(found)


def only_answers(tokens: np.ndarray) -> np.ndarray:
    """The oracle's weights without those of documents that have no markers."""
    found, begin = np.array(oracle(tokens)), 0
    for end in [*np.flatnonzero(tokens == EOS).tolist(), len(tokens) - 1]:
        if begin < len(tokens) and tokens[begin] not in ROLES:
            found[begin : end + 1] = 0
        begin = end + 1
    return found


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return chat_pack(tmp_path_factory.mktemp("pack"), mixed(150, 1), mixed(30, 2))


@pytest.fixture(scope="module")
def model():
    return build_model(resolve(make_recipe().model, VOCAB), seed=1).eval()


@torch.no_grad()
def nats_apart(model, tokens: np.ndarray, by_document: bool) -> np.ndarray:
    """Of each token after what stands before it in its sequence of 16 or, within that, in its
    document; each such piece is a pass of its own. The token before a sequence is seen."""
    found, seen = np.zeros(len(tokens)), np.array([EOS, *tokens])
    for start in range(0, len(tokens), 16):
        end = min(start + 16, len(tokens))
        inside = [at for at in range(start + 1, end) if by_document and seen[at - 1] == EOS]
        for first, last in pairwise([start, *inside, end]):
            logits = model(torch.from_numpy(seen[first:last])[None]).logits
            found[first:last] = token_losses(logits, torch.from_numpy(tokens[first:last])[None])
    return found


@pytest.mark.parametrize("by_document", [False, True])
def test_every_token_is_judged_after_what_training_would_have_shown_before_it(
    pack, model, by_document
):
    (stream,) = token_streams(pack, "heldout")
    tokens = stream.read(0, len(stream)).astype(np.int64)
    nats = nats_apart(model, tokens, by_document)
    train = make_recipe(document_mask=by_document, loss_on="answers").train
    (found,) = measured(model, pack, train)
    assert found.nats == pytest.approx(nats.sum(), rel=1e-5)
    weights = only_answers(tokens)
    assert 0 < weights.sum() < sum(oracle(tokens)), "plain documents are held out too"
    assert found.answer_tokens == weights.sum()
    assert found.answer_nats == pytest.approx((nats * weights).sum(), rel=1e-5)
    other = nats_apart(model, tokens, not by_document)
    assert found.nats != pytest.approx(other.sum(), rel=1e-5)


def test_the_loss_while_training_is_of_the_same_tokens_in_the_same_context(pack, tmp_path):
    recipe = make_recipe(document_mask=True, loss_on="answers")
    plan = make_plan(recipe, pack, tmp_path)
    engine, _ = begin_engine(plan, pack.content_hash)
    (stream,) = token_streams(pack, "heldout")
    tokens = stream.read(0, len(stream)).astype(np.int64)
    assert len(tokens) < 64 * 16, "all of it is looked at"
    nats, weights = nats_apart(engine.module.eval(), tokens, True), np.array(oracle(tokens))
    (row,) = heldout_losses(engine, pack, 16, recipe.train)
    assert row["loss"] == pytest.approx((nats * weights).sum() / weights.sum(), rel=1e-5)
    assert row["tokens"] == row["of_tokens"] == weights.sum()
    assert row["bits_per_byte"] is None
    assert heldout_mean([row])["loss"] == pytest.approx(row["loss"])


def test_the_unigram_model_of_answers_is_counted_from_answers_in_any_pieces(pack, monkeypatch):
    train, heldout = (
        stream.read(0, len(stream)).astype(np.int64)
        for side in ("train", "heldout")
        for stream in token_streams(pack, side)
    )
    counts = np.bincount(train[only_answers(train) == 1], minlength=VOCAB) + 1
    asked = heldout[only_answers(heldout) == 1]
    want = -np.log(counts / counts.sum())[asked].mean()
    for size in (1 << 20, 7):
        monkeypatch.setattr(evaluate, "ANSWER_CHUNK", size)
        assert unigram_answer_loss(pack, VOCAB) == pytest.approx(want)


def trained_on_answers(root, pack, **train):
    recipe = make_recipe(loss_on="answers", **train)
    inputs = {"pack": pack, "tokenizer": make_tokenizer(root / "tokenizer")}
    return recipe, {**inputs, "train": run_stage("train", root, recipe, inputs)}


def sums(count: int) -> np.ndarray:
    """Questions are drawn evenly from all ids; all answers are one, which can be learned."""
    random, found = np.random.default_rng(count), []
    for _ in range(count):
        asked = random.integers(6, VOCAB, 3).tolist()
        found += [CHAT["user"], *asked, 5, CHAT["assistant"], 7, 8, 9, 5, EOS]
    return np.array(found)


def test_a_model_of_answers_is_judged_on_answers_and_passes_where_all_text_would_not(tmp_path):
    pack = chat_pack(tmp_path / "pack", sums(400), sums(40))
    recipe, inputs = trained_on_answers(tmp_path, pack, tokens=16 * 8 * 60)
    found = run_stage("evaluate", tmp_path, recipe, inputs, run_evaluate)
    value = json.loads((found.directory / "evaluation.json").read_text())
    assert value["answer_tokens"] == 40 * 4
    assert value["answer_loss"] < value["unigram_answer_loss"] - 0.05 * math.log(2)
    assert value["bits_per_byte"] > value["unigram_bits_per_byte"], "the questions got worse"
    assert [row["kind"] for row in read_metrics(tmp_path / "run", "heldout")]


def test_a_model_that_learned_no_answers_ends_the_run_with_both_numbers(tmp_path):
    pack = chat_pack(tmp_path / "pack", sums(400), sums(40))
    recipe, inputs = trained_on_answers(tmp_path, pack, tokens=128, lr=1e-9)
    match = r"\d\.\d+ bits per token on held-out answers, and a unigram model reaches \d\.\d+"
    with pytest.raises(DataError, match=match) as caught:
        run_stage("evaluate", tmp_path, recipe, inputs, run_evaluate)
    assert caught.value.code == "no-learning"


def test_without_a_held_out_answer_nothing_is_judged_and_it_is_said(tmp_path):
    asked = np.array([CHAT["user"], *[7] * 60, 5, EOS])
    pack = chat_pack(tmp_path / "pack", sums(400), asked)
    recipe, inputs = trained_on_answers(tmp_path, pack, tokens=128, lr=1e-9)
    said, progress = [], Progress(quiet=True)
    progress.say = said.append
    found = run_stage("evaluate", tmp_path, recipe, inputs, run_evaluate, progress)
    assert any("no answer is held out" in line for line in said)
    assert found.content["info"]["answer_tokens"] == 0
    assert found.content["info"]["answer_loss"] is None
    assert read_metrics(tmp_path / "run", "heldout") == []


def test_a_plain_run_knows_nothing_of_answers(pack, model):
    assert evaluate.answer_losses(measured(model, pack, Train()), pack, Train(), VOCAB) == {}
