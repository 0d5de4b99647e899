"""Faults of the machine: a pass that computes another loss the second time, weights that should be
equal and are not."""

from __future__ import annotations

import torch

from train_jobs.engine import Engine


@torch.no_grad()
def same_loss_again(
    engine: Engine, inputs: dict[str, torch.Tensor], loss: torch.Tensor, scale: float
) -> bool:
    """Forward of the same micro-batch with the same weights: equal bits on CPU."""
    return float(engine.loss(inputs) * scale) == float(loss)


def check_weights(engine: Engine, step: int) -> None:
    """Raises RollBack on every rank where weights that should be equal are not."""
