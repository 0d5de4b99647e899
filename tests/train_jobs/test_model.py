"""The model: names and weights of Hugging Face, the loss in place of logits, what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import LlamaForCausalLM

from mutirao.core.errors import EnvironmentProblem, RecipeError
from mutirao.core.model_size import resolve
from mutirao.core.recipe import Model, Train
from tiny_train import MODEL, VOCAB, make_recipe
from train_jobs import kernels
from train_jobs.kernels import check_kernels
from train_jobs.model import build_model, decay_groups, llama_config, token_losses


def shape(tied: bool = True):
    return resolve(Model(**MODEL, tie_embeddings=tied), VOCAB)


def inputs():
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(1, VOCAB, (3, 17), generator=random)
    weights = (torch.rand(3, 16, generator=random) > 0.2).float()
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "weights": weights}


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_names_and_weights_are_those_of_hugging_face(tied):
    torch.manual_seed(7)
    theirs = LlamaForCausalLM(llama_config(shape(tied)))
    ours = build_model(shape(tied), seed=7)
    named = dict(theirs.named_parameters())
    assert list(named) == [name for name, _ in ours.named_parameters()]
    assert all(torch.equal(p, named[name]) for name, p in ours.named_parameters())
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied
    batch = inputs()["input_ids"]
    assert torch.equal(ours(batch).logits, theirs(batch).logits)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_every_gradient_are_those_of_whole_logits(tied, recompute):
    model, batch = build_model(shape(tied), seed=7), inputs()
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    ours = model(**batch)
    logits = model(batch["input_ids"]).logits
    whole = (token_losses(logits, batch["labels"]) * batch["weights"]).sum()
    assert ours.dtype == torch.float32
    assert float(ours.detach()) == pytest.approx(float(whole.detach()), rel=1e-6)
    mine, other = gradients(model, ours), gradients(model, whole)
    for name, gradient in other.items():
        assert torch.allclose(mine[name], gradient, rtol=1e-4, atol=1e-5), name


def test_one_dimension_does_not_decay_whatever_its_name():
    """TeenyTinyLlama's list of names matched none of Llama's norms, so they decayed."""
    model = build_model(shape(), seed=1)
    matrices, vectors = decay_groups(model, 0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in vectors["params"]} == {n for n in names.values() if "norm" in n}
    assert len(vectors["params"]) == 2 * MODEL["layers"] + 1
    assert len(matrices["params"]) + len(vectors["params"]) == len(names)


@pytest.mark.parametrize(
    "options, code",
    [
        ({"attention": "flex"}, "no-gpu"),
        ({"attention": "varlen"}, "no-gpu"),
        ({"kernels": "liger"}, "no-gpu"),
    ],
)
def test_what_needs_a_gpu_is_refused_without_one(options, code):
    with pytest.raises(EnvironmentProblem, match="needs a CUDA GPU") as problem:
        check_kernels(Train(**options), cuda=False)
    assert problem.value.code == code and "--set train." in problem.value.hint


@pytest.mark.parametrize(
    "options, module, package",
    [
        ({"attention": "varlen"}, "flash_attn", "flash-attn"),
        ({"kernels": "liger"}, "liger_kernel", "liger-kernel"),
    ],
)
def test_a_missing_package_is_named_with_how_to_install_it(options, module, package):
    if kernels.find_spec(module):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(EnvironmentProblem, match=package) as problem:
        check_kernels(Train(**options), cuda=True)
    assert f"pip install {package}" in problem.value.hint


def test_what_is_possible_is_not_refused():
    check_kernels(Train(), cuda=False)
    check_kernels(Train(attention="flex"), cuda=True)


def test_varlen_in_fp32_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)  # as if it were installed
    with pytest.raises(RecipeError, match="fp32"):
        check_kernels(Train(attention="varlen", dtype="fp32"), cuda=True)


def test_compile_without_a_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EnvironmentProblem, match=r"C\+\+ compiler"):
        check_kernels(Train(compile=True), cuda=False)


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
def test_compiled_layers_give_the_same_loss_and_gradients():
    train = make_recipe(compile=True).train
    model, compiled = build_model(shape(), 7), build_model(shape(), 7, train)
    batch = inputs()
    one, other = model(**batch), compiled(**batch)
    assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-5)
    mine, theirs = gradients(model, one), gradients(compiled, other)
    assert list(mine) == list(theirs)
    for name, gradient in mine.items():
        assert torch.allclose(theirs[name], gradient, rtol=1e-3, atol=1e-5), name
