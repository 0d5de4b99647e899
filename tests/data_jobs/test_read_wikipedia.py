"""Articles of a Wikipedia dump become plain text; what is no article is rejected by its reason."""

from __future__ import annotations

import bz2
import gzip
from xml.sax.saxutils import escape

import pytest

from data_jobs.read.documents import Document, Piece, ReadOptions, Reject
from data_jobs.read.places import Place
from data_jobs.read.read_wikipedia import borders, read_wikipedia
from data_jobs.read.wikitext import lighter, plain_text

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="gn">
  <siteinfo>
    <sitename>Vikipetã</sitename>
    <dbname>gnwiki</dbname>
    <base>https://gn.wikipedia.org/wiki/Kuatia_%C3%91epyr%C5%A9</base>
    <generator>MediaWiki 1.43</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Ta'ãnga</namespace>
      <namespace key="14" case="first-letter">Ñemohenda</namespace>
    </namespaces>
  </siteinfo>
"""
MARKUP = """{{Info|nome=X|mapa={{mapa|a}}}}
'''Machado de Assis''' ({{IPA|x}}; [[Rio de Janeiro]], 1839) foi um [[escritor|autor]]<ref
name="a">uma [[nota]]</ref><ref name="b" /> brasileiro&nbsp;&amp; leitor.
[[Ta'ãnga:foto.jpg|thumb|legenda com [[ligação]]]]
== Vida ==
Viveu {{lang|fr|''chez lui''}} no [http://rio.example Rio].<!-- nota -->
* romance
* conto

{| class="wikitable"
! ano !! obra
|-
| 1881 || Memórias
|}
=== Vazia ===
== Ver também ==
{{referências}}
[[Ñemohenda:Escritores]]
"""
PLAIN = """Machado de Assis (Rio de Janeiro, 1839) foi um autor brasileiro & leitor.

Vida

Viveu chez lui no Rio.
romance
conto"""


def page(number: int, markup: str = "", title: str = "", ns: int = 0, redirect: str = "") -> str:
    title = title or f"Página {number}"
    moved = f'    <redirect title="{redirect}" />\n' if redirect else ""
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{ns}</ns>\n    <id>{number}</id>\n"
        f"{moved}    <revision>\n      <id>9</id>\n      <model>wikitext</model>\n"
        f'      <text xml:space="preserve">{escape(markup or f"Texto {number}.")}</text>\n'
        "    </revision>\n  </page>\n"
    )


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + "</mediawiki>\n").encode()


@pytest.fixture
def read(tmp_path):
    def run(data: bytes, **piece):
        path = tmp_path / "gnwiki-pages-articles.xml"
        path.write_bytes(data)
        return list(read_wikipedia(Piece(Place(str(path)), "wikipedia", **piece), ReadOptions()))

    return run


def texts(found) -> list[str]:
    return [one.text for one in found if isinstance(one, Document)]


def reasons(found) -> list[tuple[int, str]]:
    return [(one.position, one.reason) for one in found if isinstance(one, Reject)]


def test_an_article_has_text_title_id_and_address(read):
    (found,) = read(dump(page(7, MARKUP, "Machado de Assis & Cia")))
    assert found.text == PLAIN
    assert (found.name, found.fields) == ("7", {"title": "Machado de Assis & Cia"})
    assert found.url == "https://gn.wikipedia.org/wiki/Machado_de_Assis_%26_Cia"
    assert dump(page(7, MARKUP, "Machado de Assis & Cia"))[found.offset :].startswith(b"<page>")


def test_only_articles_are_read_and_the_others_are_counted_by_reason(read):
    found = read(
        dump(
            page(1),
            page(2, ns=10),
            page(3, "#REDIRECIONAMENTO [[Página 1]]", redirect="Página 1"),
            page(4, "#REDIRECT [[Página 1]]"),
            page(5, " "),
            page(6).replace("<model>wikitext", "<model>javascript"),
            page(7),
        )
    )
    assert texts(found) == ["Texto 1.", "Texto 7."]
    assert reasons(found) == [
        (1, "other-namespace"),
        (2, "redirect"),
        (3, "redirect"),
        (4, "empty"),
        (5, "other-model"),
    ]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_dumps_are_read(read, pack):
    assert texts(read(pack(dump(page(1), page(2))))) == ["Texto 1.", "Texto 2."]


def test_all_streams_of_a_multistream_dump_are_read(read):
    parts = [HEAD, page(1) + page(2), page(3), "</mediawiki>\n"]
    found = read(b"".join(bz2.compress(part.encode()) for part in parts))
    assert (texts(found), reasons(found)) == (["Texto 1.", "Texto 2.", "Texto 3."], [])


@pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress])
def test_a_truncated_dump_keeps_what_was_read(read, pack):
    pages = [page(number, f"Texto {number * 977}. " * 40) for number in range(500)]
    data = pack(dump(*pages)) if pack is not bz2.compress else b"".join(map(bz2.compress, [
        HEAD.encode(), *(p.encode() for p in pages)
    ]))  # fmt: skip
    found = read(data[: len(data) * 2 // 3])
    assert len(texts(found)) > 150
    assert [why for _, why in reasons(found)] == ["truncated"]


def test_a_dump_cut_between_two_pages_is_truncated(read):
    found = read(dump(page(1)).replace(b"</mediawiki>\n", b""))
    assert (texts(found), reasons(found)) == (["Texto 1."], [(1, "truncated")])


def test_a_bad_byte_costs_one_page(read):
    found = read(dump(page(1), page(2), page(3)).replace(b"Texto 2", b"Texto \xff"))
    assert (texts(found), reasons(found)) == (["Texto 1.", "Texto 3."], [(1, "bad-xml")])


def test_a_page_without_its_end_costs_no_other(read):
    cut = page(2).replace("  </page>\n", "").replace("</revision>", "")
    found = read(dump(page(1), cut, page(3)))
    assert (texts(found), reasons(found)) == (["Texto 1.", "Texto 3."], [(1, "bad-xml")])


def test_a_huge_page_is_passed_over(read, monkeypatch):
    monkeypatch.setattr("data_jobs.read.read_wikipedia.PAGE_BYTES", 100_000)
    monkeypatch.setattr("data_jobs.read.streams.BLOCK", 10_000)
    found = read(dump(page(1), page(2, "palavra " * 100_000), page(3)))
    assert (texts(found), reasons(found)) == (["Texto 1.", "Texto 3."], [(1, "too-long")])


def test_entities_of_the_document_are_not_known(read, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("segredo")
    bomb = (
        f'<!DOCTYPE mediawiki [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">'
        f'<!ENTITY x SYSTEM "file://{secret}">]>\n'
    )
    body = HEAD + page(1).replace("Texto 1.", "&b;") + page(2).replace("Texto 2.", "&x;") + page(3)
    found = read((bomb + body + "</mediawiki>").encode())
    assert texts(found) == ["Texto 3."]
    assert reasons(found) == [(0, "bad-xml"), (1, "bad-xml")]


def test_another_kind_of_xml_is_named(read):
    (found,) = read(b"<rss><page>x</page></rss>")[-1:]
    assert (found.reason, found.snippet) == ("unreadable", "not a MediaWiki dump")


@pytest.mark.parametrize("every", [500, 3000])
def test_pieces_give_the_pages_of_the_whole_dump(read, tmp_path, every):
    data = dump(*(page(number, f"Texto {number}. " * number) for number in range(1, 30)))
    whole = read(data)
    piece = Piece(Place(str(tmp_path / "gnwiki-pages-articles.xml")), "wikipedia")
    cuts = [(0, 0), *borders(piece, ReadOptions(), every)]
    ends = [cut[0] for cut in cuts[1:]] + [None]
    parts = [
        read(data, start=start, end=end, first=first)
        for (start, first), end in zip(cuts, ends, strict=True)
    ]
    assert len(parts) > 2 and [one for part in parts for one in part] == whole


def test_the_fast_way_and_the_parser_agree():
    markup = MARKUP.replace("<ref\n", "<ref ")
    slow = markup + "<nowiki></nowiki>"  # sends the whole page to the parser
    assert plain_text(slow) == plain_text(markup)
    assert (lighter(slow), len(lighter(markup)) < 300) == (slow, True)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a <nowiki>[[b]] {{c}}</nowiki> d", "a [[b]] {{c}} d"),
        ("ha'e '''mba'e''' ''porã''", "ha'e mba'e porã"),
        ("d''''água'''", "d'água"),
        ("[[:Category:Foo]] e [[Rio (cidade)|Rio]]", "Category:Foo e Rio"),
        ("a<br>b<br />c", "a\nb\nc"),
        ("<poem>um\ndois</poem>", "um\ndois"),
        ("{{aberto [[a]]", "{{aberto a"),
        ("{{abbr|[[Caso genitivo|gen.]] x|y}} fim", "gen. x fim"),
        ("no Rio {{nota}}. Fim", "no Rio. Fim"),
        ("{| sem fim\n| a", "{| sem fim\n| a"),
        ("__NOTOC__\n[[en:Title]]\ntexto", "texto"),
    ],
)
def test_markup_becomes_plain_text(markup, text):
    assert plain_text(markup) == text


@pytest.mark.parametrize("opening", ["{{a|", "[[a|", "<ref ", "<b>", "{|\n", "[http://a "])
def test_marks_without_end_are_refused_not_tried(read, opening):
    found = read(dump(page(1, opening * 20_000), page(2)))
    assert (texts(found), reasons(found)) == (["Texto 2."], [(0, "bad-wikitext")])


def test_a_comment_without_end_goes_to_the_end_of_the_page():
    assert plain_text("a<!--" + "<!-- " * 50_000) == "a"
