"""The loss scale of fp16: the same small machine for both engines, so both skip and grow alike.

fp16 knows nothing below 6e-8, where gradients live, so the loss is multiplied before the backward
pass and the gradients are divided after it (Micikevicius et al., arXiv 1710.03740, section 3.2).
A power of two changes no mantissa. DeepSpeed's own dynamic scale is not used: it divides the
gradients of the step at which it grows by the new scale, and ends the process at its minimum.
"""

from __future__ import annotations

from typing import Any

INITIAL = 2.0**16
FACTOR = 2.0
WINDOW = 1000  # good steps before the scale grows
LARGEST = 2.0**24  # fp32 gradients lose nothing by more


class LossScale:
    """`value` multiplies the loss; equal on every rank, since every rank sees the same norms."""

    def __init__(self) -> None:
        self.value = INITIAL
        self.good_steps = 0

    def lower(self) -> bool:
        """After gradients that are not finite. False where the scale cannot be the reason."""
        if self.value <= 1:
            return False
        self.value, self.good_steps = self.value / FACTOR, 0
        return True

    def good(self) -> None:
        self.good_steps += 1
        if self.good_steps >= WINDOW:
            self.value, self.good_steps = min(LARGEST, self.value * FACTOR), 0

    def state(self) -> dict[str, Any]:
        return {"scale": self.value, "good_steps": self.good_steps}

    def restore(self, state: dict[str, Any]) -> None:
        """state: of a checkpoint; {} (of a run that had no scale) leaves the initial one."""
        self.value = state.get("scale", self.value)
        self.good_steps = state.get("good_steps", self.good_steps)
