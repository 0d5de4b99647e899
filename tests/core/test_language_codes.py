"""Codes as people write them, as packs are named, as language models label them."""

from __future__ import annotations

import pycld2
import pytest

from mutirao.core.errors import RecipeError
from mutirao.core.language_codes import canonical, codes, iso639_3, label_language, labels_of


@pytest.mark.parametrize(
    ("written", "pack"),
    [
        ("pt", "por_Latn"),
        ("pt-BR", "por_Latn"),
        ("gn", "gug_Latn"),
        ("grn", "gug_Latn"),
        ("gug", "gug_Latn"),
        ("grn_Latn", "gug_Latn"),
        ("sw", "swa_Latn"),
        ("swh", "swa_Latn"),
        ("quy", "quy_Latn"),
        ("yo", "yor_Latn"),
        ("wo", "wol_Latn"),
        ("eu", "eus_Latn"),
        ("no", "nob_Latn"),
        ("ru", "rus_Cyrl"),
        ("srp_Latn", "srp_Latn"),
        ("yrl", "yrl_Latn"),
    ],
)
def test_codes_find_their_pack(written, pack):
    assert canonical(written) == pack
    assert iso639_3(written) == pack[:3]


@pytest.mark.parametrize(
    ("label", "ours"),
    [
        ("__label__pt", "por"),
        ("__label__por_Latn", "por"),
        ("gug_Latn", "grn"),
        ("gn", "grn"),
        ("swh_Latn", "swa"),
        ("arb_Arab", "ara"),
        ("zh-Hant", "zho"),
        ("zho_Hans", "zho"),
        ("cmn_Hani", "zho"),
        ("zsm_Latn", "msa"),
        ("lvs_Latn", "lav"),
        ("pes_Arab", "fas"),
        ("ekk_Latn", "est"),
        ("fil_Latn", "tgl"),
        ("no", "nob"),
        ("iw", "heb"),
        ("als", "gsw"),  # of lid.176
        ("als_Latn", "sqi"),  # of NLLB
        ("quy_Latn", "quy"),
        ("ind_Latn", "ind"),
        ("xx-Copt", "cop"),
    ],
)
def test_labels_of_all_models_become_ours(label, ours):
    assert label_language(label) == ours
    assert label_language(ours) == ours


@pytest.mark.parametrize(
    ("code", "label"),
    [("gug", "grn"), ("grn", "grn"), ("swh", "swa"), ("fil", "tgl"), ("quy", "que"), ("no", "nob")],
)
def test_a_language_counts_under_its_macro_language(code, label):
    assert label in labels_of(code)


def test_languages_that_are_not_the_same_stay_apart():
    assert labels_of("por") == {"por"}
    assert "quz" not in labels_of("quy")
    assert "ind" not in labels_of("msa")
    assert not labels_of("glg") & labels_of("por")


def test_every_language_of_pycld2_has_a_three_letter_label():
    odd = {label_language(code) for _, code in pycld2.LANGUAGES if not code.startswith("xx-")}
    assert {label for label in odd if len(label) != 3 or not label.isalpha()} == set()


def test_no_entry_of_the_table_is_lost_to_yaml():
    table = codes()
    assert table.two_letters["no"] == "nob"
    assert all(isinstance(key, str) for key in table.macros)
    assert {"por", "glg"} <= table.confusable


@pytest.mark.parametrize("code", ["por_", "PORT", "p t", "por_Latn_x", "12"])
def test_what_is_no_code_is_one_error(code):
    with pytest.raises(RecipeError, match="Not a language code"):
        canonical(code)
