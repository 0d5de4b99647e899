"""The DeepSpeed dictionary of a recipe: made here whole, with `train.deepspeed` merged into it.

In: the recipe's `train` section, passes and precision. Out: a dictionary, saved with the run as
deepspeed.json so nobody has to guess it. No torch. `train.deepspeed` may say how the work is done
(buckets, overlap, prefetch); what the recipe says elsewhere, or what would change the result or
the layout that our checkpoints read, is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mutirao.core.errors import RecipeError
from mutirao.core.recipe import Train

# A key of DeepSpeed (with all below it) -> the recipe's field instead, or '' where there is none.
OURS = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.micro_batch",
    "gradient_clipping": "train.clip",
    "fp16": "train.dtype",
    "bf16": "train.dtype",
    "bfloat16": "train.dtype",
    "amp": "train.dtype",
    "torch_autocast": "train.dtype",
    "optimizer": "train.lr, train.betas, train.eps and train.weight_decay",
    "scheduler": "train.schedule",
    "checkpoint": "train.checkpoint_every",
    "activation_checkpointing": "train.gradient_checkpointing",
    "elasticity": "train.min_workers",
    "compile": "train.compile",
    "managed_gradient_accumulation": "",
    "zero_allow_untested_optimizer": "",
    "zero_force_ds_cpu_optimizer": "",
    "curriculum_learning": "",
    "data_efficiency": "",
    "zero_optimization.stage": "train.zero_stage",
    "zero_optimization.offload_optimizer.device": "train.offload",
    "zero_optimization.offload_optimizer.ratio": "train.offload",
    "zero_optimization.offload_optimizer.nvme_path": "train.offload",
    "zero_optimization.offload_optimizer.super_offload": "train.offload",
    "zero_optimization.cpu_offload": "train.offload",
    "zero_optimization.compute_grad_norm": "",
    "zero_optimization.zenflow": "",
    "zero_optimization.round_robin_gradients": "",
}


def deepspeed_config(train: Train, micro: int, passes: int, precision: str) -> dict[str, Any]:
    """precision: fp32, bf16 or fp16. Raises RecipeError for a key of `train.deepspeed` that is
    decided elsewhere."""
    check_keys(train)
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu"}
    made = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": train.clip,
        "zero_optimization": zero,
        "bf16": {"enabled": precision == "bf16"},
        # A fixed scale, which the engine sets anew before each step (loss_scale.py).
        "fp16": {"enabled": precision == "fp16", "loss_scale": 1},
        "zero_allow_untested_optimizer": True,  # the guard is a subclass of torch's AdamW
        "zero_force_ds_cpu_optimizer": False,  # so it stays the optimizer when it is offloaded
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    return merged(made, train.deepspeed)


def check_keys(train: Train) -> None:
    """Raises RecipeError for the first key of `train.deepspeed` that is ours to set, or that looks
    like a misspelt one: DeepSpeed passes over keys that it does not know."""
    known = {"zero_optimization", *(key for key in OURS if "." not in key)}
    for key in train.deepspeed:
        near = get_close_matches(key, known, n=1, cutoff=0.85)
        if near and key not in known:
            raise RecipeError(
                f"DeepSpeed has no key {key!r}",
                f"train.deepspeed.{key}",
                f"Did you mean {near[0]}?",
                "deepspeed-key",
            )
    for key in paths(train.deepspeed):
        for ours, field in OURS.items():
            if key == ours or key.startswith(f"{ours}."):
                raise RecipeError(
                    f"train.deepspeed may not set {ours}",
                    f"train.deepspeed.{key}",
                    f"Use {field}." if field else "Leave it out: training here depends on it.",
                    "deepspeed-key",
                )


def paths(tree: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Dotted names of everything in a nested dictionary, branches before their leaves."""
    for key, value in tree.items():
        yield f"{before}{key}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{before}{key}.")


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`extra` over `base`, dictionaries inside dictionaries too."""
    found = dict(base)
    for key, value in extra.items():
        both = isinstance(found.get(key), Mapping) and isinstance(value, Mapping)
        found[key] = merged(found[key], value) if both else value
    return found
