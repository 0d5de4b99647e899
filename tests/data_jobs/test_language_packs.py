"""Language packs: codes, the shipped ones, deriving one, checking one."""

from __future__ import annotations

import json
import random

import pytest
from click.testing import CliRunner

from data_jobs.quality.derive_pack import GUARDS, WEB_ONLY, derive, widened
from data_jobs.quality.reference_text import Reference, joined
from data_jobs.quality.rules import RULES
from data_jobs.words import hash_of, tables
from mutirao.core.errors import RecipeError
from mutirao.core.language_codes import canonical, iso639_3
from mutirao.core.languages import load_pack, shipped_packs

THIN = {"gug_Latn", "quy_Latn", "swa_Latn", "tet_Latn", "wol_Latn", "yor_Latn"}
MEASURED = {"cat_Latn", "eus_Latn", "glg_Latn", "por_Latn", "spa_Latn"}


@pytest.mark.parametrize("code", ["pt", "por", "por_Latn", "pt-BR"])
def test_codes_of_portuguese_find_one_pack(code):
    assert load_pack(code).code == "por_Latn"
    assert iso639_3(code) == "por"


def test_a_language_without_a_pack_gets_the_generic_one():
    pack = load_pack("yrl")
    assert (pack.code, pack.language, pack.evidence) == ("und", "yrl_Latn", "none")
    assert set(pack.thresholds) == {"min_words"}
    assert canonical("gug") == canonical("grn") == "gug_Latn"


@pytest.mark.parametrize("code", ["portugues", "", "p", "por_latn", "por-Latn"])
def test_what_is_no_code_is_refused(code):
    with pytest.raises(RecipeError, match="Not a language code"):
        load_pack(code)


def test_the_shipped_packs_say_what_they_rest_on():
    packs = {pack.code: pack for pack in shipped_packs()}
    assert {code for code, pack in packs.items() if pack.evidence == "thin"} == THIN
    assert {code for code, pack in packs.items() if pack.evidence == "measured"} == MEASURED
    known = {rule.threshold for rule in RULES}
    for pack in packs.values():
        named = {name for limits in pack.genres.values() for name in limits}
        assert set(pack.thresholds) | named <= known
        assert {"speech", "fiction", "law", "tutorial", "web", "news"} <= set(pack.genres)
        assert pack.stop_words and pack.figures["sources"][0]["licenses"]
        assert pack.figures["quantiles"]["stop_words"]["low"]
    english = {"the", "of", "and", "with", "this"}
    assert not [code for code, pack in packs.items() if pack.stop_words & english]


def test_the_puso_and_the_middle_dot_are_in_words_of_their_languages():
    assert set("'’\u0303") <= set(load_pack("gug").word_characters)
    assert "·" in load_pack("cat").word_characters


def test_a_damaged_or_missing_pack_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"no pack\.yaml"):
        load_pack("pt", tmp_path)
    (tmp_path / "pack.yaml").write_text("name: N\nevidence: perhaps\nstop_words: a\nthresholds: {}")
    with pytest.raises(RecipeError, match="evidence is one of"):
        load_pack("pt", tmp_path)
    (tmp_path / "pack.yaml").write_text("name: N\nevidence: thin\nstop_word: a\nthresholds: {}")
    with pytest.raises(RecipeError, match=r"no field 'stop_word'\. Did you mean stop_words"):
        load_pack("pt", tmp_path)


def test_thresholds_are_widened_beyond_the_worst_source():
    assert widened([0.1, 0.1, 0.4], 1) == pytest.approx(0.7)
    assert widened([0.3, 0.3, 0.2], -1) == pytest.approx(0.1)
    assert widened([50, 50, 25], -1, unbounded=True) == pytest.approx(12.5)
    assert set(GUARDS) | WEB_ONLY == {rule.threshold for rule in RULES}


def test_a_derived_pack_keeps_all_its_sources_and_finds_the_small_words():
    references = [made_up(source, 500) for source in range(3)]
    derived = derive(references)
    assert derived.evidence == "measured"
    assert {"de", "que", "e"} <= set(derived.stop_words)
    assert "praia0" not in derived.stop_words
    assert derive([made_up(0, 20)]).evidence == "thin"


def test_sentences_are_joined_before_they_are_measured():
    assert joined(["a" * 300, "b" * 300, "c"]) == ["a" * 300 + "\n" + "b" * 300]
    assert joined(["a", "b"]) == ["a\nb"]


def test_a_words_hash_is_that_of_the_kernels():
    import numpy as np

    from data_jobs.words import word_hashes

    out = np.zeros(9, np.uint64)
    data = np.frombuffer("Ação".encode(), np.uint8)
    assert word_hashes(data, 0, len(data), *tables(), out) == 1
    assert int(out[0]) == hash_of("ação") == hash_of("AÇÃO")


def test_lang_new_writes_a_pack_and_lang_check_reports_on_it(tmp_path):
    lines = [
        json.dumps({"text": text, "source": f"s{n}", "lang": lang}, ensure_ascii=False)
        for n in range(2)
        for lang in ("xxa", "xxb")
        for text in made_up(n, 30).texts
    ]
    (tmp_path / "t.jsonl").write_text("\n".join([*lines, "broken"]))
    target = tmp_path / "pack"
    made = mutirao("lang", "new", "yrl", str(tmp_path / "t.jsonl"), "--output", str(target),
                   "--where", "lang=xxa", "--name", "Nheengatu", "--json")  # fmt: skip
    assert (made["evidence"], made["name"]) == ("thin", "Nheengatu")
    assert made["figures"]["documents"] == 60 and len(made["figures"]["sources"]) == 2
    own = (target / "pack.yaml").read_text() + "genres: {speech: {min_words: 1}}\n"
    (target / "pack.yaml").write_text(own)
    again = mutirao("lang", "new", "yrl", str(tmp_path / "t.jsonl"), "--output", str(target),
                    "--json")  # fmt: skip
    assert again["genres"] == {"speech": {"min_words": 1}} and again["name"] == "Nheengatu"
    assert again["figures"]["documents"] == 120
    found = mutirao("lang", "check", "yrl", str(tmp_path / "t.jsonl"), "--pack", str(target),
                    "--json")  # fmt: skip
    assert found["kept"] == 1.0 and set(found["sources"]) == {"s0", "s1"}
    other = mutirao("lang", "check", "pt", str(tmp_path / "t.jsonl"), "--limit", "2", "--json")
    assert other["documents"] == 120 and len(other["worst"]) <= 2


def test_lang_list_and_show():
    rows = mutirao("lang", "list", "--json")
    assert {row["code"] for row in rows} == THIN | MEASURED
    assert mutirao("lang", "show", "gn", "--json")["code"] == "gug_Latn"


def mutirao(*arguments: str):
    from mutirao.cli.main import cli

    found = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def made_up(source: int, count: int) -> Reference:
    """Documents of small words that all sources share and others that are the source's own."""
    dice = random.Random(source)
    small = ["de", "que", "e", "a", "o", "em", "um", "para", "não", "com"]
    own = [f"{word}{source}" for word in ("praia", "barco", "vento", "mato", "pesca")]
    one = Reference(f"s{source}")
    for number in range(count):
        words = [
            dice.choice(small)
            if dice.random() < 0.4
            else f"{dice.choice(own)}x{dice.randrange(99)}"
            for _ in range(120)
        ]
        one.texts.append(" ".join(words).capitalize() + ".")
        one.names.append(f"d{number}")
    one.licenses["CC0-1.0"] = count
    return one
