"""The loss by chunks: value and gradients of whole logits, which never exist."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mutirao.core.model_size import logits_chunk
from train_jobs.cross_entropy import LossHead, weighted_nats

VOCAB, HIDDEN = 1200, 24
TOKENS = 3 * logits_chunk(VOCAB, cuda=False) + 7  # a last chunk that is not full


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives back."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return found


def case(dtype=torch.float32):
    random = torch.Generator().manual_seed(3)
    hidden = torch.randn(1, TOKENS, HIDDEN, generator=random).to(dtype).requires_grad_()
    weight = (0.3 * torch.randn(VOCAB, HIDDEN, generator=random)).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCAB, (1, TOKENS), generator=random)
    weights = (torch.rand(1, TOKENS, generator=random) > 0.3).float()
    return hidden, weight, labels, weights


def whole_logits(hidden, weight, labels, weights):
    logits = F.linear(hidden, weight).float()
    return (F.cross_entropy(logits[0], labels[0], reduction="none") * weights[0]).sum()


def value_and_gradients(loss_of, hidden, weight, *rest):
    loss = loss_of(hidden, weight, *rest)
    return [loss.detach(), *torch.autograd.grad(loss / TOKENS, (hidden, weight))]


def test_value_and_gradients_are_those_of_whole_logits():
    ours = value_and_gradients(weighted_nats, *case())
    whole = value_and_gradients(whole_logits, *case())
    assert float(ours[0]) == pytest.approx(float(whole[0]), rel=1e-6)
    for mine, other in zip(ours[1:], whole[1:], strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


def test_a_token_of_weight_0_has_no_gradient():
    hidden, weight, labels, weights = case()
    weights[0, 100:200] = 0
    found = torch.autograd.grad(weighted_nats(hidden, weight, labels, weights), hidden)[0]
    assert not found[0, 100:200].any() and found[0, :100].any()


def test_logits_never_exist_whole():
    hidden, weight, labels, weights = case()
    with Largest() as ours:
        weighted_nats(hidden, weight, labels, weights).backward()
    with Largest() as whole:
        whole_logits(hidden, weight, labels, weights).backward()
    assert whole.elements >= TOKENS * VOCAB
    assert ours.elements <= logits_chunk(VOCAB, cuda=False) * VOCAB


def test_without_gradients_none_are_made_and_the_loss_has_the_same_bits():
    hidden, weight, labels, weights = case()
    with_them = weighted_nats(hidden, weight, labels, weights)
    with torch.no_grad(), Largest() as seen:
        without = weighted_nats(hidden, weight, labels, weights)
    assert not without.requires_grad
    assert torch.equal(with_them, without)
    assert seen.elements == logits_chunk(VOCAB, cuda=False) * VOCAB


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_computes_what_whole_logits_do(dtype):
    with torch.autocast("cpu", dtype):
        ours = value_and_gradients(weighted_nats, *case())
        whole = value_and_gradients(whole_logits, *case())
    for mine, other in zip(ours, whole, strict=True):
        assert mine.dtype == other.dtype == torch.float32
        assert float((mine - other).norm() / other.norm()) < 0.01
    exact = value_and_gradients(whole_logits, *case())[0]
    assert 0 < abs(float(ours[0] - exact)) < 0.01 * float(exact)  # it did round


def test_gradients_of_a_bf16_weight_are_added_up_in_fp32():
    """Over four chunks a bf16 sum would lose more than the rounding of its result."""
    hidden, weight, labels, weights = case(torch.bfloat16)
    loss = weighted_nats(hidden, weight, labels, weights)
    to_hidden, to_weight = torch.autograd.grad(loss, (hidden, weight))
    assert to_hidden.dtype == to_weight.dtype == torch.bfloat16
    exact = [t.detach().float().requires_grad_() for t in (hidden, weight)]
    whole = torch.autograd.grad(whole_logits(*exact, labels, weights), exact)
    assert float((to_weight.float() - whole[1]).norm() / whole[1].norm()) < 0.005


def test_a_head_without_labels_gives_logits():
    head = LossHead(HIDDEN, VOCAB, bias=False)
    hidden = torch.randn(2, 3, HIDDEN)
    assert torch.equal(head(hidden), F.linear(hidden, head.weight))
