"""Presets, exact parameter counts, memory by ZeRO stage."""

from __future__ import annotations

import pytest

from mutirao.core import model_size
from mutirao.core.errors import RecipeError
from mutirao.core.model_size import (
    flops_per_token,
    logits_chunk,
    memory_per_worker,
    mfu,
    mfu_by_convention,
    parameter_count,
    peak_flops,
    resolve,
)
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
    assert flops_per_token(shape) / six_n == pytest.approx(1.17, abs=0.005)
    assert flops_per_token(shape, attention="none") == six_n
    whole, half = (flops_per_token(shape, attention=kind) - six_n for kind in ("whole", "causal"))
    assert whole == 2 * half == 12 * 22 * 2048 * 2048


def test_an_input_embedding_is_no_product_and_a_tied_one_counts_once_as_the_head():
    shape = resolve(Model(preset="1b", tie_embeddings=False), 32_000)
    lookup = 6 * 32_000 * 2048
    assert flops_per_token(shape) - flops_per_token(shape, embedding=False) == lookup
    tied = resolve(Model(preset="1b", tie_embeddings=True), 32_000)
    assert flops_per_token(tied, embedding=False) == flops_per_token(tied)
    assert flops_per_token(tied) == flops_per_token(shape, embedding=False)


@pytest.mark.parametrize(
    ("preset", "tokens_per_s", "parameters", "with_attention"),
    [("ttl-160m", 26_912, 0.084, 0.104), ("ttl-460m", 9_734, 0.088, 0.106)],
)
def test_teenytinyllamas_mfu_on_an_a100(preset, tokens_per_s, parameters, with_attention):
    """Tokens per second of its logs (steps, tokens and hours)."""
    shape = resolve(Model(preset=preset), 32_000)
    peak = peak_flops("NVIDIA A100-SXM4-40GB", "bf16")
    assert mfu(tokens_per_s, shape, peak, attention="none") == pytest.approx(parameters, abs=6e-4)
    assert mfu(tokens_per_s, shape, peak) == pytest.approx(with_attention, abs=6e-4)
    table = mfu_by_convention(tokens_per_s, shape, peak)
    assert table["with_attention"] == mfu(tokens_per_s, shape, peak) == max(table.values())
    assert table["matrices"] < table["matrices_causal_attention"] < table["matrices_attention"]


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A40", 149.7),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 3090 Ti", 80),
    ],
)
def test_peaks_are_the_dense_ones(card, tflops):
    assert peak_flops(card, "bf16") == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    "card",
    [
        "",
        "Intel(R) Xeon(R) CPU",
        "NVIDIA RTX A1000",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
    ],
)
def test_an_unknown_card_and_a_part_of_one_have_no_mfu(card):
    shape = resolve(Model(), 4096)
    assert peak_flops(card, "bf16") is None
    assert mfu(1000.0, shape, peak_flops(card, "bf16")) is None


def test_a_card_without_bf16_has_a_peak_in_fp16_only():
    found = [peak_flops("Tesla V100-SXM2-16GB", dtype) for dtype in ("bf16", "fp16")]
    assert found == [None, 125e12]


def test_every_peak_is_positive_and_no_faster_in_fp32():
    for entry in model_size._peaks()["cards"]:
        assert 0 < entry["fp32"] < entry["fp16"]
        assert entry["bf16"] in (None, entry["fp16"])


def test_memory_holds_a_chunk_of_logits_however_long_the_pass():
    shape = resolve(Model(preset="ttl-160m"), 32_000)
    few, many = (
        memory_per_worker(shape, Train(workers=1, micro_batch=n, global_batch=n), cuda=True)
        for n in (1, 16)
    )
    assert few["logits"] == many["logits"] < 1e9
    assert logits_chunk(32_000, cuda=False) == 512
    assert logits_chunk(256_000, cuda=True) * 256_000 * 4 <= 2**28
