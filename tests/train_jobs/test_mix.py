"""The mix of token streams: exact quotas, an even order, any position found by itself."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mutirao.core.errors import RecipeError
from mutirao.core.job import StageJob
from mutirao.core.manifest import commit, read_manifest
from mutirao.core.model_size import resolve
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc
from mutirao.run.trained import _steps
from tiny_train import MODEL, TRAIN, VOCAB, chain, write_stream
from train_jobs import mix as mixing
from train_jobs.evaluate import by_stream, heldout_nats
from train_jobs.launch import launch
from train_jobs.loader import Loader, heldout_batches, peek, plan_mix
from train_jobs.mix import Mix, Share, quotas


def shares(*sequences: int, weights=None, caps=None) -> list[Share]:
    weights = weights or [1.0] * len(sequences)
    caps = caps or [4.0] * len(sequences)
    rows = zip(sequences, weights, caps, strict=True)
    return [Share(f"s{i}", n * 16 + 1, n, w, c) for i, (n, w, c) in enumerate(rows)]


@pytest.mark.parametrize(
    ("given", "total", "expected"),
    [
        (shares(100), 250, [250]),
        (shares(100, 300), 400, [100, 300]),  # without weights: as large as they are
        (shares(100, 300, weights=[3.0, 1.0]), 600, [300, 300]),
        (shares(100, 100, 100, weights=[1.0, 0.0, 1.0]), 200, [100, 0, 100]),
        (shares(10, 100, weights=[100.0, 1.0]), 400, [40, 360]),  # held at four epochs
        (shares(10, 100, caps=[1.5, 10.0], weights=[100.0, 1.0]), 100, [15, 85]),
        (shares(1, 1, 1), 2, [1, 1, 0]),  # of equal remainders the first
        (shares(7, 11, 13), 100, [23, 35, 42]),
        (shares(100, 0, 5), 84, [80, 0, 4]),  # shorter than one context: left out
        (shares(10, 20, 30), 240, [40, 80, 120]),  # all that the caps allow
        (shares(10, 10, weights=[0.1, 0.2]), 30, [10, 20]),
        (shares(5, 5, caps=[math.inf, 1.0]), 100, [95, 5]),
    ],
)
def test_quotas_follow_weight_and_size_and_no_cap_is_passed(given, total, expected):
    assert quotas(given, total, 16) == expected


def test_quotas_are_exact_for_any_numbers():
    dice = np.random.default_rng(1)
    for _ in range(200):
        count = int(dice.integers(1, 12))
        given = shares(*dice.integers(1, 1000, count).tolist(),
                       weights=dice.integers(1, 40, count).tolist(),
                       caps=(dice.integers(1, 80, count) / 10).tolist())  # fmt: skip
        most = sum(s.cap(10**9) for s in given)
        total = int(dice.integers(1, most + 1)) if most else 0
        if not total:
            continue
        found = quotas(given, total, 16)
        assert sum(found) == total
        assert all(q <= s.cap(total) for q, s in zip(found, given, strict=True))
        wanted = [s.sequences * Fraction(s.weight) for s in given]
        free = [Fraction(q) / w for q, w, s in zip(found, wanted, given, strict=True)
                if q < s.cap(total)]  # fmt: skip
        slack = max(1 / w for w in wanted)
        assert not free or max(free) - min(free) <= 2 * slack  # one rate for all under their cap


def test_too_little_says_how_much_there_is_of_which_stream():
    with pytest.raises(
        RecipeError, match=r"max_epochs allows 960 tokens \(s0 160 x 4, s1 320 x 1\)"
    ) as e:
        quotas(shares(10, 20, caps=[4.0, 1.0]), 61, 16)
    assert e.value.code == "too-few-tokens" and "at most 960" in e.value.hint


def test_a_mix_of_nothing_is_refused():
    with pytest.raises(RecipeError, match="weight 0") as e:
        quotas(shares(10, 20, weights=[0.0, 0.0]), 5, 16)
    assert e.value.code == "no-weight"
    with pytest.raises(RecipeError, match="no stream fills one context of 16"):
        quotas(shares(0, 0), 5, 16)


def made(*sequences: int, total: int, **kind) -> Mix:
    return Mix(shares(*sequences, **kind), total, 16, 42)


MIXES = {
    "one": made(500, total=1999),
    "two": made(3000, 500, total=9_000),
    "rare": made(50_000, 3, 1, total=50_003, caps=[1.0, 1.0, 1.0]),
    "shorter than a block": made(30, 20, total=77),
    "forty equal": made(*[200] * 40, total=8_000),
    "sixty of all sizes": made(*range(1, 61), total=7_000),
}


@pytest.mark.parametrize("name", MIXES)
def test_every_stream_is_read_as_often_as_its_quota_in_its_own_order(name):
    mix = MIXES[name]
    stream, k = mix.locate(np.arange(mix.total))
    assert np.bincount(stream, minlength=len(mix.shares)).tolist() == mix.quotas
    for number, quota in enumerate(mix.quotas):
        assert k[stream == number].tolist() == list(
            range(quota)
        )  # so an epoch ends before the next


@pytest.mark.parametrize("name", MIXES)
def test_a_position_is_found_alone_as_in_the_walk(name):
    mix = MIXES[name]
    walked = np.array(mix.locate(np.arange(mix.total)))
    places = np.random.default_rng(2).permutation(mix.total)[:300]
    fresh = Mix(mix.shares, mix.total, 16, 42)
    alone = np.array([[a[0] for a in fresh.locate(np.array([p]))] for p in places]).T
    assert (alone == walked[:, places]).all()


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("window", [100, 1000])
def test_any_window_is_mixed_as_the_whole(name, window):
    """Within four standard deviations of a draw, and the two blocks at its ends."""
    mix = MIXES[name]
    stream, _ = mix.locate(np.arange(mix.total))
    for number, quota in enumerate(mix.quotas):
        share = quota / mix.total
        read = np.concatenate([[0], np.cumsum(stream == number)])
        apart = read[window:] - read[:-window] - share * window
        assert np.abs(apart).max(initial=0) <= 4.5 * math.sqrt(window * share * (1 - share)) + 3


def test_streams_do_not_come_in_turn():
    stream, _ = made(1000, 1000, total=2000).locate(np.arange(2000))
    changes = (np.diff(stream) != 0).mean()
    assert 0.4 < changes < 0.6


def test_a_training_of_a_trillion_tokens_is_mixed_in_little_memory():
    """490 million sequences of 2,048, 100 streams: one block is laid out, nothing else."""
    mix = made(*range(1_000_000, 10_000_000, 90_000), total=490_000_000)
    stream, k = mix.locate(np.array([0, 123_456_789, 489_999_999]))
    assert mix.block == 16_384 and sum(mix.quotas) == 490_000_000
    assert all(0 <= rank < mix.quotas[i] for i, rank in zip(stream, k, strict=True))
    assert mix._lay(mix.blocks - 1)[0].nbytes < 400_000


def test_the_mix_is_pinned():
    """A changed mix is a changed run: raise the train stage's output_version with this list."""
    stream, k = made(3000, 500, total=9_000).locate(np.arange(4000, 4012))
    assert stream.tolist() == PINNED_STREAMS and k.tolist() == PINNED_RANKS


PINNED_STREAMS = [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
PINNED_RANKS = [3428, 572, 573, 3429, 3430, 3431, 3432, 3433, 3434, 3435, 3436, 3437]


def make_pack(directory, sizes=((3000, 200), (900, 100), (10, 50))):
    """Three streams; the ids of stream i are i modulo 3."""
    parts, streams = [], []
    for number, (train, heldout) in enumerate(sizes):
        row = {"name": f"s{number}"}
        for side, count in (("train", train), ("heldout", heldout)):
            tokens = (chain(count) // 3 * 3 + number).astype(np.uint16)
            halves = np.array_split(tokens, 2) if side == "train" else [tokens]
            for file, half in enumerate(halves):
                parts += write_stream(directory, f"{side}-{number:03d}-{file:05d}", half)
            row[side] = {"tokens": count, "documents": 2, "text_bytes": 4 * count}
        streams.append(row)
    total = {s: sum(row[s]["tokens"] for row in streams) for s in ("train", "heldout")}
    info = {"dtype": "uint16", "tokens": total, "eos_id": 0, "vocab_size": VOCAB,
            "text_bytes": {s: 4 * n for s, n in total.items()}, "streams": streams}  # fmt: skip
    parts.sort(key=lambda part: part.path.startswith("heldout"))
    return commit(directory, {"parts": [asdict(p) for p in parts], "counts": {}, "info": info}, {})


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


def recipe_with(weights=(1.0, 1.0, 1.0), caps=(None, None, None), **train) -> Recipe:
    sources = [{"path": f"{i}.txt", "name": f"s{i}", "weight": w, "max_epochs": c}
               for i, (w, c) in enumerate(zip(weights, caps, strict=True))]  # fmt: skip
    return Recipe.model_validate({"sources": sources, "model": MODEL, "train": {**TRAIN, **train}})


def test_weights_and_caps_of_the_recipe_decide(pack):
    recipe = recipe_with(weights=(1.0, 5.0, 1.0), caps=(None, 2.0, None), tokens=200 * 16)
    record = plan_mix(pack, recipe, 16).record()
    rows = {row["name"]: row for row in record["streams"]}
    assert record["format"] == 1
    assert [rows[f"s{i}"]["sequences"] for i in range(3)] == [88, 112, 0]
    assert rows["s1"]["epochs"] == 2.0 and rows["s1"]["max_epochs"] == 2.0
    assert rows["s2"]["tokens"] == 10  # shorter than a context: in the list, and not read


def test_weight_0_leaves_a_stream_out(pack):
    loader = Loader(pack, recipe_with(weights=(0.0, 1.0, 1.0), tokens=100 * 16), 16)
    assert loader.mix.quotas == [0, 100, 0]
    assert (loader.batch(3).input_ids % 3 == 1).all()


def test_a_stream_that_is_too_short_is_said_before_training(pack, tmp_path, monkeypatch):
    said: list[str] = []
    progress = Progress(quiet=True)
    monkeypatch.setattr(progress, "say", said.append)
    monkeypatch.setattr("train_jobs.worker.run_here", lambda plan, report: None)
    recipe, inputs = recipe_with(), {"pack": pack, "tokenizer": pack}
    job = StageJob("train", recipe, tmp_path, inputs, tmp_path, progress, use_ray=False)
    launch(job, resolve(recipe.model, VOCAB), 10, 0)
    assert said == ["  s2: 10 tokens, less than a context: unread"]
    assert json.loads((tmp_path / "mix.json").read_text())["streams"][2]["sequences"] == 0


def test_a_weight_that_is_no_number_is_refused(pack):
    with pytest.raises(RecipeError, match="weight of s0 must be a number"):
        plan_mix(pack, recipe_with(weights=(math.inf, 1.0, 1.0)), 16)


@pytest.mark.parametrize("world", [1, 2, 3, 5, 16])
def test_any_number_of_ranks_divides_the_same_global_batch(pack, world):
    loader = Loader(pack, recipe_with(), 16)
    for step in (0, 3, 9):
        whole = loader.batch(step)
        rows = [loader.batch(step, rank, world) for rank in range(world)]
        real = np.concatenate([one.weights[:, 0] for one in rows]) == 1
        for name in ("input_ids", "labels"):
            found = np.concatenate([getattr(one, name) for one in rows])
            assert (found[real] == getattr(whole, name)).all()


def test_every_epoch_of_a_stream_reads_each_of_its_sequences_once(pack):
    loader = Loader(pack, recipe_with(tokens=700 * 16), 16)
    stream, sequence, epoch = loader.places(np.arange(loader.total))
    count = loader.mix.shares[1].sequences
    mine = stream == 1
    assert (np.diff(epoch[mine]) >= 0).all() and epoch[mine].max() >= 2
    first = sequence[mine][epoch[mine] == 0]
    second = sequence[mine][epoch[mine] == 1]
    assert sorted(first) == sorted(second) == list(range(count)) and (first != second).any()


def test_peek_names_the_stream_and_shows_what_the_step_reads(pack):
    recipe = recipe_with(weights=(1.0, 3.0, 1.0))
    rows = peek(pack, recipe, 4, 16)
    inputs = Loader(pack, recipe, 16).batch(3).input_ids
    assert [row["tokens"][:16] for row in rows] == inputs.tolist()
    assert {row["stream"] for row in rows} == {"s0", "s1"}
    assert all(row["tokens"][0] % 3 == int(row["stream"][1]) for row in rows)


def test_the_steps_that_read_a_document_of_a_stream_are_found(pack):
    """For a takedown: tokens 100 to 140 of the second file of the second stream."""
    recipe = recipe_with(weights=(1.0, 3.0, 1.0))
    run = SimpleNamespace(recipe=lambda: recipe, directory=None)
    found = _steps(run, pack, {"train-001-00001.tokens.arrow": [[100, 140]]})
    loader = Loader(pack, recipe, 16)
    stream, sequence, _ = loader.places(np.arange(loader.total))
    first, last = 450 + 100, 450 + 139  # in the stream
    reads = (stream == 1) & (sequence * 16 <= last) & (sequence * 16 + 16 >= first)
    assert sorted(set(found)) == sorted(set(np.flatnonzero(reads) // 8)) and len(found) > 0


def test_held_out_streams_are_read_one_after_the_other(pack):
    labels = []
    for batch in heldout_batches(pack, 16, 4):
        inputs, targets, real = batch.input_ids, batch.labels, batch.weights == 1
        labels += targets[real].tolist()
        assert (inputs[:, 1:][real[:, 1:]] == targets[:, :-1][real[:, 1:]]).all()
    expected = [(chain(n) // 3 * 3 + i) for i, n in enumerate((200, 100, 50))]
    assert labels == np.concatenate(expected).tolist()
    few = list(heldout_batches(pack, 16, 4, limit=6))
    ids = np.concatenate([batch.labels[batch.weights == 1] for batch in few])
    assert set(ids % 3) == {0, 1, 2} and len(ids) < 10 * 16


def test_a_pack_of_an_older_format_is_one_stream():
    """Kept in tests/compat: a run of two sources, packed before streams were kept apart."""
    (folder,) = (Path(__file__).parents[1] / "compat" / "format-2" / "store" / "pack").glob("*")
    old = read_manifest(folder)
    assert old is not None
    recipe = recipe_with(tokens=4 * 16, global_batch=4)
    rows = peek(old, recipe, 1, 16)
    assert [row["stream"] for row in rows] == ["all"] * 4
    (path,) = [p for p in old.paths("train") if p.name.endswith(".tokens.arrow")]
    ids = read_ipc(path, "tokens")["token"].to_pylist()
    assert all(row["tokens"] == ids[row["offset"] : row["offset"] + 17] for row in rows)
    held = sum(batch.weights.sum() for batch in heldout_batches(old, 16, 4))
    assert held == old.content["info"]["tokens"]["heldout"]
    assert by_stream(old, {"all": 1.0}) == {}


def test_bits_per_byte_are_told_by_stream(pack):
    import torch

    class Uniform(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.config = type("Config", (), {"max_position_embeddings": 16})

        def forward(self, input_ids, use_cache):
            return type("Output", (), {"logits": torch.zeros(*input_ids.shape, VOCAB)})

    nats = heldout_nats(Uniform(), pack)
    rows = by_stream(pack, dict(nats))["streams"]
    assert [row["name"] for row in rows] == ["s0", "s1", "s2"]
    assert [row["tokens"] for row in rows] == [200, 100, 50]
    assert all(row["bits_per_byte"] == pytest.approx(math.log2(VOCAB) / 4) for row in rows)


def test_a_block_has_room_for_any_streams():
    for count in (1, 2, 31, 32, 33, 200):
        size = mixing._block_size(count)
        assert size >= max(1024, count**2)
