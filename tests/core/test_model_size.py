"""Presets, exact parameter counts, memory by ZeRO stage."""

from __future__ import annotations

import pytest

from mutirao.core import model_size
from mutirao.core.errors import RecipeError
from mutirao.core.model_size import memory_per_worker, parameter_count, resolve
from mutirao.core.recipe import Model, Train


@pytest.mark.parametrize(
    "preset, vocab_size, count",
    [
        ("ttl-160m", 32_000, 162_417_408),  # TeenyTinyLlama, manuscript table 2
        ("ttl-460m", 32_000, 468_239_360),
        ("1b", 32_000, 1_100_048_384),  # TinyLlama
    ],
)
def test_published_parameter_counts(preset, vocab_size, count):
    assert parameter_count(resolve(Model(preset=preset), vocab_size)) == count


@pytest.mark.parametrize("preset", model_size.presets())
def test_the_count_is_the_models_own(preset):
    from train_jobs.model import meta_model

    shape = resolve(Model(preset=preset), 32_000)
    model = meta_model(shape)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(shape)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(RecipeError, match=r"ttl-160m"):
        resolve(Model(preset="ttl-165m"), 32_000)


def test_an_override_wins_and_a_vocabulary_below_the_tokenizers_is_refused():
    assert resolve(Model(layers=3), 4096).layers == 3
    with pytest.raises(RecipeError, match="smaller than the tokenizer"):
        resolve(Model(vocab_size=1000), 4096)


@pytest.mark.parametrize("change", [{"hidden_size": 130}, {"heads": 4, "kv_heads": 3}])
def test_dimensions_that_do_not_fit_are_refused(change):
    with pytest.raises(RecipeError):
        resolve(Model(**change), 4096)


@pytest.mark.parametrize("stage, bytes_per_parameter", [(1, 4 + 12 / 8), (2, 2 + 14 / 8), (3, 2)])
def test_states_follow_the_zero_paper_in_bf16(stage, bytes_per_parameter):
    shape = resolve(Model(preset="1b"), 32_000)
    found = memory_per_worker(shape, Train(workers=8, zero_stage=stage, dtype="bf16"))
    states = sum(found[name] for name in ("parameters", "gradients", "optimizer"))
    assert states == pytest.approx(bytes_per_parameter * parameter_count(shape), rel=1e-6)
    assert found["total"] == sum(v for k, v in found.items() if k != "total")


def test_tinyllamas_activations_agree_with_the_published_estimate():
    """16,384 tokens on a GPU: about 25 GB without recomputation (34 s b h L)."""
    shape = resolve(Model(preset="1b"), 32_000)
    train = Train(workers=16, global_batch=128, dtype="bf16")
    assert memory_per_worker(shape, train)["activations"] == pytest.approx(25.1e9, rel=0.01)
    less = train.model_copy(update={"gradient_checkpointing": True})
    assert memory_per_worker(shape, less)["activations"] < 3e9


def test_flops_convention_is_six_n_plus_attention():
    shape = resolve(Model(preset="1b"), 32_000)
    six_n = 6 * parameter_count(shape)
    assert model_size.flops_per_token(shape) / six_n == pytest.approx(1.17, abs=0.005)
