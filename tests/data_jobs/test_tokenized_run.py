"""A run whose text was tokenised elsewhere, from ids to a report: alone, and beside text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from made_up_pack import tokenizer_folder
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe_file import load_recipe
from mutirao.core.runs import all_runs
from mutirao.core.workdir import Workdir
from mutirao.run.dry_run import dry_run
from mutirao.run.execute import Options, execute
from mutirao.run.plan import make_plan
from mutirao.run.show import manifests
from mutirao.run.sources import fingerprints
from train_jobs.loader import Loader

RECIPE = """
name: ids
tokenizer: {path: tokenizer}
split: {heldout: 0.1}
pack: {stream_bytes: 20000}
model: {hidden_size: 32, intermediate_size: 48, layers: 2, heads: 4, kv_heads: 2, context: 16}
train: {tokens: 20480, global_batch: 16, lr: 1e-2, engine: torch, workers: 1, warmup_steps: 2,
  checkpoint_every: 40}
evaluate: {samples: 1, sample_tokens: 5, min_gain_bits: 0.01}
tokenized:
  - {path: ids.npy, name: ids, weight: 2.0}
"""


def texts(count: int = 400) -> list[str]:
    dice = random.Random(4)
    parts = ["a casa da praia ", "e a casa do mato ", "ação e coração ", "não e então "]
    return ["".join(dice.choices(parts, k=6)) + str(number) for number in range(count)]


def write_ids(folder: Path, count: int = 400) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    ids = [[*one.ids, 0] for one in tokenizer.encode_batch(texts(count))]
    np.save(folder / "ids.npy", np.concatenate(ids).astype("<u2"))


def go(folder: Path, recipe: str = RECIPE, **options) -> dict[str, Manifest]:
    (folder / "r.yaml").write_text(recipe)
    workdir = Workdir(folder / "work")
    loaded = load_recipe(str(folder / "r.yaml"))
    run = execute(loaded, workdir, Options(use_ray=False, **options), Progress(quiet=True))
    return manifests(workdir, run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("ids")
    tokenizer_folder(place / "tokenizer")
    write_ids(place)
    return place


@pytest.fixture(scope="module")
def finished(folder) -> dict[str, Manifest]:
    return go(folder)


def test_a_recipe_of_token_files_alone_runs_to_its_model(folder, finished):
    assert list(finished) == ["tokenizer", "pack", "train", "evaluate", "export"]
    (run,) = all_runs(Workdir(folder / "work"))
    assert run.status == "done" and (run.directory / "model" / "model.safetensors").exists()
    evaluated = finished["evaluate"].content["info"]
    assert evaluated["bits_per_byte"] < evaluated["unigram_bits_per_byte"]
    held = finished["pack"].content["info"]["streams"][0]["heldout"]
    (row,) = evaluated["streams"]
    assert row["name"] == "ids" and row["text_bytes"] == held["text_bytes"] > 0
    assert row["bits_per_byte"] == pytest.approx(evaluated["bits_per_byte"])
    report = (run.directory / "report.html").read_text()
    tokens = finished["pack"].content["info"]["tokens"]["train"]
    assert ">ids<" in report and f"{tokens:,}" in report


def test_the_plan_of_the_mix_is_kept_with_the_run(folder, finished):
    (run,) = all_runs(Workdir(folder / "work"))
    mix = json.loads((run.directory / "mix.json").read_text())
    assert mix == finished["train"].content["info"]["mix"]
    assert [(row["name"], row["weight"], row["sequences"]) for row in mix["streams"]] == [
        ("ids", 2.0, 1280)
    ]


def test_a_finished_run_is_not_made_again_and_a_dry_run_shows_the_mix(folder, finished):
    loaded = load_recipe(str(folder / "r.yaml"))
    value, lines = dry_run(loaded, Workdir(folder / "work"))
    assert [row["state"] for row in value["stages"]] == ["done"] * 5
    (table,) = [line for line in lines if line.startswith("  ids ")]
    assert table.split() == ["ids", f"{value['mix']['streams'][0]['tokens']:,}", "2", "20,480",
                             f"{value['mix']['streams'][0]['epochs']:.2f}", "100.0%"]  # fmt: skip
    assert max(map(len, lines)) <= 79


def test_a_dry_run_before_pack_knows_no_mix(folder, tmp_path):
    value, _ = dry_run(load_recipe(str(folder / "r.yaml")), Workdir(tmp_path / "empty"))
    assert value["mix"] is None and value["mix_problem"] == ""


def test_a_dry_run_says_that_the_tokens_do_not_suffice(folder, finished):
    loaded = load_recipe(str(folder / "r.yaml"), ("train.tokens=9000000",))
    value, lines = dry_run(loaded, Workdir(folder / "work"))
    assert "max_epochs allows" in value["mix_problem"]
    assert any("would repeat" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("tokenized.0.weight=3.0", ["train", "evaluate", "export"]),
        ("split.heldout=0.2", ["pack", "train", "evaluate", "export"]),
        ("train.workers=2", []),
    ],
)
def test_what_a_change_makes_anew(folder, finished, change, again):
    text = RECIPE
    name, value = change.split("=")
    old = {"tokenized.0.weight": "weight: 2.0", "split.heldout": "heldout: 0.1",
           "train.workers": "workers: 1"}[name]  # fmt: skip
    place = folder / f"{name}.yaml"
    place.write_text(text.replace(old, f"{old.split(':')[0]}: {value}"))
    loaded = load_recipe(str(place))
    sources = fingerprints(loaded.recipe, folder, None)
    steps = make_plan(loaded.recipe, Workdir(folder / "work"), sources, folder)
    assert [step.stage.name for step in steps if step.state != "done"] == again


def test_until_a_stage_that_the_recipe_has_not_stops_before_what_follows(folder, tmp_path):
    workdir = Workdir(tmp_path / "work")
    loaded = load_recipe(str(folder / "r.yaml"))
    run = execute(loaded, workdir, Options(use_ray=False, until="split"), Progress(quiet=True))
    assert manifests(workdir, run) == {}


def test_changed_ids_make_another_run(folder, finished, tmp_path):
    tokenizer_folder(tmp_path / "tokenizer")
    write_ids(tmp_path, 399)
    found = go(tmp_path, until="pack")
    (other,) = all_runs(Workdir(tmp_path / "work"))
    assert other.id != all_runs(Workdir(folder / "work"))[0].id
    assert found["pack"].directory.name != finished["pack"].directory.name
    cached = json.loads((tmp_path / "work" / "cache" / "token_fingerprints.json").read_text())
    assert any("ids.npy" in stamp for stamp in cached)


def test_text_and_token_files_together_are_mixed(folder, tmp_path):
    tokenizer_folder(tmp_path / "tokenizer")
    write_ids(tmp_path)
    stock = "a casa da praia que o pescador fez com madeira do mato para morar e não sair mais "
    rows = [{"text": f"{stock * 3}caso {number} de {number * 7}"} for number in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = RECIPE + """sources: [{path: t.jsonl, name: texto, weight: 0.5}]
langid: {min_confidence: 0.0}
neardup: {threshold: 1.0}
filter: {thresholds: {max_duplicate_5grams: 1, max_top_bigram: 1, max_top_trigram: 1,
  max_top_4gram: 1, max_duplicate_6grams: 1, max_duplicate_7grams: 1, max_duplicate_8grams: 1,
  max_duplicate_9grams: 1, max_duplicate_10grams: 1, min_terminal_lines: 0}}
clean: {boilerplate: false}
"""  # fmt: skip
    found = go(tmp_path, recipe, until="pack")
    streams = found["pack"].content["info"]["streams"]
    assert [stream["name"] for stream in streams] == ["texto", "ids"]
    assert all(stream["train"]["documents"] > 20 for stream in streams)
    loader = Loader(found["pack"], load_recipe(str(tmp_path / "r.yaml")).recipe, 16)
    wanted = [share.weight * share.sequences for share in loader.mix.shares]
    for quota, share in zip(loader.mix.quotas, wanted, strict=True):
        assert abs(quota - loader.total * share / sum(wanted)) < 1


def test_ids_of_another_tokenizer_end_the_run_before_training(tmp_path):
    tokenizer_folder(tmp_path / "tokenizer")
    np.save(tmp_path / "ids.npy", np.array([5, 31_999, 0, 7, 0]))
    with pytest.raises(Exception, match="id 31999 is none of the tokenizer's") as caught:
        go(tmp_path)
    assert caught.value.exit_code == 3


def test_a_missing_file_of_ids_ends_the_command_before_any_work(tmp_path):
    tokenizer_folder(tmp_path / "tokenizer")
    with pytest.raises(RecipeError, match="Tokens ids: no such file"):
        go(tmp_path)
    assert not (tmp_path / "work" / "store").exists()
