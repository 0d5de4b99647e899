"""The guard: an AdamW whose step does nothing where the step would poison the weights.

In: the global loss and the global gradient norm, the same numbers on every rank, given before the
engine steps. Out: an update, or none (weights, moments and Adam's own count stay as they are).
It sits inside the optimizer, where every engine must pass: DeepSpeed leaves out steps whose
gradients are not finite unless `bf16.check_grad_overflow` is off (then ZeRO 1 and 2 poison the
weights), and none of them for a loss that is not finite; PyTorch leaves out nothing
(docs/decisions/0002-guard-as-optimizer.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mutirao.core.errors import UserError

MAX_IN_A_ROW = 10


class GuardedAdamW(torch.optim.AdamW):
    """`norm` returns the global gradient norm; `arm` tells the loss of the step that follows.

    ZeRO calls `step` once for each parameter group of a step, so the decision is taken from the
    armed loss and the norm, never from the gradients of one call.
    """

    def __init__(self, params, norm: Callable[[], float], **options):
        super().__init__(params, **options)
        self._norm = norm
        self._loss = 0.0

    def arm(self, loss: float) -> None:
        self._loss = loss

    def healthy(self) -> bool:
        return math.isfinite(self._loss) and math.isfinite(self._norm())

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.ensure_state(parameter)
        return super().step(closure) if self.healthy() else None

    def ensure_state(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """Adam's state of one (flat) parameter, made now if no step has made it: a checkpoint can
        be filled in before the first step, and ZeRO finds a state after a first step left out."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


class SkipCount:
    """How many steps the guard left out; too many in a row end the run."""

    def __init__(self, skipped: int = 0):
        self.total = skipped
        self.in_a_row = 0

    def note(self, skipped: bool, step: int) -> None:
        """Raises UserError (code not-finite) at MAX_IN_A_ROW."""
        self.total += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if self.in_a_row >= MAX_IN_A_ROW:
            raise UserError(
                f"Loss or gradients were not finite for {MAX_IN_A_ROW} steps in a row",
                f"step {step}",
                "Lower train.lr or lengthen train.warmup_steps; the last checkpoint is sound.",
                "not-finite",
            )
