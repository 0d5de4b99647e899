"""RUN@STEP and `train.from`: which folder a word names, and what stands for its content."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutirao.core.errors import RecipeError
from mutirao.core.files import write_json
from mutirao.core.recipe import Recipe
from mutirao.core.run_steps import find_checkpoint, find_origin, origin_sha256
from mutirao.core.runs import open_run, run_id
from mutirao.core.stages import BY_NAME
from mutirao.run.assets import assets_of
from mutirao.run.plan import key_parts

RECIPE = Recipe.model_validate({"name": "um", "sources": [{"path": "x.txt"}]})


@pytest.fixture
def run(workdir):
    run = open_run(workdir, "um-12345678", RECIPE, Path())
    run.save()
    for step in (4, 8):
        write_checkpoint(run.directory, step)
    return run


def write_checkpoint(run_dir, step, attempt="aaaa", sha="00", streams=(32,)):
    file = {"path": f"rank.{attempt}.safetensors", "bytes": 1, "sha256": sha, "slices": {}}
    cursor = {"pack": "p", "sequences": 8 * step, "streams": list(streams)}
    state = {"adam_step": step, "cursor": cursor, "rng": {"seed": 42}, "identity": {}}
    record = {"format": 2, "kind": "checkpoint", "step": step, "files": [file], "state": state}
    write_json(run_dir / "checkpoints" / f"step-{step:08d}" / "manifest.json", record)


def test_a_step_is_found_by_id_by_name_and_by_a_beginning(workdir, run):
    for word in ("um-12345678@4", "um@4", "um-1234@4"):
        assert find_checkpoint(workdir, word)[1].name == "step-00000004"
    assert find_checkpoint(workdir, "um")[1].name == "step-00000008"


def test_an_unknown_step_and_an_unknown_run_list_what_is_there(workdir, run):
    with pytest.raises(RecipeError, match=r"step 5.*\n.*Steps: 4, 8"):
        find_checkpoint(workdir, "um@5")
    with pytest.raises(RecipeError, match="no run 'dois'"):
        find_checkpoint(workdir, "dois@4")


def test_a_run_without_a_checkpoint_says_when_one_comes(workdir):
    open_run(workdir, "um-12345678", RECIPE, Path()).save()
    with pytest.raises(RecipeError, match=r"no checkpoint yet.*\n.*checkpoint_every"):
        find_checkpoint(workdir, "um")


def test_an_origin_names_its_step(workdir, run):
    assert find_origin("um@8", Path(), workdir).folder.name == "step-00000008"
    with pytest.raises(RecipeError, match=r"names no step.*\n.*um@8"):
        find_origin("um", Path(), workdir)
    with pytest.raises(RecipeError, match="no folder and no RUN@STEP"):
        find_origin("models/dois", Path(), workdir)


def test_the_hash_is_of_the_content_and_not_of_names_and_attempts(workdir, run):
    folder = run.directory / "checkpoints" / "step-00000008"
    first = origin_sha256(folder)
    write_checkpoint(run.directory, 8, attempt="bbbb")
    assert origin_sha256(folder) == first
    write_checkpoint(run.directory, 8, sha="11")
    other = origin_sha256(folder)
    write_checkpoint(run.directory, 8, streams=(33,))
    assert len({first, other, origin_sha256(folder)}) == 3


def test_a_llamas_hash_changes_with_its_weights(workdir, tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1")
    first = find_origin("llama", tmp_path, workdir)
    assert first.folder == folder
    (folder / "README.md").write_text("x")
    assert find_origin("llama", tmp_path, workdir) == first
    (folder / "model.safetensors").write_bytes(b"22")
    assert find_origin("llama", tmp_path, workdir).sha256 != first.sha256


def test_an_origin_that_is_gone_is_known_from_the_run_that_began_there(workdir, run):
    there = find_origin("um@8", Path(), workdir)
    fork = open_run(workdir, "fork-12345678", RECIPE, Path())
    fork.save()
    record = {"format": 1, "from": "um@8", "folder": str(there.folder), "sha256": there.sha256}
    write_json(fork.directory / "origin.json", record)
    (there.folder / "manifest.json").unlink()
    assert find_origin("um@8", Path(), workdir) == there


def test_the_origin_enters_the_id_of_the_run_and_the_key_of_train_alone(workdir, run):
    train = RECIPE.train.model_copy(update={"from_": "um@8"})
    fork = RECIPE.model_copy(update={"train": train})
    origin = find_origin("um@8", Path(), workdir).sha256
    assert run_id(fork, []) == run_id(RECIPE, []) != run_id(fork, [], origin)
    assert assets_of("train", fork, Path(), workdir)["origin"] == origin
    plain = key_parts(BY_NAME["train"], RECIPE, {}, [], Path(), workdir)
    assert key_parts(BY_NAME["train"], fork, {}, [], Path(), workdir) != plain
    for name in ("clean", "tokenizer", "pack"):
        parts = [key_parts(BY_NAME[name], r, {}, [], Path(), workdir) for r in (RECIPE, fork)]
        assert parts[0] == parts[1]
