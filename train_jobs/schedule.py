"""The learning rate as arithmetic from the step: nothing to save, nothing to replay on a resume."""

from __future__ import annotations

import math

from mutirao.core.recipe import Train


def learning_rate(train: Train, step: int, steps: int) -> float:
    """The rate of optimizer step `step` (0-based) out of `steps`.

    Linear warm-up to `train.lr`, then cosine to `train.lr * train.min_lr_ratio` at the last step
    (GPT-3, arXiv 2005.14165, appendix B); or wsd: constant, then a decay over the last
    `decay_fraction` of the steps (MiniCPM, arXiv 2404.06395), linear or 1 - sqrt (arXiv
    2405.18392). A warm-up longer than half the run is cut to half the run.
    Re-decay of a stable checkpoint: `from` with `from_optimizer`, warmup_steps 0, decay_fraction 1
    and the tokens of the decay give the rates of a run that decays from that step on.
    """
    warmup = min(train.warmup_steps, steps // 2)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    floor = train.min_lr_ratio
    if train.schedule == "cosine":
        share = (step - warmup) / max(1, steps - 1 - warmup)
        factor = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    else:
        decay = max(1, round(train.decay_fraction * steps))
        left = steps - 1 - step
        if left >= decay:
            factor = 1.0
        elif train.decay_shape == "sqrt":
            factor = floor + (1 - floor) * (1 - math.sqrt(1 - left / decay))
        else:
            factor = floor + (1 - floor) * left / decay
    return train.lr * factor


def total_steps(train: Train, context: int) -> int:
    """Optimizer steps that use up `train.tokens`; the last one may be partly filled."""
    return -(-total_sequences(train, context) // train.global_batch)


def total_sequences(train: Train, context: int) -> int:
    return max(1, train.tokens // context)
