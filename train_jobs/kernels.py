"""How the layers of the model are computed: which attention, whose kernels, compiled or not.

In: the recipe's `train` section. Out: the model set up so, or an EnvironmentProblem that says what
is missing here. All of it is execution: weights and, up to rounding, results are the same.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mutirao.core.errors import EnvironmentProblem, RecipeError
from mutirao.core.recipe import Train

if TYPE_CHECKING:
    import torch

ATTENTION = {  # the recipe's word -> that of transformers
    "sdpa": "sdpa",
    "flex": "flex_attention",
    "varlen": "flash_attention_2",
}


def check_kernels(train: Train, cuda: bool) -> None:
    """Can this machine compute as `train` asks? No torch, no CUDA is touched.

    cuda: the workers have a GPU. Raises EnvironmentProblem (a GPU, package or compiler is missing)
    and RecipeError (settings that exclude one another).
    """
    check_attention(train, cuda)
    if train.kernels == "liger":
        _needs_gpu("train.kernels", "liger", "torch", cuda)
        _needs_package("liger_kernel", "liger-kernel", "train.kernels", "torch")
    if train.compile and not _compiler():
        raise EnvironmentProblem(
            "train.compile needs a C++ compiler",
            "train.compile",
            "Install one (apt-get install g++), or take --set train.compile=false.",
            "no-compiler",
        )


def check_attention(train: Train, cuda: bool) -> None:
    """Raises EnvironmentProblem and RecipeError as `check_kernels`."""
    if train.attention == "sdpa":
        return
    _needs_gpu("train.attention", train.attention, "sdpa", cuda)
    if train.attention == "varlen":
        _needs_package("flash_attn", "flash-attn", "train.attention", "sdpa")
        if train.dtype == "fp32":
            raise RecipeError(
                "train.attention varlen knows no fp32",
                "train.dtype",
                "Set train.dtype to bf16 or fp16, or take --set train.attention=sdpa.",
                "no-fp32",
            )


def set_kernels(model: Any, train: Train) -> None:
    """Set a LlamaForCausalLM up as `train` asks, in place; parameter names stay.

    Compiled are the decoder layers, one by one: they are alike, so one compilation serves all.
    """
    model.config._attn_implementation = ATTENTION[train.attention]
    if train.kernels == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama(model=model, fused_linear_cross_entropy=False)
    if train.compile:
        for layer in model.model.layers:
            layer.compile()


def varlen_bounds(position_ids: torch.Tensor) -> dict[str, Any]:
    """What the varlen kernel wants to know of documents that begin at position 0: int64 [b, L] ->
    cu_seq_lens_q and _k (int32 [documents + 1]) and max_length_q and _k (int).

    Given once a pass: transformers takes bounds out of the positions itself only where b is 1, and
    then once in each layer.
    """
    import torch

    flat = position_ids.reshape(-1)
    starts = (flat == 0).nonzero()[:, 0]
    bounds = torch.cat([starts, starts.new_tensor([flat.numel()])]).to(torch.int32)
    longest = int(bounds.diff().max())
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _needs_gpu(field: str, value: str, instead: str, cuda: bool) -> None:
    if not cuda:
        raise EnvironmentProblem(
            f"{field} {value} needs a CUDA GPU",
            field,
            f"Take --set {field}={instead}; the run continues the same.",
            "no-gpu",
        )


def _needs_package(module: str, package: str, field: str, instead: str) -> None:
    if find_spec(module) is None:
        raise EnvironmentProblem(
            f"{field} needs the package {package}, which is not installed",
            field,
            f"Install it (pip install {package}), or take --set {field}={instead}.",
            "no-package",
        )


def _compiler() -> str | None:
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)
