"""The three stages in this process: results, determinism, stopping, self-check, export."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import asdict, replace

import pytest
import torch

from mutirao.core.errors import DataError, RecipeError, Stopped
from mutirao.core.files import sha256_file
from mutirao.core.job import StageJob
from mutirao.core.manifest import Part, commit
from mutirao.core.model_size import resolve
from mutirao.core.progress import Progress
from tiny_train import VOCAB, make_pack, make_recipe, make_tokenizer
from train_jobs.evaluate import bits_per_byte, run_evaluate, unigram_bits_per_byte
from train_jobs.export import export_run, of_result, run_export
from train_jobs.launch import STAGES, dry_run
from train_jobs.sample import load_model, load_tokenizer, sample


def run_stage(name, root, recipe, inputs, work=None, progress=None):
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    quiet = progress or Progress(quiet=True)
    job = StageJob(name, recipe, directory, inputs, root / "run", quiet, use_ray=False)
    found = (work or STAGES[name])(job)
    content = {
        "parts": [asdict(p) for p in found.parts],
        "counts": found.counts,
        "info": found.info,
    }
    return commit(directory, content, found.notes)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    return {"pack": make_pack(root / "pack"), "tokenizer": make_tokenizer(root / "tokenizer")}


LEARNING = {"tokens": 16 * 8 * 120}


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return run_stage("train", tmp_path_factory.mktemp("trained"), make_recipe(**LEARNING), inputs)


def test_the_result_says_what_was_trained(trained):
    info = trained.content["info"]
    assert info["steps"] == 120 and info["tokens"] == 16 * 8 * 120
    assert [p.path for p in trained.parts] == ["model.safetensors", "config.json", "losses.jsonl"]
    text = (trained.directory / "losses.jsonl").read_text()
    losses = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in losses] == list(range(1, 121))
    assert info["final_loss"] == losses[-1]["loss"]
    assert trained.provenance["attempts"] == 1


@pytest.mark.parametrize(
    ("number", "every"),
    [(signal.SIGTERM, 100), (signal.SIGINT, 1)],  # 1: while a checkpoint is being written
)
def test_a_signal_stops_resumably_and_the_result_has_the_same_bytes(
    inputs, trained, tmp_path, number, every
):
    class Interrupting(Progress):
        def advance(self, count=1, note="", line=""):
            if note and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)

    progress = Interrupting(quiet=True)
    progress.sent = False
    recipe = make_recipe(**LEARNING)
    saving = make_recipe(**LEARNING, checkpoint_every=every)
    with pytest.raises(Stopped, match=signal.Signals(number).name) as caught:
        run_stage("train", tmp_path, saving, inputs, progress=progress)
    assert caught.value.exit_code == 75
    assert caught.value.code == ("interrupted" if number == signal.SIGINT else "stopped")
    again = run_stage("train", tmp_path, recipe, inputs)
    assert again.content == trained.content
    assert again.provenance["attempts"] == 2


def test_a_finished_training_is_not_run_again(inputs, tmp_path, monkeypatch):
    recipe = make_recipe()
    first = run_stage("train", tmp_path, recipe, inputs)
    monkeypatch.setattr("train_jobs.launch.launch", lambda *a: pytest.fail("trained again"))
    assert run_stage("train", tmp_path, recipe, inputs).content == first.content


def test_a_uniform_model_needs_log2_of_the_vocabulary_for_each_token(inputs):
    class Uniform(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.config = type("Config", (), {"max_position_embeddings": 16})

        def forward(self, input_ids, use_cache):
            logits = torch.zeros(*input_ids.shape, VOCAB)
            return type("Output", (), {"logits": logits})

    assert bits_per_byte(Uniform(), inputs["pack"]) == pytest.approx(math.log2(VOCAB) * 500 / 2000)


def test_the_trained_model_beats_the_unigram_model_and_speaks(inputs, trained, tmp_path):
    recipe = make_recipe(**LEARNING)
    found = run_stage("evaluate", tmp_path, recipe, {**inputs, "train": trained})
    info = found.content["info"]
    assert info["bits_per_byte"] < info["unigram_bits_per_byte"] - 0.05
    assert info["unigram_bits_per_byte"] == unigram_bits_per_byte(inputs["pack"], VOCAB)
    assert 1.0 < info["unigram_bits_per_byte"] <= math.log2(VOCAB) / 4
    samples = json.loads((found.directory / "samples.json").read_text())["samples"]
    assert len(samples) == 2 and all(s["prompt"] for s in samples)  # two held-out documents
    again = run_stage("evaluate", tmp_path, recipe, {**inputs, "train": trained})
    assert again.content == found.content


def test_a_finished_training_of_another_shape_is_not_taken_for_this_one(
    inputs, tmp_path, monkeypatch
):
    """A later version may give a preset's name other dimensions: the recipe is the same then."""
    recipe = make_recipe(tokens=128)
    run_stage("train", tmp_path, recipe, inputs)
    wider = replace(resolve(recipe.model, VOCAB), intermediate_size=56)
    monkeypatch.setattr("train_jobs.launch.resolve", lambda model, vocab: wider)
    with pytest.raises(RecipeError, match=r"shape.intermediate_size: 48 -> 56"):
        run_stage("train", tmp_path, recipe, inputs)


def test_a_model_that_did_not_learn_ends_the_run_with_both_numbers(inputs, tmp_path):
    recipe = make_recipe(tokens=128, lr=1e-9)
    lazy = run_stage("train", tmp_path, recipe, inputs)
    with pytest.raises(
        DataError, match=r"has not learned: \d\.\d+ .* unigram model .* \d\.\d+"
    ) as e:
        run_stage("evaluate", tmp_path, recipe, {**inputs, "train": lazy}, run_evaluate)
    assert e.value.code == "no-learning"


def test_the_export_loads_and_gives_the_logits_of_the_trained_model(inputs, trained, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe = make_recipe(**LEARNING)
    found = run_stage("export", tmp_path, recipe, {**inputs, "train": trained}, run_export)
    model = AutoModelForCausalLM.from_pretrained(found.directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(found.directory)
    ids = torch.tensor([tokenizer("mutirão")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, load_model(trained.directory)(ids).logits)
    assert tokenizer.decode(ids[0]) == "mutirão"
    assert model.config.eos_token_id == tokenizer.eos_token_id == 0
    card = (found.directory / "README.md").read_text()
    assert f"{trained.content['info']['parameters']:,} parameters" in card


def test_an_export_stops_at_the_end_of_a_turn_where_the_tokenizer_knows_conversations(
    inputs, trained, tmp_path
):
    from transformers import GenerationConfig

    recipe = make_recipe(**LEARNING)
    made = tmp_path / "tokenizer"
    load_tokenizer(inputs["tokenizer"].directory).save_pretrained(made)
    text = (made / "tokenizer.json").read_text()
    content = json.loads(text)
    rule = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    vocabulary = content["model"]["vocab"]
    number = vocabulary.pop("spare7")
    vocabulary["<|end_of_turn|>"] = number
    marker = {"id": number, "content": "<|end_of_turn|>", "special": True, **rule}
    content["added_tokens"].append(marker)
    (made / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ '' }}"}))
    parts = [
        asdict(Part(path.name, 1, path.stat().st_size, sha256_file(path)))
        for path in sorted(made.glob("*.json"))
    ]
    chat = commit(made, {"parts": parts, "counts": {}, "info": {}}, {})
    export_run(of_result(trained), chat, recipe, tmp_path / "chat", "fp32")
    assert GenerationConfig.from_pretrained(tmp_path / "chat").eos_token_id == [0, number]
    export_run(of_result(trained), inputs["tokenizer"], recipe, tmp_path / "plain", "fp32")
    assert GenerationConfig.from_pretrained(tmp_path / "plain").eos_token_id == 0


def test_an_export_in_bf16_outside_a_run(inputs, trained, tmp_path):
    recipe = make_recipe(**LEARNING)
    export_run(of_result(trained), inputs["tokenizer"], recipe, tmp_path / "out", "bf16")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not any(name.endswith(".part.json") for name in names)
    whole, half = (p / "model.safetensors" for p in (trained.directory, tmp_path / "out"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_sample_is_the_same_for_the_same_seed(inputs, trained):
    where = (trained.directory, inputs["tokenizer"].directory, "o mutirão")
    one, again, other = (sample(*where, tokens=5, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    greedy = [sample(*where, tokens=5, temperature=0.0, seed=seed) for seed in (1, 2)]
    assert greedy[0] == greedy[1]


def test_a_dry_run_knows_size_and_memory(trained):
    found = dry_run(make_recipe(**LEARNING), VOCAB)
    assert found["parameters"] == trained.content["info"]["parameters"]
    assert found["steps"] == 120
    assert found["memory_per_worker"]["total"] > 0
