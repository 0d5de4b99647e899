"""The shipped recipes: all of them load, and those of TeenyTinyLlama say what its paper says."""

from __future__ import annotations

import pytest

from mutirao.core.model_size import parameter_count, resolve
from mutirao.core.recipe_file import load_recipe, shipped_names
from train_jobs.schedule import learning_rate, total_steps

VOCAB = 32_000


def load(name):
    return load_recipe(name).recipe


def steps(recipe) -> int:
    return total_steps(recipe.train, resolve(recipe.model, VOCAB).context)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_recipe_loads_under_its_own_name(name):
    recipe = load(name)
    assert recipe.name == name
    assert parameter_count(resolve(recipe.model, recipe.tokenizer.vocab_size)) > 0


@pytest.mark.parametrize(
    ("size", "parameters", "count", "lr", "warmup"),
    [
        ("160m", 162_417_408, 458_000, 6e-4, 5_000),
        ("460m", 468_239_360, 1_200_000, 3e-4, 10_000),
    ],
)
def test_the_paper_recipes_have_the_papers_figures(size, parameters, count, lr, warmup):
    recipe = load(f"ttl-{size}-paper")
    train, shape = recipe.train, resolve(recipe.model, recipe.tokenizer.vocab_size)
    assert parameter_count(shape) == parameters
    assert train.global_batch * shape.context == 8_192
    assert train.tokens == 8_192 * count
    assert steps(recipe) == count
    assert (train.lr, train.warmup_steps, train.schedule) == (lr, warmup, "cosine")
    assert (train.betas, train.eps, train.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)
    assert train.clip == 0 and train.guard.spike_sigma == 0
    assert learning_rate(train, count - 1, count) == 0


@pytest.mark.parametrize("size", ["160m", "460m"])
def test_the_modern_recipes_have_the_papers_shape_text_and_tokens(size):
    modern, paper = load(f"ttl-{size}"), load(f"ttl-{size}-paper")
    assert modern.train.tokens == paper.train.tokens
    assert (modern.model, modern.sources) == (paper.model, paper.sources)
    assert modern.tokenizer == paper.tokenizer
    assert modern.train.global_batch * 2048 == 524_288
    assert (modern.train.clip, modern.train.schedule) == (1.0, "wsd")


def test_1b_shares_its_key_value_heads_and_reads_whole_batches():
    recipe = load("1b")
    shape = resolve(recipe.model, VOCAB)
    assert shape.kv_heads < shape.heads
    assert recipe.train.tokens == steps(recipe) * recipe.train.global_batch * shape.context
