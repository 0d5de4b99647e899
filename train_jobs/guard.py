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
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mutirao.core import recipe
from mutirao.core.errors import UserError
from mutirao.core.files import read_json, write_json
from train_jobs import ranks
from train_jobs.skips import FORMAT, NAME

if TYPE_CHECKING:
    from train_jobs.engine import Outcome

LEAST = 16  # good steps in the window before anything is called a spike


class RollBack(Exception):
    """Start again from the last checkpoint; raised by every rank at the same step.

    cause: bad-steps (then `left_out` are positions of the run to leave out from now on),
    compute-fault or memory-fault of the machine."""

    def __init__(self, cause: str, step: int, detail: str, left_out: list[list[int]] | None = None):
        self.cause, self.step, self.detail, self.left_out = cause, step, detail, left_out or []
        super().__init__(f"{cause} at step {step}: {detail}")

    @classmethod
    def of_ranks(cls, cause: str, step: int, here: bool) -> RollBack:
        """Names the ranks where it was; a collective."""
        found = [rank for rank, bad in enumerate(ranks.gather(here)) if bad]
        return cls(cause, step, f"rank {', '.join(map(str, found))}")


class Guard:
    """Judges a step by its loss and gradient norm, the same numbers on every rank."""

    def __init__(self, settings: recipe.Guard, state: dict[str, Any] | None = None):
        self.settings = settings
        state = state or {"skipped": 0, "losses": [], "norms": []}
        self.skipped: int = state["skipped"]
        self.losses = deque(state["losses"], maxlen=settings.window)
        self.norms = deque(state["norms"], maxlen=settings.window)
        self.bad: list[list[int]] = []  # ranges of positions of the bad steps in a row

    def verdict(self, loss: float, norm: float) -> str:
        """'' (good), 'not-finite' or 'spike'."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not-finite"
        far = _far(loss, self.losses, self.settings) or _far(norm, self.norms, self.settings)
        return "spike" if far else ""

    def note(self, step: int, loss: float, outcome: Outcome, positions: list[int]) -> None:
        """Raises RollBack after `rollback_after` bad steps in a row. A step that the loss scaler
        left out is no event of the guard."""
        if outcome.verdict == "scaler":
            return
        if outcome.verdict:
            self.skipped += 1
            self.bad.append(positions)
            if len(self.bad) >= self.settings.rollback_after:
                raise RollBack("bad-steps", step, f"{len(self.bad)} in a row", self.bad)
            return
        self.bad = []
        self.losses.append(loss)
        self.norms.append(outcome.grad_norm)

    def state(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "losses": [*self.losses], "norms": [*self.norms]}


def _far(value: float, window: deque[float], settings: recipe.Guard) -> bool:
    if not settings.spike_sigma or len(window) < LEAST:
        return False
    mean = sum(window) / len(window)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in window) / len(window))
    return value > mean + settings.spike_sigma * deviation


def note_rollback(run_dir: Path, cause: RollBack, settings: recipe.Guard) -> None:
    """Write it down before the next attempt. Raises UserError (code not-finite for bad steps) after
    `max_rollbacks`."""
    path = run_dir / NAME
    new = {"format": FORMAT, "rollbacks": []}
    record: dict[str, Any] = read_json(path) if path.exists() else new
    if len(record["rollbacks"]) >= settings.max_rollbacks:
        raise UserError(
            f"Training went back {settings.max_rollbacks} times and met it again: {cause}",
            f"step {cause.step}",
            "Lower train.lr or lengthen train.warmup_steps; the last checkpoint is sound.",
            "not-finite" if cause.cause == "bad-steps" else cause.cause,
        )
    ranks.barrier()
    if ranks.rank() == 0:
        one = {"cause": cause.cause, "step": cause.step, "detail": cause.detail}
        record["rollbacks"].append({**one, "left_out": cause.left_out})
        write_json(path, record)
    ranks.barrier()


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
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state
