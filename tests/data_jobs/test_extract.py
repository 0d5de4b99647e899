"""HTML to main text: what stays, what goes, and markup that hangs or breaks other extractors."""

from __future__ import annotations

import sys

import pytest

from data_jobs.cleaning.extract import fragment_text, page_text
from mutirao.core.errors import EnvironmentProblem

PARAGRAPHS = [
    "A festa do divino reuniu ontem milhares de pessoas na praça central da cidade, como faz "
    "desde o século dezoito, com cavalhadas, missas e comida farta para quem chegasse.",
    "Os organizadores contam que a preparação começa em março, quando as famílias se dividem "
    "entre a cozinha, os bordados e os ensaios da banda de música que abre a procissão.",
    "Neste ano, pela primeira vez, as crianças da escola rural fizeram as bandeiras, pintadas à "
    "mão com tintas de urucum e jenipapo que elas mesmas prepararam no quintal.",
]
PAGE = f"""<!DOCTYPE html><html><head><title>Festa</title><style>p {{ color: red }}</style></head>
<body><header><nav><ul><li><a href="/">Início</a></li><li><a href="/sobre">Sobre</a></li></ul></nav>
</header><div id="cookie-banner" class="cookie-consent"><p>Este site usa cookies.</p>
<button>Aceitar todos</button></div><main><article><h1>Festa do divino</h1>
{"".join(f"<p>{p}</p>" for p in PARAGRAPHS)}</article></main>
<footer>Todos os direitos reservados</footer><script>var a = "<p>não</p>";</script></body></html>"""


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
def test_main_text_stays_and_the_frame_goes(engine):
    text = page_text(PAGE, engine)
    assert all(p in text for p in PARAGRAPHS)
    assert "Início" not in text and "Aceitar todos" not in text and "var a" not in text
    assert "color" not in text


def test_paragraphs_are_apart():
    assert "\n\n".join(PARAGRAPHS) in page_text(PAGE, "resiliparse")


def test_a_page_that_is_one_list_is_not_lost():
    items = "".join(f"<li>{p}</li>" for p in PARAGRAPHS)
    assert all(p in page_text(f"<html><body><ul>{items}</ul></body></html>") for p in PARAGRAPHS)


def test_a_fragment_keeps_all_its_text():
    assert fragment_text("<p>Um</p><nav>Dois</nav><p>Tr&ecirc;s</p>").split() == [
        "Um",
        "Dois",
        "Três",
    ]


HOSTILE = {
    "a colspan beyond memory": "<table><tr><td colspan=9007199254740991>BOM</td></tr></table>",
    "a rowspan beyond memory": "<table><tr><td rowspan='99999999999'>BOM</td></tr></table>",
    "100,000 nested blocks": "<div>" * 100_000 + "BOM" + "</div>" * 100_000,
    "100,000 open bold tags": "<p><b>" * 100_000 + "BOM",
    "nested tables": "<table><tr><td>" * 50_000 + "BOM",
    "nested lists": "<ul><li>" * 50_000 + "BOM",
    "cells without end": "<table>" + "<tr><td>" * 50_000 + "BOM",
    "20,000 attributes": "<p " + " ".join(f"a{i}=b" for i in range(20_000)) + ">BOM</p>",
    "20,000 bare attributes": "<p " + " ".join(f"a{i}" for i in range(20_000)) + ">BOM</p>",
    "comments without end": "BOM" + "<!-- " * 50_000,
    "scripts without end": "BOM" + "<script>" * 50_000,
    "a lone surrogate": "<p>BOM \ud800</p>",
    "tags cut off": "BOM" + "<a " * 50_000,
    "a huge page": "<p>Um parágrafo de texto.</p>" * 100_000 + "<p>BOM</p>",
}


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(30)
def test_hostile_markup_gives_its_text_soon(name, engine):
    assert "BOM" in page_text(f"<html><body>{HOSTILE[name]}</body></html>", engine)


def test_no_markup_is_no_error():
    assert page_text("") == ""
    assert page_text("só texto") == "só texto"


def test_a_missing_trafilatura_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(EnvironmentProblem) as caught:
        page_text(PAGE, "trafilatura")
    assert "mutirao[html]" in caught.value.hint
