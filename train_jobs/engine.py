"""Two engines behind one small face: DeepSpeed (ZeRO 1, 2, 3) and plain PyTorch (DDP).

In: the fp32 model, the recipe's `train` section, the passes per step. Out: `accumulate`, `step`,
and `slices`, this rank's live pieces of weights and moments by parameter name, which is all that
the checkpoint needs to know about an engine.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mutirao.core.model_size import dtype_bytes
from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.checkpoint import Checkpoint, Slice
from train_jobs.guard import Guard, GuardedAdamW
from train_jobs.model import decay_groups


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
    """micro: sequences per pass on this rank; passes: backward passes per optimizer step."""
    kind = DeepSpeedEngine if train.engine == "deepspeed" else TorchEngine
    return kind(model, train, micro, passes)


class Engine(ABC):
    """What the loop uses; both engines average gradients over the ranks."""

    module: torch.nn.Module
    optimizer: GuardedAdamW
    device: torch.device

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
        return Outcome(norm, self.optimizer.verdict())

    def guard_with(self, guard: Guard) -> None:
        self.optimizer.guard = guard

    def scaler_state(self) -> dict[str, Any]:
        """The loss scale of fp16 and what it depends on, JSON; {} without one."""
        return {}

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
        """Step the optimizer; returns the global gradient norm before clipping."""

    @abstractmethod
    def slices(self) -> list[Slice]:
        """This rank's part of the fp32 weights and moments."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Weights and moments as the checkpoint has them. The model that the engine was built from
        must hold the checkpoint's weights already: ZeRO's low-precision copies come from there."""
        checkpoint.fill(self.slices())
        for state in self.optimizer.state.values():
            state["step"].fill_(checkpoint.state["adam_step"])

    def adam_step(self) -> int:
        return max((int(s["step"]) for s in self.optimizer.state.values() if s), default=0)


class DeepSpeedEngine(Engine):
    def __init__(self, model: torch.nn.Module, train: Train, micro: int, passes: int):
        deepspeed = import_deepspeed()
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.device = device()
        self.optimizer = GuardedAdamW(
            decay_groups(model, train.weight_decay), self._norm, **_adam(train)
        )
        self.config = deepspeed_config(train, micro, passes)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it built; stdout is ours
            self.engine, *_ = deepspeed.initialize(
                model=model, optimizer=self.optimizer, config=self.config, dist_init_required=False
            )
        self.module, self.zero, self.stage = (
            self.engine.module,
            self.engine.optimizer,
            train.zero_stage,
        )

    @property
    def gathers(self) -> bool:
        return self.stage == 3

    def loss(self, inputs: Inputs) -> torch.Tensor:
        return self.engine(**inputs)

    def accumulate(self, inputs: Inputs, scale: float, last: bool) -> torch.Tensor:
        loss = self.loss(inputs) * scale
        self.engine.backward(loss, scale_wrt_gas=False)
        if not last:
            self.engine.step()  # counts the pass; acts at the last one only
        return loss.detach()

    def _norm(self) -> float:
        return float(self.zero._global_grad_norm)  # ZeRO reduces it before its first group steps

    def _step(self) -> float:
        self.engine.step()
        return self._norm()

    def slices(self) -> list[Slice]:
        return self._slices_3() if self.stage == 3 else self._slices_1_2()

    def _slices_1_2(self) -> list[Slice]:
        """Stages 1 and 2: each group is one flat tensor, cut into equal partitions by rank."""
        found = []
        for number, group in enumerate(self.zero.bit16_groups):
            flat = self.zero.single_partition_of_fp32_groups[number]
            for parameter in group:
                if parameter._hp_mapping is not None:
                    there = parameter._hp_mapping.hp_fragment_address
                    start = parameter._hp_mapping.lp_fragment_address.start
                    name = self.names[id(parameter)]
                    found.append(self._slice(name, start, flat, there.start, there.numel))
        return found

    def _slices_3(self) -> list[Slice]:
        """Stage 3: each parameter is padded and cut by rank; rank r holds [r n, (r + 1) n)."""
        found = []
        for group in self.zero.fp16_groups:
            for parameter in group:
                number, offset, size = self.zero.grad_position[self.zero.get_param_id(parameter)]
                flat = self.zero.fp32_partitioned_groups_flat[number]
                start = size * ranks.rank()
                numel = min(size, parameter.ds_numel - start)
                if numel > 0:
                    name = self.names[id(parameter)]
                    found.append(self._slice(name, start, flat, offset, numel))
        return found

    def _slice(self, name: str, start: int, flat: torch.Tensor, offset: int, numel: int) -> Slice:
        state = self.optimizer.ensure_state(flat)
        tensors = (flat.data, state["exp_avg"], state["exp_avg_sq"])
        return Slice(name, start, *(t.narrow(0, offset, numel) for t in tensors))


class TorchEngine(Engine):
    def __init__(self, model: torch.nn.Module, train: Train, micro: int, passes: int):
        self.device = device()
        self.module = model.to(self.device)
        self.clip = train.clip or math.inf
        self.grad_norm = 0.0
        self.optimizer = GuardedAdamW(
            decay_groups(model, train.weight_decay), lambda: self.grad_norm, **_adam(train)
        )
        self.bf16 = dtype_bytes(train, torch.cuda.is_available()) == 2
        self.replica: Any = self.module
        if ranks.world() > 1:
            self.replica = torch.nn.parallel.DistributedDataParallel(self.module)

    def loss(self, inputs: Inputs) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.replica(**inputs)

    def accumulate(self, inputs: Inputs, scale: float, last: bool) -> torch.Tensor:
        quiet = not last and ranks.world() > 1  # DDP adds up until a pass outside no_sync
        with self.replica.no_sync() if quiet else contextlib.nullcontext():
            loss = self.loss(inputs) * scale
            loss.backward()
        return loss.detach()

    def _step(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.grad_norm = float(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.grad_norm

    def slices(self) -> list[Slice]:
        """Every rank has everything; rank r of W writes the r-th W-th of each parameter."""
        return self._cut(ranks.rank(), ranks.world())

    def restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.fill(self._cut(0, 1))
        for state in self.optimizer.state.values():
            state["step"].fill_(checkpoint.state["adam_step"])

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


def deepspeed_config(train: Train, micro: int, passes: int) -> dict[str, Any]:
    """The whole DeepSpeed dictionary; saved with the run so nobody has to guess it."""
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": train.clip,
        "zero_optimization": {"stage": train.zero_stage},
        "bf16": {"enabled": dtype_bytes(train, torch.cuda.is_available()) == 2},
        "zero_allow_untested_optimizer": True,  # the guard is a subclass of torch's AdamW
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def tensors(arrays: dict[str, np.ndarray], where: torch.device) -> Inputs:
    return {name: torch.from_numpy(array).to(where) for name, array in arrays.items()}


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


def _adam(train: Train) -> dict[str, Any]:
    return {"lr": train.lr, "betas": train.betas, "eps": train.eps}
