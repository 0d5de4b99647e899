"""Cleaning of whole texts: markup, lines, hyphens, letter-spacing; batches; switches."""

from __future__ import annotations

import gzip
import random
import warnings
from importlib import resources

import orjson
import pytest

from data_jobs.cleaning.cleaner import Cleaner, CleanSettings
from mutirao.core.errors import RecipeError
from mutirao.core.languages import load_pack
from mutirao.core.recipe import Clean

RULES = load_pack("por").cleaning
PORTUGUESE = Cleaner(CleanSettings(), RULES)
ANY = Cleaner(CleanSettings(), load_pack("und").cleaning)
PROSE = "A assembleia aprovou ontem a proposta, e o texto segue para a sanção do governador."
PAGES = "\n".join(
    f"PODER JUDICIÁRIO\nDocumento assinado eletronicamente, código 9F31\nPágina {n} de 6\n"
    f"Parágrafo {word} do voto, que trata da matéria e não se\n"
    f"repete em nenhuma outra página {word}."
    for n, word in enumerate(("um", "dois", "três", "quatro", "cinco", "seis"), 1)
)


def clean(text, cleaner=PORTUGUESE):
    return cleaner.clean([text])[0]


def sample(count):
    """Good documents of the bundled corpus, Portuguese first."""
    texts = []
    for name in ("docs", "other_languages"):
        raw = (resources.files("mutirao") / "sample" / f"{name}.jsonl.gz").read_bytes()
        rows = [orjson.loads(line) for line in gzip.decompress(raw).splitlines()]
        texts += [row["text"] for row in rows[:: max(1, len(rows) // count)]]
    return texts


def damaged(text, seed):
    """The same text with damage that no reader of the tests has to believe in."""
    dice = random.Random(seed)
    pieces = [
        "\r\n", "\u200b", "Ã£", "<br>", "</p>", "&aacute;", "-\n", " \n", "\n\n\n\n\n", "a@b.org",
        "\ufffd", "\0", "\ud800", "e\u0301", "203.0.113.7", "t e x t o   a   b   c d e f g h i j",
    ]  # fmt: skip
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(text))
        text = text[:place] + dice.choice(pieces) + text[place:]
    return text


def test_the_bundled_text_passes_untouched():
    texts = [text for text in sample(60) if "@" not in text and " \n" not in text]
    assert len(texts) >= 60
    for text, found in zip(texts, PORTUGUESE.clean(texts), strict=True):
        assert found.text == text and not found.counts and not found.reason


def test_cleaning_twice_is_cleaning_once_and_batches_do_not_matter():
    texts = [damaged(text[:2000], seed) for seed, text in enumerate(sample(80))]
    together = PORTUGUESE.clean(texts)
    assert [clean(text) for text in texts] == together
    assert PORTUGUESE.clean(texts[::-1]) == together[::-1]
    kept = [one.text for one in together if not one.reason]
    assert len(kept) > len(texts) / 2
    for text, again in zip(kept, PORTUGUESE.clean(kept), strict=True):
        assert again.text == text and not again.reason


def test_every_step_can_be_switched_off():
    off = CleanSettings(False, "keep", "resiliparse", False, False, "keep")
    text = f"<p>depÃ³sito</p><p>disse-\nlhe fulana@exemplo.org</p>\n{PAGES}"
    assert Cleaner(off, RULES).clean([text])[0].text == text


def test_settings_come_from_the_recipe():
    settings = CleanSettings.of(Clean(html="keep", personal_data="keep"))
    assert (settings.html, settings.personal_data, settings.hyphenation) == ("keep", "keep", True)


def test_markup_of_a_conversation_stays():
    settings = CleanSettings().for_kind("instruction")
    answer = "<ul>\n  <li>Um</li>\n  <li>Dois</li>\n</ul>"
    assert clean(answer, Cleaner(settings, RULES)).text == answer
    assert clean(answer).text != answer


# Markup


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<html><body><p>Um dia.</p><p>Outro dia.</p></body></html>", "Um dia.\n\nOutro dia."),
        ("<p>Um dia.</p>\n<p>Outro <b>dia</b>.</p>", "Um dia.\n\nOutro dia."),
        (
            f"{PROSE}<br><br/>O <b>novo</b> prazo é <i>curto</i>.",
            f"{PROSE}\n\nO novo prazo é curto.",
        ),
        (
            "A decis&atilde;o &eacute; un&acirc;nime &ndash; &quot;sim&quot;",
            'A decisão é unânime – "sim"',
        ),
        ("A decis&#227;o n&#xE3;o &#8211; muda &lt;nada&gt;", "A decisão não – muda &lt;nada&gt;"),
        ("<!DOCTYPE html><html><script>var a='x';</script><body>Só texto", "Só texto"),
    ],
)
def test_markup_becomes_text(raw, expected):
    found = clean(raw)
    assert found.text == expected
    assert found.counts == {"html": 1}
    assert clean(expected).text == expected


def test_markup_can_be_kept():
    keep = Cleaner(CleanSettings(html="keep"), RULES)
    assert clean("<p>a</p><p>b</p>", keep).text == "<p>a</p><p>b</p>"


# Lines that are no part of the text


def test_page_headers_go_and_the_text_stays():
    found = clean(PAGES)
    assert "JUDICIÁRIO" not in found.text and "Página 3" not in found.text
    assert found.text.count("Parágrafo") == 6 and "quatro do voto" in found.text
    assert found.counts == {"boilerplate_lines": 18}


def test_a_header_without_page_marks_goes_where_it_interrupts_sentences():
    pages = "\n".join(
        f"{word} e assim o relator leu o seu voto perante a turma que\n"
        "Revista do Instituto Histórico\n"
        f"ouviu em silêncio até o fim da {word.lower()} sessão daquela tarde"
        for word in ("Primeiro", "Segundo", "Terceiro", "Quarto", "Quinto")
    )
    assert "Revista" not in clean(pages, ANY).text


def test_banners_of_the_language_go():
    banner = "Este site usa cookies. Aceitar todos\nInício | Sobre | Contato | Entrar\n"
    assert clean(banner + PROSE).text == PROSE
    assert clean(banner + PROSE, ANY).text == banner + PROSE  # no rules, nothing taken


def test_one_line_over_and_over_is_said_once():
    found = clean("Carregando, aguarde um momento...\n" * 40 + PROSE, ANY)
    assert found.text == f"Carregando, aguarde um momento...\n{PROSE}"


# Hyphens


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a apresen-\ntação foi boa", "a apresentação foi boa"),
        ("a APRESEN-\nTAÇÃO", "a APRESENTAÇÃO"),
        ("ele disse-\nlhe que não", "ele disse-lhe que não"),
        ("ele disse-\n-lhe que não", "ele disse-lhe que não"),
        ("o guarda-\nchuva", "o guarda-chuva"),
        ("o vice-\nPresidente", "o vice-Presidente"),
        ("a cor-\nde-rosa", "a cor-de-rosa"),
        ("amor e próprio; amor-\npróprio", "amor e próprio; amor-próprio"),
        ("entre eles e tanto; entre-\ntanto", "entre eles e tanto; entretanto"),
        ("há sécu-\nlos, me-\nnos, ape-\nnas", "há séculos, menos, apenas"),
        ("fazê-\nlos; deu-\nnos; fizeram-\nno", "fazê-los; deu-nos; fizeram-no"),
        ("apresen-\ntou-se", "apresentou-se"),
        ("sem-\npre, ex-\nplica, conta-\nminam", "sempre, explica, contaminam"),
        ("dir-se-\nia que sim", "dir-se-ia que sim"),
        ("o tico-\ntico; outro tico-tico", "o tico-tico; outro tico-tico"),
        ("extraordi\u00ad\nnário", "extraordinário"),
        ("a -ou-\nb; X-\nmen; e-\nmail", "a -ou-\nb; X-\nmen; e-\nmail"),
        ("16-\nchar e sub-\n1000", "16-\nchar e sub-\n1000"),
    ],
)
def test_hyphens_at_line_ends(raw, expected):
    assert clean(raw).text == expected
    assert clean(expected).text == expected


def test_without_rules_only_evidence_joins_a_word():
    assert clean("a apresen-\ntação foi boa", ANY).text == "a apresen-\ntação foi boa"
    both = "a apresen-\ntação; outra apresentação"
    assert clean(both, ANY).text == "a apresentação; outra apresentação"


# Letter-spaced text


def test_spaced_letters_are_joined_where_gaps_say_how():
    assert clean(" ".join(PROSE)).text == PROSE
    page = f"{PROSE}\n\nFim."
    assert clean(" ".join(page)).text == page


def test_spaced_letters_without_words_are_named():
    lost = " ".join(PROSE.replace(" ", ""))
    assert clean(lost).reason == "spaced-letters"


# Speed and traps


@pytest.mark.parametrize(
    "text",
    [
        " " * 300_000 + "x",
        "a " * 200_000,
        "-\n" * 100_000,
        "<" * 200_000,
        "<b>" * 50_000,
        "&a" * 150_000,
        "1." * 150_000,
        "a@" * 150_000,
        "a" * 300_000 + "@",
        "(11) " * 60_000,
        "linha que volta sempre igual\n" * 20_000,
        "\u0301" * 100_000,
        "Ã£" * 20_000,
        "\ufffd" * 100_000,
    ],
    ids=lambda text: repr(text[:6]),
)
@pytest.mark.timeout(20)
def test_no_text_takes_long(text):
    assert len(clean(text).text) <= len(text)  # within the time limit above


def test_patterns_are_read_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Cleaner(CleanSettings(), RULES).clean(["Um texto."])[0].text == "Um texto."


@pytest.mark.parametrize(
    "rules",
    [
        {"personal_data": ["emial"]},
        {"personal_data": [{"kind": "cpf", "pattern": "["}]},
        {"personal_data": [{"kind": "cpf", "pattern": "a", "check": "cfp"}]},
        {"phrases": ["("]},
    ],
)
def test_damaged_rules_are_refused(rules):
    with pytest.raises(RecipeError):
        Cleaner(CleanSettings(), rules)
