"""Cross-entropy of a language model's head by chunks of tokens: the logits never exist whole.

In: hidden states, the head's weight, labels, a weight for each token. Out: the weighted sum of
nats. At 32,000 ids and 16 sequences of 2,048 tokens the logits and their gradient in fp32 are 8.4
GB; here one chunk of them is alive at a time. The gradients are made in the forward pass, while a
chunk's probabilities are at hand, so nothing is computed twice (the idea of Liger, arXiv
2410.10989, section 3.2): three matrix products a chunk, as many as with whole logits.
"""

from __future__ import annotations

import torch

from mutirao.core.model_size import logits_chunk


class LossHead(torch.nn.Linear):
    """The head of a language model under its own parameter name; called with labels it returns the
    loss. It is a module of its own call because ZeRO 3 gathers its weight around that call."""

    def forward(self, hidden, labels=None, weights=None):
        """hidden [..., h], labels int64 [...], weights float32 [...] -> float32 scalar, as
        `weighted_nats`; without labels the logits [..., V]."""
        if labels is None:
            return super().forward(hidden)
        return weighted_nats(hidden, self.weight, labels, weights)


def weighted_nats(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The sum of weights * -log softmax(hidden weight^T)[labels], a float32 scalar.

    hidden [..., h], weight [V, h], labels int64 [...] in [0, V), weights float32 [...]. Products
    are taken in the type of autocast, or of `hidden`; softmax, sums and the gradient of `weight`
    are added up in float32. Gradients go to `hidden` and `weight`.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    flat = hidden.reshape(-1, hidden.size(-1))
    each = (labels.reshape(-1), weights.reshape(-1).float())
    return _WeightedNats.apply(flat, weight, *each, dtype, torch.is_grad_enabled())


class _WeightedNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, weights, dtype, with_gradients):
        """hidden [n, h], weight [V, h], labels int64 [n], weights float32 [n]."""
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = to_weight = None
        if with_gradients and ctx.needs_input_grad[0]:
            to_hidden = torch.empty_like(hidden)
        if with_gradients and ctx.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            cast = weight.to(dtype)
            for part in _chunks(len(labels), len(weight), hidden.is_cuda):
                inputs = hidden[part].to(dtype)
                log_p = torch.log_softmax((inputs @ cast.T).float(), dim=-1)
                index = labels[part, None]
                loss -= (log_p.gather(1, index)[:, 0] * weights[part]).sum()
                if to_hidden is None and to_weight is None:
                    continue
                slope = log_p.exp_()  # softmax - one-hot, times the token's weight
                slope.scatter_(1, index, slope.gather(1, index) - 1)
                slope = slope.mul_(weights[part, None]).to(dtype)
                if to_hidden is not None:
                    to_hidden[part] = slope @ cast
                if to_weight is not None:
                    _add_product(to_weight, slope, inputs)
        to_weight = None if to_weight is None else to_weight.to(weight.dtype)
        ctx.save_for_backward(to_hidden, to_weight)
        return loss

    @staticmethod
    def backward(ctx, scale):
        """scale: float32 scalar, the gradient of what was made of the loss."""
        found = [None if t is None else (t * scale).to(t.dtype) for t in ctx.saved_tensors]
        return (*found, None, None, None, None)


def _add_product(total: torch.Tensor, slope: torch.Tensor, inputs: torch.Tensor) -> None:
    """total (float32 [V, h]) += slope^T inputs."""
    if slope.dtype == total.dtype:
        total.addmm_(slope.T, inputs)
    else:  # over some thousand tokens a sum in 16 bits would lose what each chunk adds
        total += slope.T @ inputs


def _chunks(tokens: int, vocab_size: int, cuda: bool) -> list[slice]:
    size = logits_chunk(vocab_size, cuda)
    return [slice(start, start + size) for start in range(0, tokens, size)]
