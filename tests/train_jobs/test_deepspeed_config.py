"""The generated DeepSpeed dictionary, and what `train.deepspeed` may and may not say."""

from __future__ import annotations

import pytest

from mutirao.core.errors import RecipeError
from mutirao.core.recipe import Train
from train_jobs.deepspeed_config import OURS, check_keys, deepspeed_config, paths


def config(precision: str = "fp32", **train):
    return deepspeed_config(Train(**train), 4, 2, precision)


def test_extra_keys_are_merged_deeply():
    extra = {"zero_optimization": {"reduce_bucket_size": 1000}, "comms_logger": {"enabled": True}}
    made = config(zero_stage=3, deepspeed=extra)
    assert made["zero_optimization"] == {"stage": 3, "reduce_bucket_size": 1000}
    assert made["comms_logger"] == {"enabled": True}
    assert made["train_micro_batch_size_per_gpu"] == 4


@pytest.mark.parametrize("key", OURS)
def test_a_key_that_the_recipe_says_elsewhere_is_refused_by_name(key):
    tree = value = {}
    *before, last = key.split(".")
    for name in before:
        value[name] = value = {}
    value[last] = {"enabled": True}
    with pytest.raises(RecipeError) as refused:
        config(deepspeed=tree)
    assert key in refused.value.problem
    assert OURS[key] in refused.value.hint
    assert refused.value.code == "deepspeed-key"


def test_every_field_that_a_refusal_names_exists():
    fields = [f.strip(",") for said in OURS.values() for f in said.split() if f.startswith("train")]
    assert fields
    assert all(field.split(".")[1] in Train.model_fields for field in fields)


def test_a_nested_key_of_ours_is_found_under_keys_that_are_allowed():
    with pytest.raises(RecipeError) as refused:
        config(deepspeed={"zero_optimization": {"overlap_comm": True, "stage": 1}})
    assert refused.value.where == "train.deepspeed.zero_optimization.stage"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_one_precision_is_on_at_most(precision):
    made = config(precision)
    on = [name for name in ("bf16", "fp16") if made[name]["enabled"]]
    assert on == ([] if precision == "fp32" else [precision])


def test_offload_puts_the_optimizer_into_host_memory():
    made = config(offload="optimizer", zero_stage=1)
    assert made["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    pinned = {"zero_optimization": {"offload_optimizer": {"pin_memory": False}}}
    made = config(offload="optimizer", zero_stage=1, deepspeed=pinned)
    assert made["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert "offload_optimizer" not in config()["zero_optimization"]


def test_branches_come_before_their_leaves():
    assert list(paths({"a": {"b": 1}, "c": 2})) == ["a", "a.b", "c"]


def test_a_misspelt_key_is_refused_since_deepspeed_would_pass_over_it():
    with pytest.raises(RecipeError, match="no key 'zero_optimisation'") as caught:
        check_keys(Train(deepspeed={"zero_optimisation": {"overlap_comm": True}}))
    assert caught.value.hint == "Did you mean zero_optimization?"
    check_keys(Train(deepspeed={"prescale_gradients": True, "flops_profiler": {"enabled": True}}))
