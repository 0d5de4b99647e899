"""Personal data in sample text is masked, ordinary numbers are not."""

import pytest

from mutirao.report.masking import mask, mask_pair


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ana.maria+x@exemplo.com.br", "e-mail"),
        ("ana @ exemplo.org", "e-mail"),
        ("123.456.789-09", "CPF"),
        ("123456789-09", "CPF"),
        ("12345678909", "CPF"),
        ("12.345.678/0001-95", "CNPJ"),
        ("12.ABC.345/01DE-35", "CNPJ"),
        ("12345678000195", "CNPJ"),
        ("(11) 98765-4321", "telephone"),
        ("(021)3333-4444", "telephone"),
        ("+55 11 98765-4321", "telephone"),
        ("+595 981 123 456", "telephone"),
        ("11 98765-4321", "telephone"),
        ("0800 123 4567", "telephone"),
        ("98765-4321", "telephone"),
        ("3333-4444", "telephone"),
        ("1133334444", "telephone"),
        ("192.168.0.17", "IP"),
        ("2001:0db8:0000:0000:0000:ff00:0042:8329", "IP"),
        ("2001:db8::ff00:42:8329", "IP"),
    ],
)
def test_each_kind_of_personal_data_is_masked_whole(text, kind):
    assert mask(f"antes {text}, depois") == f"antes [{kind}], depois"


@pytest.mark.parametrize(
    "text",
    [
        "de 1990-2000, e de 2001-2010",
        "às 10:30 e às 12:45:00",
        "o artigo 5.172 da lei 13.709/2018",
        "R$ 1.234.567,89 em 25/11/2026",
        "a versão 3.12.1 do Python",
        "um total de 1234567 pessoas",
        "std::vector e http://exemplo.org",
    ],
)
def test_dates_versions_and_amounts_stay(text):
    assert mask(text) == text


def test_an_address_that_the_model_completes_is_masked_across_the_border():
    prompt, continuation = mask_pair("escreva para ana@exem", "plo.org hoje")
    assert (prompt, continuation) == ("escreva para [e-mail]", " hoje")


def test_text_on_both_sides_of_the_border_is_kept():
    assert mask_pair("um dois", " três a@b.org") == ("um dois", " três [e-mail]")
