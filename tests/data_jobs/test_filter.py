"""Measured values against plain Python, judging, and the language packs."""

from __future__ import annotations

import re

import pytest

from data_jobs.filter import RULES, VALUE_NAMES, decide, measure, thresholds
from mutirao.core.errors import RecipeError
from mutirao.core.language_codes import canonical, iso639_3
from mutirao.core.languages import load_pack

PACK = load_pack("pt")
STOPS = sorted(PACK.stop_words)
PROSE = (
    "O pescador saiu cedo de casa, com o barco que o pai lhe deixou, e não voltou antes da noite. "
    "A mulher esperava por ele na praia; quando viu a luz, chamou os filhos e foi ao porto. "
    "Havia pouco peixe, mas todos comeram, e a história daquele dia ficou na memória da vila."
)


def values(text: str) -> dict[str, float]:
    return {k: v[0] for k, v in measure([text], STOPS).to_pydict().items()}


def reason(text: str) -> str | None:
    return decide(measure([text], STOPS), thresholds(PACK, {}))[0].as_py()


def test_values_are_those_of_plain_python():
    text = PROSE + "\n\n# Fim...\n" + PROSE
    found = values(text)
    words = re.findall(r"\w+", text)
    letters = [c for c in text if c.isalpha()]
    stops = sum(word.lower() in PACK.stop_words for word in words)
    assert found["words"] == len(words)
    assert found["characters"] == len(text)
    assert found["lines"] == 3
    assert found["mean_word_length"] == pytest.approx(sum(map(len, words)) / len(words))
    assert found["stop_words"] == pytest.approx(stops / len(words))
    assert found["uppercase"] == pytest.approx(sum(c.isupper() for c in letters) / len(letters))
    assert found["symbol_ratio"] == pytest.approx(2 / len(words))
    assert found["duplicate_lines"] == pytest.approx(1 / 3)
    assert found["ellipsis_lines"] == pytest.approx(1 / 3)


def test_repeated_ngrams_are_shares_of_the_characters_in_words():
    found = values("um dois três quatro cinco " * 2)
    assert found["duplicate_5grams"] == pytest.approx(0.5)
    assert found["top_bigram"] == pytest.approx(22 / 42, abs=1e-6)  # "quatro cinco" twice
    assert values(PROSE)["duplicate_5grams"] == 0


@pytest.mark.parametrize("text", ["", " \n ", "...", "a", "\n\n\n", "🙂", "x" * 200_000])
def test_odd_texts_have_finite_values(text):
    found = values(text)
    assert all(value == value and value >= 0 for value in found.values())
    assert found["words"] == len(re.findall(r"\w+", text))


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
        ("kuña ha kuimba'e ohóvo ñemuhame ñande retãme ko'ágã peve " * 1 * 3, "repetition-words"),
        ("## ## ## " * 30 + PROSE, "symbols"),
    ],
)
def test_reasons_for_portuguese(text, expected):
    assert reason(text) == expected


def test_the_bundled_corpus_is_kept_and_its_damage_dropped():
    import gzip
    import json
    from importlib import resources

    def rows(name):
        with gzip.open(str(resources.files("mutirao.sample") / name)) as lines:
            return [json.loads(line) for line in lines]

    good = [row["text"] for row in rows("docs.jsonl.gz")]
    kept = decide(measure(good, STOPS), thresholds(PACK, {})).null_count
    assert kept / len(good) >= 0.95
    messy = rows("messy.jsonl.gz")
    decided = decide(measure([r["text"] for r in messy], STOPS), thresholds(PACK, {}))
    for kind in ("spaced_letters", "shouting", "cookie_banner", "repeated_header"):
        found = [r for row, r in zip(messy, decided, strict=True) if row["kind"] == kind]
        assert sum(r.is_valid for r in found) / len(found) >= 0.7, kind


def test_a_changed_threshold_judges_from_stored_values(stages, helpers, tmp_path, monkeypatch):
    data = helpers.jsonl({"text": helpers.sentence(k, 30 + k)} for k in range(40))
    first = stages({"a.jsonl": data}, until="filter")
    for path in first["filter"].directory.iterdir():
        path.unlink()

    def must_not_measure(*arguments):
        raise AssertionError("text was measured again")

    monkeypatch.setattr("data_jobs.filter.measure", must_not_measure)
    second = stages({"a.jsonl": data}, until="filter", filter={"thresholds": {"min_words": 50}})
    assert second["filter"].counts["reasons"] == {"too-short": 20}


def test_a_recipe_overrides_the_pack_and_a_typo_is_refused():
    assert thresholds(PACK, {"min_words": 3})["min_words"] == 3
    with pytest.raises(RecipeError, match="Did you mean max_uppercase"):
        thresholds(PACK, {"max_upper_case": 0.5})


def test_every_rule_names_a_measured_value():
    assert {value for _, value, _, _ in RULES} <= set(VALUE_NAMES)
    assert set(PACK.thresholds) <= {name for name, *_ in RULES}


@pytest.mark.parametrize("code", ["pt", "por", "por_Latn", "pt-BR"])
def test_codes_of_portuguese_find_one_pack(code):
    assert load_pack(code).code == "por_Latn"
    assert iso639_3(code) == "por"


def test_a_language_without_a_pack_gets_the_generic_one():
    pack = load_pack("yrl")
    assert (pack.code, pack.language) == ("und", "yrl_Latn")
    assert set(pack.thresholds) == {"min_words"}
    assert canonical("gug") == canonical("grn") == "grn_Latn"


@pytest.mark.parametrize("code", ["portugues", "", "p", "por_latn", "por-Latn"])
def test_what_is_no_code_is_refused(code):
    with pytest.raises(RecipeError, match="Not a language code"):
        load_pack(code)
