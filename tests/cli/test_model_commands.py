"""`mutirao model export` and `sample` at any step, while a run goes on and after."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from mutirao.core.runs import open_run
from mutirao.core.workdir import Workdir

sys.path.insert(0, str(Path(__file__).parent.parent / "train_jobs"))
from tiny_train import make_pack, make_plan, make_recipe, make_tokenizer
from train_jobs import checkpoint, loop

ID = "tiny-00000000"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run whose training goes on: checkpoints of steps 4, 8 and 10, no result yet."""
    workdir = Workdir(tmp_path_factory.mktemp("model") / "work")
    recipe = make_recipe(keep_last=5).model_copy(update={"name": "tiny"})
    run = open_run(workdir, ID, recipe, Path())
    made = {
        "pack": make_pack(workdir.artefact("pack", "p")),
        "tokenizer": make_tokenizer(workdir.artefact("tokenizer", "t")),
    }
    for name, manifest in made.items():
        run.stages[name] = {"key": manifest.directory.name, "status": "done"}
    run.save()
    loop.train(make_plan(recipe, made["pack"], run.directory))
    return workdir


@pytest.fixture
def model(command, place):
    return lambda *words: command("--workdir", str(place.root), "model", *words)


def test_a_step_is_exported_as_it_was_then(model, place, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = model("export", "tiny@4", "--output", str(tmp_path / "out"))
    assert found.code == 0 and "the model of step 4" in found.out
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    saved = checkpoint.Checkpoint(place.run(ID) / "checkpoints" / "step-00000004")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, saved.full(name)), name
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == 0
    assert "on 512 tokens\n(4 steps" in (tmp_path / "out" / "README.md").read_text()
    assert not list((tmp_path / "out").glob("*.part.json"))


def test_a_run_without_a_step_is_its_newest_and_the_type_can_be_chosen(model, tmp_path):
    words = ("export", "tiny", "--output", str(tmp_path / "out"), "--dtype", "bf16", "--json")
    found = model(*words)
    assert json.loads(found.out)["step"] == 10
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_sample_is_of_the_step_that_is_named(model):
    def said(word):
        found = model("sample", word, "--prompt", "mutir", "--tokens", "8", "--json")
        assert found.code == 0, found.err
        return json.loads(found.out)

    assert said("tiny@4") == said(f"{ID}@4") and said("tiny@4")["step"] == 4
    assert said("tiny@4")["continuation"] != said("tiny")["continuation"]


def test_a_step_that_is_not_there_lists_those_that_are(model, tmp_path):
    found = model("export", "tiny@5", "--output", str(tmp_path / "out"))
    assert found.code == 2
    assert "no checkpoint of step 5" in found.err and "Steps: 4, 8, 10" in found.err
    assert model("sample", "tinny@5").code == 2
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_not_exported(model, place, tmp_path):
    folder = place.run(ID) / "checkpoints" / "step-00000008"
    (file,) = folder.glob("*.safetensors")
    kept = shutil.copyfile(file, tmp_path / "kept")
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    found = model("export", "tiny@8", "--output", str(tmp_path / "out"))
    shutil.copyfile(kept, file)
    assert found.code == 3 and "does not match its hash" in found.err
    assert not (tmp_path / "out").exists()


def test_a_model_of_plain_text_has_no_conversations(model):
    found = model("sample", "tiny", "--chat", "--prompt", "Onde fica?")
    assert found.code == 2 and "no chat template" in found.err


def test_a_chat_ends_its_answer_where_the_template_does(tmp_path):
    from train_jobs.sample import chat_ids, load_tokenizer

    make_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + ';' }}{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    ids, end = chat_ids(tokenizer, "oi")
    assert tokenizer.decode(ids) == "u:oi;a:" and tokenizer.decode([end]) == ";"
