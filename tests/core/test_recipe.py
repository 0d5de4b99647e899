"""Recipes: roles of fields, hashes of identity, and errors that name the line and the cure."""

from __future__ import annotations

import pytest

from mutirao.core import recipe as recipes
from mutirao.core.errors import RecipeError
from mutirao.core.identity import differences, identity, role, section_identity
from mutirao.core.recipe import Recipe, Section
from mutirao.core.recipe_file import dump_recipe, load_recipe, parse_recipe, shipped_names

MINIMAL = "format: 1\nname: r\nsources:\n  - path: a.txt\n"


def make(text: str = "", *overrides: str) -> Recipe:
    return parse_recipe(MINIMAL + text, "r.yaml", overrides)


def sections() -> list[type[Section]]:
    found = [v for v in vars(recipes).values() if isinstance(v, type) and issubclass(v, Section)]
    return [s for s in found if s is not Section]


@pytest.mark.parametrize("section", sections(), ids=lambda s: s.__name__)
def test_every_field_is_marked_identity_or_execution(section):
    assert {role(section, name) for name in section.model_fields} <= {"identity", "execution"}


def test_execution_fields_do_not_enter_the_identity():
    plain = identity(make())
    assert identity(make("", "train.workers=8", "train.zero_stage=3", "ray.cpus=4")) == plain
    assert identity(make("", "train.lr=0.5")) != plain


def test_a_field_at_its_default_is_not_hashed():
    assert section_identity(make("train:\n  lr: 1e-3\n"), ("train",)) == {}
    assert section_identity(make("train:\n  lr: 2e-3\n"), ("train",)) == {"train": {"lr": 0.002}}


def test_the_place_of_a_source_is_not_identity_but_its_name_is():
    first = identity(make("", "sources.0.path=b.txt"))
    assert first == identity(make())
    assert identity(make("", "sources.0.name=x")) != first


def test_differences_name_the_field_and_both_values():
    old, new = identity(make()), identity(make("", "train.lr=0.5", "seed=3"))
    assert differences(old, new) == ["seed: default -> 3", "train.lr: default -> 0.5"] or (
        "seed: default -> 3" in differences(old, new)
    )


def test_differences_go_into_a_list_of_sources_and_name_the_field():
    old, new = identity(make()), identity(make("", "sources.0.weight=2"))
    assert differences(old, new) == ["sources.0.weight: default -> 2.0"]
    longer = identity(make("  - path: b.txt\n"))
    assert [row.split(":")[0] for row in differences(old, longer)] == ["sources"]


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("trian:\n  lr: 1\n", "line 5", "train"),
        ("train:\n  lerning: 1\n", "line 6", "Known"),
        ("train:\n  wokers: 1\n", "line 6", "workers"),
        ("neardup:\n  threshold: 2\n", "line 6", ""),
        ("train:\n  workers: two\n", "line 6", ""),
    ],
)
def test_a_mistake_is_one_sentence_with_line_and_nearest_name(text, place, hint):
    with pytest.raises(RecipeError) as caught:
        make(text)
    assert place in caught.value.where
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_recipe_of_a_newer_format_says_upgrade():
    with pytest.raises(RecipeError, match="format 2") as caught:
        parse_recipe(MINIMAL.replace("format: 1", "format: 2"), "r.yaml")
    assert "Upgrade" in caught.value.hint


@pytest.mark.parametrize("text", ["[1, 2", "just words", "", "a: b: c"])
def test_what_is_not_a_recipe_is_said(text):
    with pytest.raises(RecipeError):
        parse_recipe(text, "r.yaml")


def test_a_bad_override_names_itself():
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        make("", "train.lr")
    with pytest.raises(RecipeError) as caught:
        make("", "train.lrr=3")
    assert "--set train.lrr" in caught.value.where and "lr" in caught.value.hint


def test_an_unknown_shipped_name_lists_the_nearest():
    with pytest.raises(RecipeError) as caught:
        load_recipe("dmeo")
    assert "demo" in caught.value.hint


def test_a_missing_file_is_said():
    with pytest.raises(RecipeError, match="No such recipe file"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_recipes_load_and_survive_a_round_trip(name):
    recipe = load_recipe(name).recipe
    assert parse_recipe(dump_recipe(recipe), "again") == recipe


def test_one_wrong_key_of_a_source_is_one_mistake(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("sources:\n  - path: a.jsonl\n    txt_field: t\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert "text_field" in caught.value.hint and "more after" not in caught.value.hint


def test_a_field_of_several_kinds_names_them_all():
    with pytest.raises(RecipeError, match="a valid integer or 'auto', not 'many'") as caught:
        parse_recipe("sources: [{path: x}]\ntrain: {micro_batch: many}\n", "r.yaml")
    assert "more" not in caught.value.hint
