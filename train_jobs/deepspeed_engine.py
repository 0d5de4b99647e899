"""DeepSpeed's ZeRO 1, 2 and 3, with the optimizer's part in host memory where the recipe says so.

Written for DeepSpeed 0.19 (constraints.txt): where a rank's slice of a parameter lies is read from
the ZeRO optimizer's own tables, and tests/train_jobs/test_deepspeed_ranks.py holds it to them.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch

from mutirao.core.errors import EnvironmentProblem, RecipeError
from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.checkpoint import Slice
from train_jobs.deepspeed_config import deepspeed_config
from train_jobs.engine import Engine, Inputs, adam_options, import_deepspeed
from train_jobs.guard import GuardedAdamW
from train_jobs.model import decay_groups


class DeepSpeedEngine(Engine):
    def __init__(self, model: torch.nn.Module, train: Train, micro: int, passes: int):
        deepspeed = import_deepspeed()
        super().__init__(train, micro, passes)
        check_fp16(self.precision)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.optimizer = GuardedAdamW(
            decay_groups(model, train.weight_decay), self._norm, **adam_options(train)
        )
        self.stage = train.zero_stage
        self.config = deepspeed_config(train, micro, passes, self.precision)
        with (
            contextlib.redirect_stdout(io.StringIO()),  # it prints what it built; stdout is ours
            refusing_keys(train, deepspeed),
        ):
            self.engine, *_ = deepspeed.initialize(
                model=model, optimizer=self.optimizer, config=self.config, dist_init_required=False
            )
        self.module, self.zero = self.engine.module, self.engine.optimizer

    @property
    def gathers(self) -> bool:
        return self.stage == 3

    def loss(self, inputs: Inputs) -> torch.Tensor:
        return self.engine(**inputs)

    def accumulate(self, inputs: Inputs, scale: float, last: bool) -> torch.Tensor:
        loss = self.loss(inputs) * scale
        if self.scale:
            self.zero.override_loss_scale(self.scale.value)
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


def check_fp16(precision: str) -> None:
    """Raises EnvironmentProblem where DeepSpeed would raise a ValueError of its own."""
    from deepspeed.accelerator import get_accelerator

    if precision == "fp16" and not get_accelerator().is_fp16_supported():
        raise EnvironmentProblem(
            "DeepSpeed computes no fp16 on this machine",
            "train.dtype",
            "Set train.dtype=bf16 or fp32, or train.engine=torch.",
            "no-fp16",
        )


@contextlib.contextmanager
def refusing_keys(train: Train, deepspeed: Any):
    """What DeepSpeed says against the keys of `train.deepspeed`, as an error of the recipe."""
    try:
        yield
    except (ValueError, deepspeed.runtime.config.DeepSpeedConfigError) as error:
        if not train.deepspeed:
            raise
        said = " ".join(str(error).split())
        raise RecipeError(
            f"DeepSpeed does not take these keys: {said[:300]}",
            "train.deepspeed",
            "https://www.deepspeed.ai/docs/config-json lists what it knows.",
            "deepspeed-key",
        ) from error
