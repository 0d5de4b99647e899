"""Brazilian and European Portuguese: rules, classifier, undecided; keeping only one of them."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import yaml

from data_jobs.language.train_variety import score, train
from data_jobs.language.variety import (
    UNDECIDED,
    decide,
    decide_varieties,
    entry_key,
    probabilities,
    read_rules,
    varieties_of,
)
from data_jobs.language.variety_kernel import (
    EXACT,
    feature_lists,
    lookup_table,
    pattern_key,
    position,
)
from data_jobs.words import tables
from mutirao.core.errors import RecipeError
from mutirao.core.schemas import read_ipc

BRAZIL = "O usuário acessou o arquivo e a equipe fez o registro do ônibus na seção. " * 3
EUROPE = "O utilizador acedeu ao ficheiro e a equipa fez o registo do autocarro na secção. " * 3
NEITHER = "O homem saiu de casa muito cedo e não voltou antes da noite por causa do vento. " * 3


def found(*texts: str) -> list[str]:
    return decide_varieties([text.encode() for text in texts], "por")


def test_spelling_and_words_decide():
    assert found(BRAZIL, EUROPE, NEITHER, "") == ["pt-BR", "pt-PT", UNDECIDED, UNDECIDED]


@pytest.mark.parametrize(
    ("word", "variety"),
    [
        ("econômico", "pt-BR"),
        ("económico", "pt-PT"),
        ("Antônio", "pt-BR"),
        ("ANTÓNIO", "pt-PT"),
        ("freqüente", "pt-BR"),
        ("indemnização", "pt-PT"),
        ("facto", "pt-PT"),
        ("estômago", UNDECIDED),  # alike in both, though it has the Brazilian pattern
        ("também", UNDECIDED),
        ("porém", UNDECIDED),
        ("factory", UNDECIDED),
    ],
)
def test_one_word(word, variety):
    assert found(f"{NEITHER} {word}") == [variety]


def test_a_divided_text_is_undecided():
    assert found(BRAZIL + EUROPE) == [UNDECIDED]


def test_a_language_without_varieties_has_none():
    assert varieties_of("eng") is None
    assert decide_varieties([b"text"], "eng") == [""]


def test_the_classifier_decides_nothing_against_the_rules_or_without_one():
    own = varieties_of("por")
    sure = replace(own, weights=np.full_like(own.weights, 100), scale=1.0, bias=0.0)
    views = [(NEITHER + word).encode() for word in ("", " tela", " escudos")]
    assert decide(sure, views) == [UNDECIDED, "pt-BR", UNDECIDED]


def test_training_learns_a_word_and_gives_the_same_weights_twice():
    rows = [
        {"text": f"{text} {k} e mais {word} aqui", "variety": variety}
        for k in range(8)
        for text, word, variety in ((NEITHER, "zumbi", "pt-BR"), (NEITHER, "zagal", "pt-PT"))
    ]
    own = train(rows, varieties_of("por"))
    assert np.array_equal(own.weights, train(rows, varieties_of("por")).weights)
    chances = probabilities(own, [f"mais {word} aqui".encode() for word in ("zumbi", "zagal")])
    assert chances[0] > 0.9 and chances[1] < 0.1
    report = score(rows, own)
    assert report["texts"] == 16 and report["decided"] == 0


def test_names_and_figures_are_no_features():
    data = np.frombuffer(b"Lisboa 1994 casa B2B", np.uint8)
    rows, slots = feature_lists(data, np.array([0, len(data)]), *tables())
    assert len(rows) == len(slots) == 3


def test_the_look_up_table_finds_every_entry_and_nothing_else():
    entries = {pattern_key(f"palavra{k}", EXACT): k + 1 for k in range(500)}
    keys, values = lookup_table(entries)
    assert all(values[position(np.uint64(key), keys)] == v for key, v in entries.items())
    assert position(np.uint64(pattern_key("outra", EXACT)), keys) == -1


@pytest.mark.parametrize("entry", ["*", "**", "*abc*", "*ab", "ab*", "*éabc*"])
def test_a_pattern_that_cannot_be_matched_is_refused(entry):
    with pytest.raises(ValueError, match="is no word"):
        entry_key(entry)


def test_every_rule_stands_on_one_side():
    path = resources.files("mutirao.languages") / "por_Latn" / "varieties.yaml"
    content = yaml.safe_load(path.read_bytes())
    sides = [
        {entry for listed in content[name].values() for entry in listed.split()}
        for name in content["varieties"]
    ]
    assert not sides[0] & sides[1] and min(map(len, sides)) > 80
    names, _, values = read_rules(content)
    assert names == ("pt-BR", "pt-PT") and (values > 0).any() and (values < 0).any()


def test_only_the_named_variety_is_kept(stages, helpers):
    rows = helpers.jsonl([{"text": text} for text in (BRAZIL, EUROPE, NEITHER)])
    done = stages({"a.jsonl": rows}, langid={"varieties": ["pt-BR", "undecided"]}, until="langid")
    got = read_ipc(done["langid"].paths("langid-")[0], "decision.langid").to_pylist()
    assert [row["variety"] for row in got] == ["pt-BR", "pt-PT", "undecided"]
    assert [row["reason"] for row in got] == [None, "variety", None]
    assert done["langid"].content["info"]["varieties"] == {"pt-BR": 1, "pt-PT": 1, "undecided": 1}


def test_an_unknown_variety_is_refused_with_the_nearest(stages, helpers):
    rows = helpers.jsonl([{"text": BRAZIL}])
    with pytest.raises(RecipeError, match="Unknown variety 'pt-BRA'") as caught:
        stages({"a.jsonl": rows}, langid={"varieties": ["pt-BRA"]}, until="langid")
    assert "pt-BR" in caught.value.hint
