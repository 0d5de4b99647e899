"""The guard: an AdamW whose step does nothing where the step would poison the weights.

In: the global loss and the global gradient norm, the same numbers on every rank, given before the
engine steps. Out: an update, or none (weights, moments and Adam's own count stay as they are), and
after some bad steps in a row a `RollBack` (rollback.py).
It sits inside the optimizer, where every engine must pass: DeepSpeed leaves out steps whose
gradients are not finite unless `bf16.check_grad_overflow` is off (then ZeRO 1 and 2 poison the
weights), and none of them for a loss that is not finite; PyTorch leaves out nothing
(docs/decisions/0002-guard-as-optimizer.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mutirao.core import recipe
from train_jobs.rollback import RollBack
from train_jobs.skips import SkipList

if TYPE_CHECKING:
    from train_jobs.engine import Outcome

# Least deviation as a share of the mean: a window of equal values makes no spike of a rounding.
# With 6 deviations nothing less than 3% above the mean is one.
FLOOR = 0.005


class Guard:
    """Judges a step by its loss and gradient norm, the same numbers on every rank.

    A spike is more than `spike_sigma` deviations above the mean of the last `window` good steps, in
    loss or norm. A bad value never enters the window: with a NaN in it no mean is known any more,
    with spikes in it none is seen. Nothing is a spike before half the window is full, nor in a step
    of fewer sequences than the others (`whole` False): its gradient is larger by its noise alone.
    """

    def __init__(self, settings: recipe.Guard, state: dict[str, Any] | None = None):
        self.settings = settings
        state = state or {}
        self.skipped: int = state.get("skipped", 0)
        self.losses = deque(state.get("losses", []), maxlen=settings.window)
        self.norms = deque(state.get("norms", []), maxlen=settings.window)
        self.whole = True  # the step at hand has a whole global batch
        self.bad: list[list[int]] = [*state.get("bad", [])]  # positions of bad steps in a row
        self.kinds: list[str] = [*state.get("kinds", [])]  # their verdicts
        self._set_limits()

    def verdict(self, loss: float, norm: float) -> str:
        """'' (good), 'not-finite' or 'spike'."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not-finite"
        far = loss > self.most_loss or norm > self.most_norm
        return "spike" if far and self.whole else ""

    def note(self, step: int, loss: float, outcome: Outcome, positions: list[int]) -> None:
        """Raises RollBack after `rollback_after` bad steps in a row. A step that the loss scaler
        left out is no event of the guard."""
        if outcome.verdict == "scaler":
            return
        if outcome.verdict:
            self.skipped += 1
            self.bad.append(positions)
            self.kinds.append(outcome.verdict)
            if len(self.bad) >= self.settings.rollback_after:
                raise RollBack("bad-steps", step, self._told(loss, outcome.grad_norm), self.bad)
            return
        self.bad, self.kinds = [], []
        if not self.whole:
            return
        self.losses.append(loss)
        self.norms.append(outcome.grad_norm)
        self._set_limits()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a restart judges every later step alike."""
        return {
            "skipped": self.skipped,
            "losses": [*self.losses],
            "norms": [*self.norms],
            "bad": [*self.bad],  # copies: it may be written while training goes on
            "kinds": [*self.kinds],
        }

    def leave_out(self, skips: SkipList) -> None:
        """After a rollback: bad steps of the checkpoint that are on the skip list now are neither
        bad nor skipped any more."""
        if self.bad and skips.holds(np.array([start for start, _ in self.bad])).any():
            self.skipped -= len(self.bad)
            self.bad, self.kinds = [], []

    def _set_limits(self) -> None:
        """From the window alone, so it does not matter whether values came one by one or from a
        checkpoint. With three verdicts 25 us a step for a window of 128."""
        self.most_loss = _limit(self.losses, self.settings)
        self.most_norm = _limit(self.norms, self.settings)

    def _told(self, loss: float, norm: float) -> str:
        kinds = ", ".join(f"{self.kinds.count(k)} {k}" for k in sorted(set(self.kinds)))
        told = f"{len(self.bad)} in a row ({kinds}); the last with loss {loss:.4g}, norm {norm:.4g}"
        if math.isfinite(self.most_loss):
            told += f", where at most {self.most_loss:.4g} and {self.most_norm:.4g} are usual"
        return told


def _limit(window: deque[float], settings: recipe.Guard) -> float:
    """More than this is a spike; infinite where nothing is."""
    if not settings.spike_sigma or len(window) < settings.window // 2:
        return math.inf
    mean = math.fsum(window) / len(window)
    deviation = math.dist(window, [mean] * len(window)) / math.sqrt(len(window))
    return mean + settings.spike_sigma * max(deviation, FLOOR * abs(mean))


class GuardedAdamW(torch.optim.AdamW):
    """`norm` returns the global gradient norm; `arm` tells the loss of the step that follows.

    ZeRO calls `step` once for each parameter group of a step, so the decision is taken from the
    armed loss and the norm, never from the gradients of one call.
    """

    def __init__(self, params, norm: Callable[[], float], **options):
        super().__init__(params, **options)
        self._norm = norm
        self._loss = 0.0
        self.guard = Guard(recipe.Guard())

    def arm(self, loss: float) -> None:
        self._loss = loss

    def verdict(self) -> str:
        return self.guard.verdict(self._loss, self._norm())

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.ensure_state(parameter)
        return None if self.verdict() else super().step(closure)

    def ensure_state(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """Adam's state of one (flat) parameter, made now if no step has made it: a checkpoint can
        be filled in before the first step, and ZeRO finds a state after a first step left out."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0, device=parameter.device)  # as fused AdamW has it
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state
