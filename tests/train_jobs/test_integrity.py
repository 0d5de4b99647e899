"""The checks for faults of the machine, in one process: the checksum, who is named, the repeat."""

from __future__ import annotations

import math

import pytest
import torch

from mutirao.core.model_size import resolve
from tiny_train import VOCAB, make_recipe
from train_jobs.engine import build_engine, tensors
from train_jobs.integrity import bits, check_weights, checksum, minority, same_loss_again
from train_jobs.model import build_model


def flip(tensor: torch.Tensor, element: int, bit: int) -> None:
    """One bit of one element, in its memory."""
    view = bits(tensor.data.view(-1))
    mask = torch.tensor(1).bitwise_left_shift(bit).to(view.dtype)
    view[element] = view[element].bitwise_xor(mask)


def make_engine(**train):
    recipe = make_recipe(**train)
    model = build_model(resolve(recipe.model, VOCAB), seed=1)
    return build_engine(model, recipe.train, micro=4, passes=1)


def some_inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, VOCAB, (4, 17), generator=torch.Generator().manual_seed(seed)).numpy()
    arrays = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    found = tensors({k: v.copy() for k, v in arrays.items()}, torch.device("cpu"))
    return {**found, "weights": torch.ones(4, 16)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_single_bit_of_every_element_counts(dtype):
    tensor = torch.randn(7, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = int(checksum(tensor))
    for element in range(7):
        for bit in range(8 * tensor.element_size()):
            flip(tensor, element, bit)
            assert int(checksum(tensor)) != before
            flip(tensor, element, bit)
    assert int(checksum(tensor)) == before


def test_the_checksum_is_that_of_its_definition():
    tensor = torch.randn(100_001, generator=torch.Generator().manual_seed(2))
    words = [*tensor[:-1].view(torch.int64).tolist(), *tensor[-1:].view(torch.int32).tolist()]
    assert int(checksum(tensor)) == (sum(words) + 2**63) % 2**64 - 2**63


def test_a_view_that_begins_inside_a_word_has_the_checksum_of_its_copy():
    whole = torch.randn(50, generator=torch.Generator().manual_seed(3))
    for start in range(4):
        for part in (whole[start : start + 21], whole.to(torch.bfloat16)[start : start + 21]):
            assert int(checksum(part)) == int(checksum(part.clone()))


def test_the_minority_is_named_and_all_where_there_is_none():
    assert minority([5, 5, 5]) == ()
    assert minority([5, 6, 5, 5]) == (1,)
    assert minority([6, 5, 5, 7]) == (0, 1, 2, 3)
    assert minority([5, 6]) == (0, 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_repeated_pass_gives_equal_bits_and_one_flipped_bit_does_not(dtype):
    engine, inputs = make_engine(dtype=dtype), some_inputs()
    loss = engine.accumulate(inputs, 0.5, last=True)
    assert same_loss_again(engine, inputs, loss, 0.5)
    assert all(p.grad is not None for p in engine.module.parameters())  # it left them alone
    flip(engine.module.model.layers[0].mlp.up_proj.weight, 11, 30)
    assert not same_loss_again(engine, inputs, loss, 0.5)


def test_a_loss_that_is_not_finite_both_times_is_no_fault_of_the_machine():
    engine, inputs = make_engine(), some_inputs()
    inputs["weights"][0, 0] = math.nan
    loss = engine.accumulate(inputs, 1.0, last=True)
    assert loss.isnan() and same_loss_again(engine, inputs, loss, 1.0)


def test_one_rank_alone_has_nothing_to_compare_its_weights_with():
    engine = make_engine()
    flip(engine.module.lm_head.weight, 3, 20)
    check_weights(engine, 5)
