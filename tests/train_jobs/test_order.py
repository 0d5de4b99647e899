"""The training order: a bijection, seekable, the same for any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from mutirao.core.errors import RecipeError
from tiny_train import chain, make_pack, make_recipe
from train_jobs import order as ordering
from train_jobs.loader import Loader, heldout_batches, peek
from train_jobs.order import order, permute


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000, 4097])
def test_the_permutation_hits_every_number_once(count):
    assert sorted(permute(np.arange(count), count, "key")) == list(range(count))


@pytest.mark.parametrize("count", [1, 10, 99, 100, 101, 357])
def test_the_two_levels_together_hit_every_sequence_once(monkeypatch, count):
    monkeypatch.setattr(ordering, "BLOCK", 10)
    assert sorted(order(np.arange(count), count, "42/0")) == list(range(count))


def test_seeking_gives_what_walking_gives(monkeypatch):
    monkeypatch.setattr(ordering, "BLOCK", 16)
    walked = order(np.arange(100), 100, "42/0")
    sought = [int(order(np.array([place]), 100, "42/0")[0]) for place in range(100)]
    assert walked.tolist() == sought


def test_the_order_depends_on_the_key_and_is_not_the_identity():
    one, other = (order(np.arange(500), 500, key) for key in ("42/0", "42/1"))
    assert (one != other).mean() > 0.9
    assert (one != np.arange(500)).mean() > 0.9


def test_the_order_is_pinned():
    """A changed order is a changed run: raise the train stage's output_version with this list."""
    assert order(np.arange(8), 1000, "42/0").tolist() == PINNED


PINNED = [267, 631, 300, 852, 578, 715, 625, 759]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.mark.parametrize("world", [1, 2, 3, 5, 16])
def test_any_number_of_ranks_divides_the_same_global_batch(pack, world):
    loader = Loader(pack, make_recipe(), 16)
    for step in (0, 3, 9):
        whole = loader.batch(step)
        shares = [loader.batch(step, rank, world) for rank in range(world)]
        real = np.concatenate([share.weights[:, 0] for share in shares]) == 1
        assert real.sum() == loader.real_sequences(step) == 8
        for name in ("input_ids", "labels"):
            found = np.concatenate([getattr(share, name) for share in shares])
            assert (found[real] == getattr(whole, name)).all()


def test_the_last_batch_is_filled_with_rows_that_weigh_nothing(pack):
    loader = Loader(pack, make_recipe(tokens=(8 + 3) * 16), 16)
    assert loader.batch(1).weights[:, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert loader.real_sequences(1) == 3


def test_sequences_are_slices_of_the_stream_across_file_borders(pack):
    loader = Loader(pack, make_recipe(), 16)
    stream = chain(6500)[:6000]
    for start in (0, 2990, 2999, 3000, 5983):
        assert (loader.streams[0].read(start, 17) == stream[start : start + 17]).all()
    batch = loader.batch(0)
    inputs, labels = batch.input_ids, batch.labels
    assert (inputs[:, 1:] == labels[:, :-1]).all()


def test_an_epoch_reads_every_sequence_once_and_the_next_another_order(pack):
    loader = Loader(pack, make_recipe(tokens=12_000), 16)
    count = loader.mix.shares[0].sequences
    first = loader.places(np.arange(count))[1]
    second = loader.places(np.arange(count, 2 * count))[1]
    assert (loader.places(np.arange(count))[2] == 0).all()
    assert (first == order(np.arange(count), count, "42/0")).all()
    assert sorted(first) == sorted(second) == list(range(count))
    assert (first != second).any()


def test_too_few_tokens_are_refused_with_what_is_there(pack):
    with pytest.raises(RecipeError, match=r"5,984 training tokens") as caught:
        Loader(pack, make_recipe(tokens=50_000), 16)
    assert caught.value.code == "too-few-tokens"
    assert "at most 23,936" in caught.value.hint


def test_peek_shows_what_the_step_reads(pack):
    recipe = make_recipe()
    rows = peek(pack, recipe, 4, 16)
    inputs = Loader(pack, recipe, 16).batch(3).input_ids
    assert [row["tokens"][:16] for row in rows] == inputs.tolist()
    assert rows[0]["position"] == 24


def test_the_held_out_stream_is_predicted_once_token_by_token(pack):
    labels = []
    for batch in heldout_batches(pack, 16, 4):
        inputs, targets, real = batch.input_ids, batch.labels, batch.weights == 1
        labels += targets[real].tolist()
        assert (inputs[:, 1:][real[:, 1:]] == targets[:, :-1][real[:, 1:]]).all()
    assert labels == chain(6500)[6000:].tolist()
