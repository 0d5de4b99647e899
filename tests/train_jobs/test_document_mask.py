"""Packed documents: positions begin anew in each, and none sees the one before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mutirao.core.model_size import resolve
from tiny_train import VOCAB, make_pack, make_recipe
from train_jobs.kernels import varlen_bounds
from train_jobs.loader import Loader, document_positions
from train_jobs.model import build_model

EOS = 0


@pytest.fixture(scope="module")
def model():
    return build_model(resolve(make_recipe().model, VOCAB), seed=1).eval()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack"))


def test_positions_begin_anew_after_each_eos_of_the_input():
    inputs = np.array([[5, 0, 7, 8, 0, 0, 9], [0, 3, 4, 5, 6, 7, 0]])
    expected = [[0, 1, 0, 1, 2, 0, 0], [0, 0, 1, 2, 3, 4, 5]]
    found = document_positions(inputs, EOS)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_batch_has_positions_where_the_recipe_asks_for_them(pack):
    masked, plain = (Loader(pack, make_recipe(document_mask=on), 16) for on in (True, False))
    steps = range(10)
    for step in steps:
        one, other = masked.batch(step), plain.batch(step)
        assert other.position_ids is None and "position_ids" not in other.rows(0, 2)
        assert np.array_equal(one.input_ids, other.input_ids)
        assert np.array_equal(one.position_ids, document_positions(one.input_ids, EOS))
    begins = sum((masked.batch(step).position_ids[:, 1:] == 0).sum() for step in steps)
    ends = sum((masked.batch(step).input_ids[:, :-1] == EOS).sum() for step in steps)
    assert begins == ends > 0


def test_a_filler_row_gives_finite_losses(pack, model):
    recipe = make_recipe(document_mask=True)
    rows = Loader(pack, recipe, 16).batch(0).rows(6, 4)  # of 8: two are fillers
    assert rows["position_ids"].shape == (4, 16)
    inputs = {name: torch.from_numpy(array) for name, array in rows.items()}
    assert torch.isfinite(model(**inputs))


@torch.no_grad()
def test_a_packed_document_has_the_logits_it_has_alone(model):
    first, second = [11, 12, 13, 14, EOS], [21, 22, 23, 24, 25, EOS]
    packed = torch.tensor([first + second, second + first])
    positions = torch.from_numpy(document_positions(packed.numpy(), EOS))
    alone = model(torch.tensor([second])).logits[0]
    masked = model(packed, position_ids=positions).logits
    assert torch.allclose(masked[0, len(first) :], alone, atol=1e-5)
    assert torch.allclose(masked[1, : len(second)], alone, atol=1e-5)
    without = model(packed).logits
    assert not torch.allclose(without[0, len(first) :], alone, atol=1e-3)


@torch.no_grad()
def test_the_loss_of_packed_documents_is_the_sum_of_their_own(model):
    documents = [[11, 12, 13, EOS], [21, 22, 23, 24, 25, EOS]]
    packed = torch.tensor([[*documents[0], *documents[1]]])
    positions = torch.from_numpy(document_positions(packed.numpy(), EOS))

    def nats(ids, **options):
        return float(model(ids, labels=ids, weights=torch.ones(ids.shape), **options))

    alone = sum(nats(torch.tensor([document])) for document in documents)
    assert nats(packed, position_ids=positions) == pytest.approx(alone, abs=1e-4)
    assert abs(nats(packed) - alone) > 1e-3


def test_bounds_for_the_varlen_kernel_are_those_that_transformers_finds():
    from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

    positions = torch.from_numpy(document_positions(np.array([[5, 0, 7, 8], [0, 3, 4, 0]]), EOS))
    found = varlen_bounds(positions)
    assert found["cu_seq_lens_q"].tolist() == [0, 2, 4, 5, 8]
    (bounds, _), (longest, _) = prepare_fa_kwargs_from_position_ids(positions)
    assert torch.equal(found["cu_seq_lens_k"], bounds) and bounds.dtype == torch.int32
    assert found["max_length_q"] == found["max_length_k"] == int(longest) == 3
