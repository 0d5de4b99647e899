"""Repair of one document's text."""

from __future__ import annotations

import pytest

from data_jobs.repair import clean_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("depÃ³sito voluntÃ¡rio", "depósito voluntário"),
        ("EntÃƒÂ£o, comeÃƒÂ§ar", "Então, começar"),
        ("NÃO E SÃO PÃO", "NÃO E SÃO PÃO"),
        ("cafe\u0301", "café"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a \t\nb  ", "a\nb"),
        ("a\n\n\n\n\nb", "a\n\n\nb"),
        ("a\x07b\x1b\u00adc\ufeff", "abc"),
        ("“aspas” e ﬁm", "“aspas” e ﬁm"),
        ("\ud83d\ude42 e \ud800", "🙂 e \ufffd"),
        ("a\tb", "a\tb"),
    ],
)
def test_text_is_repaired(raw, clean):
    found = clean_text(raw, repair=True)
    assert found.text == clean and not found.reason
    assert clean_text(found.text, repair=True).text == clean  # nothing is left to do


def test_without_repair_the_encoding_stays():
    assert clean_text("depÃ³sito", repair=False).text == "depÃ³sito"


@pytest.mark.parametrize("raw", ["", " \n\t", "\0\0", "\u00ad\ufeff"])
def test_nothing_to_read_is_empty(raw):
    assert clean_text(raw, repair=True).reason == "empty"
