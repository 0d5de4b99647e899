"""The plain engine: fp32 weights, DDP over the ranks, autocast where the passes compute in less.

It is what the tests hold DeepSpeed against, and what runs where DeepSpeed cannot.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Any

import torch

from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.checkpoint import Slice
from train_jobs.engine import Engine, Inputs, adam_options, autocast
from train_jobs.guard import GuardedAdamW
from train_jobs.model import decay_groups


class TorchEngine(Engine):
    def __init__(self, model: torch.nn.Module, train: Train, micro: int, passes: int):
        super().__init__(train, micro, passes)
        self.module = model.to(self.device)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.clip = train.clip or math.inf
        self.grad_norm = 0.0
        self.optimizer = GuardedAdamW(
            decay_groups(model, train.weight_decay), lambda: self.grad_norm, **adam_options(train)
        )
        self.replica: Any = self.module
        self.unsettled = ranks.world() > 2
        if ranks.world() > 1:
            # The buffers follow from the shape, so no pass need broadcast them.
            with warnings.catch_warnings():  # the argument's successor still sends them once
                warnings.simplefilter("ignore", FutureWarning)
                self.replica = torch.nn.parallel.DistributedDataParallel(
                    self.module, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def loss(self, inputs: Inputs) -> torch.Tensor:
        with autocast(self.device, self.precision):
            return self.replica(**inputs)

    def accumulate(self, inputs: Inputs, scale: float, last: bool) -> torch.Tensor:
        if self.unsettled:
            self._settle(inputs)
        quiet = not last and ranks.world() > 1  # DDP adds up until a pass outside no_sync
        with self.replica.no_sync() if quiet else contextlib.nullcontext():
            loss = self.loss(inputs)
            (loss * (scale * self.scale.value if self.scale else scale)).backward()
        return loss.detach() * scale

    def _settle(self, inputs: Inputs) -> None:
        """DDP orders its buckets anew after its first backward pass. With three ranks or more a sum
        depends on where in a bucket it stands, so a resumed run would end with other bits than one
        that never stopped: the first pass of each start is made once in vain."""
        self.unsettled = False
        (self.loss(inputs) * 0).backward()
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self) -> float:
        scale = self.scale.value if self.scale else 1.0
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.grad_norm = self._agreed(torch.nn.utils.get_total_norm(gradients)) / scale
        factor = min(1.0, self.clip / (self.grad_norm + 1e-6)) / scale
        if factor != 1 and math.isfinite(self.grad_norm):
            torch._foreach_mul_(gradients, factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.grad_norm

    def _agreed(self, norm: torch.Tensor) -> float:
        """The mean over the ranks. They are equal as long as the machines are sound; one whose
        memory is not must not skip a step that the others make. A sum, since not every backend's
        maximum keeps a nan."""
        if ranks.world() == 1:
            return float(norm)
        return ranks.total([float(norm)], self.device)[0] / ranks.world()

    def slices(self) -> list[Slice]:
        """Every rank has everything; rank r of W writes the r-th W-th of each parameter."""
        return self._cut(ranks.rank(), ranks.world())

    def live(self) -> list[Slice]:
        return self._cut(0, 1)

    def _cut(self, part: int, parts: int) -> list[Slice]:
        found = []
        for name, parameter in self.module.named_parameters():
            state = self.optimizer.ensure_state(parameter)
            size = -(-parameter.numel() // parts)
            start = min(size * part, parameter.numel())
            stop = min(start + size, parameter.numel())
            tensors = (parameter.data, state["exp_avg"], state["exp_avg_sq"])
            if stop > start:
                found.append(Slice(name, start, *(t.view(-1)[start:stop] for t in tensors)))
        return found
