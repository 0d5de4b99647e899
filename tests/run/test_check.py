"""What is wrong with a recipe is said before any work, by run, dry run and check alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutirao.core.errors import RecipeError
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe, Source
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.run.check import check_recipe
from mutirao.run.dry_run import dry_run
from mutirao.run.execute import Options, execute

WRONG = {
    "preferred source": {"exact": {"prefer": ["txt"]}},
    "threshold": {"filter": {"thresholds": {"min_word": 3}}},
    "variety": {"langid": {"varieties": ["pt-BZ"]}},
    "language model": {"langid": {"model": "nada.bin"}},
    "language": {"language": "yrl_Latn"},
    "licence": {"filter": {"allowed_licenses": ["CC-BY-9"]}},
    "score": {"filter": {"scores": {"toxic": "nada.ftz"}}},
    "no fastText file": {"filter": {"scores": {"toxic": "text.jsonl"}}},
    "evaluation file": {"decontaminate": {"against": ["nada.jsonl"]}},
    "preset": {"model": {"preset": "demmo"}},
    "pack": {"language_pack": "nada"},
    "training": {"train": {"workers": 9, "global_batch": 8}},
    "DeepSpeed key": {"train": {"deepspeed": {"zero_optimization": {"stage": 3}}}},
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG)
def test_it_stops_before_any_work(fields, tmp_path, workdir):
    (tmp_path / "text.jsonl").write_text('{"text": "Um texto."}\n')
    recipe = Recipe.model_validate({"sources": [{"path": "text.jsonl"}], **fields})
    loaded = LoadedRecipe(recipe, "", "recipe.yaml", tmp_path)
    with pytest.raises(RecipeError):
        execute(loaded, workdir, Options(use_ray=False), Progress(quiet=True))
    with pytest.raises(RecipeError):
        dry_run(loaded, workdir)
    assert not workdir.root.exists() or not list(workdir.root.glob("runs/*"))


def test_stages_that_are_not_asked_for_are_not_checked():
    recipe = Recipe(sources=(Source(path="x"),), language="yrl_Latn")
    check_recipe(recipe, Path(), ("ingest", "clean"))
    with pytest.raises(RecipeError):
        check_recipe(recipe, Path())
