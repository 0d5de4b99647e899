"""Two engines behind one small face: DeepSpeed (ZeRO 1, 2, 3) and plain PyTorch (DDP).

In: the fp32 model, the recipe's `train` section, the passes per step. Out: `accumulate`, `step`,
and `slices`, this rank's live pieces of weights and moments by parameter name, which is all that
the checkpoint needs to know about an engine.
Reading order: this, then torch_engine.py (the oracle), deepspeed_engine.py, deepspeed_config.py.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mutirao.core.model_size import precision
from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.checkpoint import Checkpoint, Slice
from train_jobs.guard import Guard, GuardedAdamW
from train_jobs.loss_scale import LossScale


@dataclass(frozen=True)
class Outcome:
    grad_norm: float  # global, before clipping
    # '' (the weights moved), the guard's not-finite or spike, scaler (fp16: the loss scale was too
    # high; no event of the guard), left-out (nothing was computed)
    verdict: str

    @property
    def skipped(self) -> bool:
        return bool(self.verdict)


LEFT_OUT = Outcome(0.0, "left-out")
Inputs = dict[str, torch.Tensor]  # input_ids, labels int64 [b, L]; weights float32 [b, L]; ...


def build_engine(model: torch.nn.Module, train: Train, micro: int, passes: int) -> Engine:
    """micro: sequences per pass on this rank; passes: backward passes per optimizer step. Raises
    RecipeError (train.deepspeed), EnvironmentProblem (fp16 where DeepSpeed has none)."""
    from train_jobs.deepspeed_engine import DeepSpeedEngine
    from train_jobs.torch_engine import TorchEngine

    kind = DeepSpeedEngine if train.engine == "deepspeed" else TorchEngine
    return kind(model, train, micro, passes)


class Engine(ABC):
    """What the loop uses; both engines average gradients over the ranks."""

    module: torch.nn.Module
    optimizer: GuardedAdamW
    config: dict[str, Any] | None = None  # DeepSpeed's dictionary

    def __init__(self, train: Train, micro: int, passes: int):
        self.device = device()
        self.precision = agreed_precision(train)
        self.scale = LossScale() if self.precision == "fp16" else None
        self.micro, self.passes = micro, passes

    @abstractmethod
    def loss(self, inputs: Inputs) -> torch.Tensor:
        """Forward of one pass: the sum of weight times nats over its tokens, a float32 scalar."""

    @abstractmethod
    def accumulate(self, inputs: Inputs, scale: float, last: bool) -> torch.Tensor:
        """Forward and backward of `scale` times that sum, `last` before `step` comes. Returns the
        scaled sum, detached."""

    def step(self, lr: float, loss: float) -> Outcome:
        """One optimizer step at rate `lr`, left out if loss or gradients are not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.arm(loss)
        norm = self._step()
        verdict = self.optimizer.verdict()
        if self.scale and math.isfinite(norm):
            self.scale.good()
        elif self.scale and math.isfinite(loss) and self.scale.lower():
            verdict = "scaler"
        return Outcome(norm, verdict)

    def guard_with(self, guard: Guard) -> None:
        self.optimizer.guard = guard

    def scaler_state(self) -> dict[str, Any]:
        """The loss scale of fp16 and what it depends on, JSON; {} without one."""
        return self.scale.state() if self.scale else {}

    @property
    def gathers(self) -> bool:
        """A forward pass needs every rank (ZeRO 3)."""
        return False

    def shapes(self) -> dict[str, list[int]]:
        """Full shapes by name; ZeRO 3 leaves a parameter empty and keeps its shape aside."""
        named = self.module.named_parameters()
        return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in named}

    @abstractmethod
    def _step(self) -> float:
        """Step the optimizer; returns the global gradient norm before clipping, the same number on
        every rank, inf or nan where a gradient is not finite."""

    @abstractmethod
    def slices(self) -> list[Slice]:
        """This rank's part of the fp32 weights and moments: what it writes into a checkpoint."""

    def live(self) -> list[Slice]:
        """All of the fp32 weights and moments that this rank has: what a checkpoint fills."""
        return self.slices()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Weights, moments and loss scale as the checkpoint has them. The model that the engine
        was built from must hold the checkpoint's weights already: ZeRO's low-precision copies come
        from there."""
        checkpoint.fill(self.live())
        for state in self.optimizer.state.values():
            state["step"].fill_(checkpoint.state["adam_step"])
        if self.scale:
            self.scale.restore(checkpoint.state.get("scaler") or {})

    def adam_step(self) -> int:
        return max((int(s["step"]) for s in self.optimizer.state.values() if s), default=0)


def agreed_precision(train: Train) -> str:
    """fp32, bf16 or fp16: bf16 by `auto` only where the cards of all ranks have it."""
    cuda = torch.cuda.is_available()
    native = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if cuda and train.dtype == "auto":
        native = all(ranks.gather(native))
    return precision(train, cuda, native)


def autocast(where: torch.device, precision: str) -> Any:
    """A context in which fp32 weights compute in less; one without effect for fp32."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(where.type, kind) if kind else contextlib.nullcontext()


def adam_options(train: Train) -> dict[str, Any]:
    """Fused: one pass over weights and moments, on CPU in a fourth of the time and with the same
    bits for any cut of a tensor and any number of threads (docs/decisions)."""
    return {"lr": train.lr, "betas": train.betas, "eps": train.eps, "fused": True}


def tensors(arrays: dict[str, np.ndarray], where: torch.device) -> Inputs:
    """To a card from pinned memory: the copy goes on beside the passes before it."""
    found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if where.type != "cuda":
        return found
    return {name: t.pin_memory().to(where, non_blocking=True) for name, t in found.items()}


def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def import_deepspeed() -> Any:
    """DeepSpeed without its chatter; it is told where there is no CUDA (it warns otherwise)."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed
