"""Loss on answers only: which tokens count, wherever a sequence begins, and what training does."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest, commit, read_manifest
from mutirao.core.metrics import read_metrics, step_losses
from tiny_train import VOCAB, make_pack, make_plan, make_recipe, write_stream
from train_jobs import checkpoint, loop, ranks
from train_jobs.answers import Answers
from train_jobs.loader import Loader, TokenStream, plan_mix
from train_jobs.model import build_model
from train_jobs.worker import prepare

EOS = 0
CHAT = {"system": 1, "user": 2, "assistant": 3, "tool": 4, "end_of_turn": 5}
INFO = {"chat": CHAT, "eos_id": EOS, "vocab_size": VOCAB}
ROLES = [1, 2, 3, 4]


def words(random, count: int) -> list[int]:
    return random.integers(6, 20, count).tolist()


def conversation(random, roles: str, longest: int) -> list[int]:
    """roles: such as 'uaua' for two questions with their answers; ended by EOS."""
    marker = {"s": 1, "u": 2, "a": 3, "t": 4}
    turns = [[marker[r], *words(random, random.integers(1, longest)), 5] for r in roles]
    return [*chain(*turns), EOS]


def made_up_stream(longest: int = 9) -> np.ndarray:
    random = np.random.default_rng(3)
    documents = []
    for roles in ("ua", "", "sua", "uatua", "", "", "ua", "sutaua"):
        if roles:
            documents.append(conversation(random, roles, longest))
        else:
            documents.append([*words(random, random.integers(0, longest)), EOS])
    return np.array([*chain(*documents)], dtype=np.uint16)


def oracle(tokens: np.ndarray) -> list[int]:
    """Document by document and turn by turn, as a reader would do it."""
    found: list[int] = []
    begin = 0
    for end in [*np.flatnonzero(tokens == EOS).tolist(), len(tokens) - 1]:
        document = tokens[begin : end + 1].tolist()
        if document and document[0] in ROLES:
            speaker = None
            for token in document:
                if token in ROLES:
                    speaker = token
                    found.append(0)
                else:
                    found.append(int(speaker == CHAT["assistant"]))
                    speaker = None if token in (CHAT["end_of_turn"], EOS) else speaker
        else:
            found += [1] * len(document)
        begin = end + 1
    return found


def as_stream(*pieces: np.ndarray) -> TokenStream:
    """As if the pieces were mapped from files."""
    stream = TokenStream([])
    stream.chunks = list(pieces)
    stream.starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    return stream


def test_the_oracle_reads_a_small_conversation():
    tokens = np.array([2, 9, 5, 3, 8, 7, 5, 0, 11, 12, 0])
    assert oracle(tokens) == [0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("length", [1, 2, 5, 23])
def test_weights_are_the_oracles_wherever_a_sequence_begins(length):
    tokens = made_up_stream()
    stream, answers = as_stream(*np.array_split(tokens, 3)), Answers(INFO)
    want = oracle(tokens)
    for start in range(len(tokens) - length):
        found = answers.weights(stream, start, tokens[start : start + length + 1].astype(np.int64))
        assert found.dtype == np.float32
        assert found.tolist() == want[start + 1 : start + length + 1], start


def test_a_turn_longer_than_many_looks_back_is_known_to_its_end(monkeypatch):
    monkeypatch.setattr("train_jobs.answers.LOOK_BACK", 1 << 12)  # looks of 16 to 4,096 tokens
    long = [7] * 20_000
    tokens = np.array([2, *long, 5, 3, *long, 5, 0, *long, 0], dtype=np.uint16)
    stream, answers, want = as_stream(tokens), Answers(INFO), oracle(tokens)
    reads = []
    plain_read = stream.read
    stream.read = lambda start, count: reads.append(count) or plain_read(start, count)
    for start in (1, 15, 19_990, 20_010, 39_995, 40_001, 40_004, 60_000):
        found = answers.weights(stream, start, tokens[start : start + 6].astype(np.int64))
        assert found.tolist() == want[start + 1 : start + 6], start
    assert max(reads) <= 1 << 12, "memory does not grow with a document"


def chat_pack(directory: Path, train: np.ndarray, heldout: np.ndarray | None = None) -> Manifest:
    heldout = train if heldout is None else heldout
    parts = write_stream(directory, "train-000-00000", train.astype(np.uint16))
    parts += write_stream(directory, "heldout-000-00000", heldout.astype(np.uint16))
    sizes = {"train": len(train), "heldout": len(heldout)}
    info = {
        **INFO,
        "dtype": "uint16",
        "tokens": sizes,
        "text_bytes": {side: 4 * size for side, size in sizes.items()},
    }
    return commit(directory, {"parts": [asdict(p) for p in parts], "counts": {}, "info": info}, {})


def talk(count: int) -> np.ndarray:
    random = np.random.default_rng(5)
    return np.array([*chain(*(conversation(random, "ua", 9) for _ in range(count)))])


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return chat_pack(tmp_path_factory.mktemp("pack"), talk(200))


def test_the_shares_of_all_ranks_have_the_weights_of_their_places(pack):
    recipe = make_recipe(loss_on="answers", global_batch=7)
    loader = Loader(pack, recipe, 16)
    want = oracle(loader.streams[0].read(0, len(loader.streams[0])))
    _, sequences, _ = loader.places(np.arange(7, 14))
    rows = [want[number * 16 + 1 : number * 16 + 17] for number in sequences]
    for world in (1, 2, 3):
        batches = [loader.batch(1, rank, world) for rank in range(world)]
        found = np.concatenate([batch.weights for batch in batches])
        assert found[:7].tolist() == rows
        assert not found[7:].any()
        assert loader.real_tokens(1) is None


def test_the_loss_is_the_mean_over_answer_tokens(pack, tmp_path):
    plan = make_plan(make_recipe(loss_on="answers", tokens=2 * 8 * 16), pack, tmp_path / "run")
    assert loop.train(plan) == 2
    batch = Loader(pack, plan.recipe, 16).batch(0)
    with torch.no_grad():
        model = build_model(plan.shape, plan.recipe.seed)
        logits = model(input_ids=torch.from_numpy(batch.input_ids)).logits
    nats = F.cross_entropy(logits.transpose(1, 2), torch.from_numpy(batch.labels), reduction="none")
    chosen = batch.weights.astype(bool)
    assert 0 < chosen.sum() < chosen.size
    assert step_losses(plan.run_dir)[1] == pytest.approx(float(nats[chosen].mean()), rel=1e-5)


def test_a_batch_without_an_answer_is_left_out(tmp_path):
    """The first half of the stream is one long question: its sequences have nothing to learn."""
    question = [2, *[7] * 1000, 5, 3, 8, 9, 5, 0]
    answers = [2, 8, 5, 3, *[9, 10] * 500, 5, 0]
    pack = chat_pack(tmp_path / "pack", np.array(question + answers), talk(20))
    recipe = make_recipe(loss_on="answers", global_batch=1, tokens=40 * 16, checkpoint_every=1)
    recipe = recipe.model_copy(update={"train": replace_field(recipe.train, keep_last=50)})
    plan = make_plan(recipe, pack, tmp_path / "run")
    assert loop.train(plan) == 40
    losses = step_losses(plan.run_dir)
    silent = [step for step, loss in losses.items() if loss is None]
    loader = Loader(pack, recipe, 16)
    assert silent == [s for s in range(1, 41) if not loader.batch(s - 1).weights.any()]
    assert 5 < len(silent) < 35
    left_out = [row["step"] for row in read_metrics(plan.run_dir, "event")]
    assert set(silent) <= set(left_out), "said, not dropped without a word"
    saved = {
        one: checkpoint.Checkpoint(checkpoint_folder(plan.run_dir, one)) for one in range(1, 41)
    }
    name = next(iter(saved[1].shapes))
    for step in range(2, 41):
        same = torch.equal(saved[step].full(name), saved[step - 1].full(name))
        assert same == (step in silent), step
        assert torch.isfinite(saved[step].full(name)).all()


def replace_field(section, **fields):
    return section.model_copy(update=fields)


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    (found,) = [p for p in (run_dir / "checkpoints").iterdir() if p.name == f"step-{step:08d}"]
    return found


def test_text_without_markers_is_refused(tmp_path):
    recipe = make_recipe(loss_on="answers")
    with pytest.raises(RecipeError, match="no token of this text marks an answer") as caught:
        Loader(make_pack(tmp_path / "pack"), recipe, 16)
    assert "kind: instruction" in caught.value.hint
    with pytest.raises(RecipeError, match="no token of this text marks an answer"):
        plan_mix(read_manifest(tmp_path / "pack"), recipe, 16)  # what a launch asks first


def rank_main(number: int, world: int, rendezvous: str, root: Path) -> None:
    prepare(1)
    recipe = make_recipe(loss_on="answers", workers=2, global_batch=5, micro_batch=1)
    with ranks.group(number, world, rendezvous):
        loop.train(make_plan(recipe, read_manifest(root / "pack"), root / "two"))


@pytest.mark.soak  # a start of two processes
def test_ranks_with_unequal_numbers_of_answer_tokens_learn_as_one(tmp_path):
    """Most of a batch is questions, so ranks differ a lot; each token must weigh the same."""
    random = np.random.default_rng(9)
    documents = [*chain(*(conversation(random, "u" * 5 + "a", 12) for _ in range(100)))]
    pack = chat_pack(tmp_path / "pack", np.array(documents))
    mp.start_processes(
        rank_main, (2, str(tmp_path / "rendezvous"), tmp_path), nprocs=2, start_method="spawn"
    )
    recipe = make_recipe(loss_on="answers", global_batch=5)
    loop.train(make_plan(recipe, pack, tmp_path / "one"))
    loader = Loader(pack, make_recipe(loss_on="answers", global_batch=5), 16)
    sums = [[loader.batch(s, rank, 2).weights.sum() for rank in (0, 1)] for s in range(10)]
    assert any(one != other for one, other in sums)
    alone, together = step_losses(tmp_path / "one"), step_losses(tmp_path / "two")
    assert list(alone) == list(together)
    for step, loss in alone.items():
        assert together[step] == pytest.approx(loss, abs=2e-4), step
