"""What does DeepSpeed do with a step whose loss is not finite, and can our optimizer refuse it?

    OMP_NUM_THREADS=1 python benchmarks/spike_guard.py

For ZeRO 1, 2, 3 in fp32, bf16, and bf16 with DeepSpeed's own check off (`check_grad_overflow`),
world 1: three steps, the second bad (NaN gradients, or a NaN loss over finite gradients); once
without and once with the guard of `train_jobs.guard`. Printed: whether weights stayed finite,
the norm seen inside the optimizer's step, DeepSpeed's own counters, Adam's count, and whether the
third step changed the weights. Result: docs/decisions/0002-guard-as-optimizer.md.
"""

from __future__ import annotations

import itertools
import math

import torch

from mutirao.core.model_size import resolve
from mutirao.core.recipe import Model, Train
from train_jobs import engine as engines
from train_jobs import ranks
from train_jobs.build_extensions import use_built_extensions
from train_jobs.guard import GuardedAdamW
from train_jobs.model import build_model, token_losses

SHAPE = resolve(
    Model(hidden_size=32, intermediate_size=88, layers=2, heads=4, kv_heads=2, context=16), 301
)


CONFIG = engines.deepspeed_config


def unchecked(train: Train, micro: int, passes: int) -> dict:
    config = CONFIG(train, micro, passes)
    config["bf16"]["check_grad_overflow"] = False
    return config


class Guarded(GuardedAdamW):
    pass


class Unguarded(GuardedAdamW):
    def healthy(self) -> bool:
        return True


def three_steps(stage: int, dtype: str, optimizer: type[GuardedAdamW], bad: str) -> str:
    engines.GuardedAdamW = optimizer  # type: ignore[misc]
    engines.deepspeed_config = unchecked if dtype == "bf16 unchecked" else CONFIG
    dtype = dtype.split()[0]
    engine = engines.DeepSpeedEngine(
        build_model(SHAPE, 1), Train(zero_stage=stage, dtype=dtype, workers=1), 2, 1
    )
    engine.optimizer.calls, engine.optimizer.norms = 0, []  # type: ignore[attr-defined]
    inner = engine.optimizer.step

    def step(closure=None):
        engine.optimizer.norms.append(engine._norm())  # type: ignore[attr-defined]
        return inner(closure)

    engine.optimizer.step = step  # type: ignore[method-assign]
    ids = torch.arange(32).view(2, 16)
    masters = []
    for factor in (1.0, math.nan, 1.0):
        scale = factor if bad == "gradients" else 1.0
        engine.accumulate(
            ids, lambda logits, f=scale: token_losses(logits, ids).mean() * f, last=True
        )
        engine.step(1e-3, factor)
        masters.append(torch.cat([s.master.clone() for s in engine.slices()]))
    same = torch.equal(masters[0], masters[1])
    moved = not torch.equal(masters[1], masters[2])
    finite = all(bool(m.isfinite().all()) for m in masters)
    norms = ", ".join(f"{n:.3g}" for n in engine.optimizer.norms)  # type: ignore[attr-defined]
    return (
        f"finite {finite!s:5} | kept at 2 {same!s:5} | moved at 3 {moved!s:5} | "
        f"adam step {engine.adam_step()} | global_steps {engine.engine.global_steps} "
        f"skipped_steps {engine.engine.skipped_steps} | norms in step: {norms}"
    )


def main() -> None:
    torch.set_num_threads(1)
    use_built_extensions()
    with ranks.group():
        kinds = itertools.product(
            ("gradients", "loss"),
            ("fp32", "bf16", "bf16 unchecked"),
            (1, 2, 3),
            (Unguarded, Guarded),
        )
        for bad, dtype, stage, optimizer in kinds:
            line = three_steps(stage, dtype, optimizer, bad)
            print(f"NaN {bad:9} {dtype} z{stage} {optimizer.__name__:9} {line}", flush=True)


if __name__ == "__main__":
    main()
