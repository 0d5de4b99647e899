"""Measured values against plain Python, judging by packs, genres and recipes."""

from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import replace
from importlib import resources

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.filter import measure
from data_jobs.quality import measure_places
from data_jobs.quality.rules import (
    RULES,
    VALUE_NAMES,
    columns,
    decide,
    enforced,
    judge,
    profiles,
    rules_with,
)
from mutirao.core.errors import RecipeError
from mutirao.core.languages import load_pack
from mutirao.core.schemas import read_ipc
from value_oracle import oracle

PACK = load_pack("pt")
STOPS = PACK.stop_words
PROSE = (
    "O pescador saiu cedo de casa, com o barco que o pai lhe deixou, e não voltou antes da noite. "
    "A mulher esperava por ele na praia; quando viu a luz, chamou os filhos e foi ao porto. "
    "Havia pouco peixe, mas todos comeram, e a história daquele dia ficou na memória da vila."
)
ODD = [
    *("", "  \n ", "\n\n\n", "...", "a", "🙂", "x" * 200_000, "a...\n…\nb....", "a\r\nb\r\n"),
    "lorem ipsum Lorem Ipsum JavaScript\nx\n\n\nx\n\nx",
    '«Fim.» "a."\u2028b ?! fim?"\n"',
    "{}\n{ if (x) { }",
    "•a\n* b\n· c\n- d",
    "l·l mba'e 'a' a' 'b ' · a·",
    "ág\u0303a g\u0303 \u0303",
    "O MESMO\no mesmo\n  o mesmo  \n\nO mesmo\nO MESMO",
]


def values(text: str, further: str = "") -> dict[str, float]:
    return measure([text], STOPS, further).to_pylist()[0]


def reason(text: str, genre: str = "") -> str | None:
    found = columns(measure([text], STOPS))
    return judge(found, np.array([genre], object), profiles(PACK, {}))[0]


def sample(name: str) -> list[dict]:
    with gzip.open(str(resources.files("mutirao.sample") / name)) as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("further", ["", "'·’\u0303"])
def test_every_value_is_that_of_plain_python(further):
    dice = random.Random(5)
    repeated = [" ".join(dice.choices("ab cd ef. {g", k=n)) for n in (3, 12, 60, 300)]
    real = [row["text"] for name in ("docs", "messy") for row in sample(f"{name}.jsonl.gz")[::25]]
    texts = [*ODD, *repeated, *real]
    for text, found in zip(texts, measure(texts, STOPS, further).to_pylist(), strict=True):
        for name, expected in oracle(text, STOPS, further).items():
            same = math.isclose(found[name], expected, rel_tol=1e-5, abs_tol=1e-6)
            assert same, (name, found[name], expected, text[:80])


def test_the_kernels_columns_are_those_of_the_schema():
    places = {name.lower(): place for name, place in vars(measure_places).items() if name.isupper()}
    assert [places[name] for name in VALUE_NAMES] == list(range(len(VALUE_NAMES)))
    assert len(places) == len(VALUE_NAMES)


def test_words_of_the_pack_stay_whole():
    assert values("mba'e ko'ápe", "'")["words"] == 2
    assert values("mba'e ko'ápe")["words"] == 4
    assert values("ág\u0303a", "\u0303")["words"] == 1
    assert values("'a' b'", "'")["mean_word_length"] == 1  # a quotation mark is no letter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, None),
        ("Bom dia.", "too-short"),
        (PROSE.upper(), "shouting"),
        (" ".join(PROSE.replace(" ", "")), "short-words"),
        ((PROSE[:90] + " ") * 40, "repetition-words"),
        (
            "Este site usa cookies. Aceitar todos\nInício | Sobre | Contato\n" * 9,
            "repetition-lines",
        ),
        ("the boat went out to sea and came back home again with fish " * 1 + PROSE, None),
        ("kuña ha kuimba'e ohóvo ñemuhame ñande retãme ko'ágã peve oĩháme", "few-stop-words"),
        ("## ## ## " * 30 + PROSE, "symbols"),
    ],
)
def test_reasons_for_portuguese(text, expected):
    assert reason(text) == expected


def test_the_bundled_corpus_is_kept_and_its_damage_dropped():
    limits = profiles(PACK, {})[""]
    good = [row["text"] for row in sample("docs.jsonl.gz")]
    dropped = decide(columns(measure(good, STOPS)), limits)
    assert sum(one is None for one in dropped) / len(good) >= 0.95
    messy = sample("messy.jsonl.gz")
    decided = decide(columns(measure([row["text"] for row in messy], STOPS)), limits)
    for kind in ("spaced_letters", "shouting", "cookie_banner"):
        found = [r for row, r in zip(messy, decided, strict=True) if row["kind"] == kind]
        assert sum(r is not None for r in found) / len(found) >= 0.9, kind


def test_a_genre_changes_thresholds_and_null_switches_a_rule_off():
    code = "## ## ## " * 30 + PROSE
    assert reason(code, "tutorial") is None and reason(code, "no such genre") == "symbols"
    words = [word.strip(".,;") for word in PROSE.split()]
    menu = "\n".join(" ".join(words[k : k + 8]) for k in range(0, len(words), 8))
    assert reason(menu) is None and reason(menu, "web") == "unfinished-lines"


def test_a_changed_threshold_judges_from_stored_values(stages, helpers, tmp_path, monkeypatch):
    data = helpers.jsonl({"text": helpers.sentence(k, 30 + k)} for k in range(40))
    first = stages({"a.jsonl": data}, until="filter")

    def must_not_measure(*arguments):
        raise AssertionError("text was measured again")

    monkeypatch.setattr("data_jobs.filter.measure", must_not_measure)
    for change, expected in (
        ({"thresholds": {"min_words": 50}}, {"too-short": 20}),
        ({"allowed_licenses": ["CC0-1.0"]}, {"license": 40}),
    ):
        for path in first["filter"].directory.iterdir():
            path.unlink()
        again = stages({"a.jsonl": data}, until="filter", filter=change)
        assert again["filter"].counts["reasons"] == expected


def test_a_thin_pack_scores_and_drops_nothing_by_its_thresholds(stages, helpers, tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    thin = (
        "name: N\nevidence: thin\nstop_words: a o\n"
        "thresholds: {min_words: 100, max_uppercase: 0.5}\n"
    )
    (folder / "pack.yaml").write_text(thin)
    words = [helpers.sentence(1, 50), helpers.sentence(2, 120), "só três palavras"]
    done = stages(
        {"a.jsonl": helpers.jsonl({"text": text} for text in words)},
        until="filter",
        language_pack=str(folder),
        filter={"thresholds": {"max_words": 110}},
    )
    table = read_ipc(done["filter"].paths("filter-")[0], "decision.filter")
    assert table["reason"].to_pylist() == [None, "too-long", "too-short"]  # the recipe's; generic
    assert table["would_drop"].to_pylist() == ["too-short", None, None]
    assert done["filter"].content["info"]["would_drop"] == {"too-short": 1}
    assert enforced(PACK, {}) is None


def test_a_recipe_overrides_the_pack_and_a_typo_is_refused():
    assert profiles(PACK, {"min_words": 3})["speech"]["min_words"] == 3
    assert "max_uppercase" not in profiles(PACK, {"max_uppercase": None})[""]
    with pytest.raises(RecipeError, match="Did you mean max_uppercase"):
        profiles(PACK, {"max_upper_case": 0.5})


@pytest.mark.parametrize("where", ["thresholds", "genres"])
def test_a_typo_in_a_pack_is_refused_too(where):
    slip = {"min_wordz": 20.0}
    pack = replace(PACK, **{where: slip if where == "thresholds" else {"law": slip}})
    with pytest.raises(RecipeError, match="Did you mean min_words"):
        profiles(pack, {})


def test_every_rule_names_a_measured_value_and_says_why():
    assert {rule.value for rule in RULES} <= set(VALUE_NAMES)
    assert len({rule.threshold for rule in RULES}) == len(RULES)
    assert all(rule.words.endswith(".") and len(rule.words) < 100 for rule in rules_with(["toxic"]))


def test_a_value_at_its_threshold_is_kept():
    found = {name: np.zeros(1, np.float32) for name in VALUE_NAMES}
    found["uppercase"] = pa.array([0.1], pa.float32()).to_numpy()
    assert decide(found, {"max_uppercase": 0.1})[0] is None
