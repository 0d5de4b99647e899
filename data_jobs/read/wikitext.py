"""Plain text of a wiki page's markup (parsed by mwparserfromhell).

In: wikitext and the wiki's own names for files and categories. Out: paragraphs, headings and list
items as lines. Left out: templates, tables, references, pictures, categories, formulas, comments,
and headings under which nothing remains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import mwparserfromhell
from mwparserfromhell import nodes

# Names that hold in every wiki, and Portuguese and Spanish ones that dumps do not list.
EVERYWHERE = {"file", "image", "media", "category", "ficheiro", "imagem", "arquivo", "archivo"}
NESTING = 40  # templates inside templates; real pages have a dozen
INLINE_CHARACTERS = 2_000  # of a template that shows text in a sentence
MAX_UNCLOSED = 100  # the parser's time grows with unclosed marks times length
PAIRS = (("{{", "}}"), ("[[", "]]"), ("{|", "|}"), ("[http", "]"), ("<", ">"))
DROPPED_TAGS = {
    "ref", "references", "table", "gallery", "math", "chem", "ce", "graph", "hiero", "imagemap",
    "inputbox", "score", "templatedata", "timeline", "categorytree", "section", "style", "script",
    "maplink", "mapframe", "indicator",
}  # fmt: skip
BREAKS = {"br": "\n", "hr": "\n\n", "li": "", "dd": "", "dt": ""}
# Templates around a word of the sentence -> which parameter is the word.
TEXT_TEMPLATES = {"lang": 2, "nowrap": 1, "nobr": 1, "small": 1, "abbr": 1, "abreviar": 1}

COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
REFERENCE = re.compile(r"<ref\b[^<>/]*(?:/>|>[^<]*</ref\s*>)", re.I)
TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")  # the innermost ones
TABLE = re.compile(r"^[ :]*\{\|(?:(?!\{\|).)*?^[ \t]*\|\}", re.S | re.M)
LINK = re.compile(r"\[\[([^\[\]|:<>{}\n]+)(?:\|([^\[\]|<>{}\n]+))?\]\]")  # to an article
QUOTES = re.compile("'{2,}")  # italics and bold; four are an apostrophe before bold
OPENED_TAG = re.compile(r"<(?!br\b|hr\b|li\b|d[dt]\b|t[drh]\b|p\b|wbr\b)[a-z][^<>/]*>", re.I)
LANGUAGE_LINK = re.compile(r"^\[\[[a-z]{2,3}(-[a-z]+)*:[^\]|\n]+\]\][ \t]*$", re.M)
MAGIC_WORD = re.compile(r"__[A-Z]{3,}__")
# What a dropped template leaves: "( ; 1839)" -> "(1839)", "()" -> "", "Rio ." -> "Rio."
OPEN_DEBRIS = re.compile(r"\(\s*(?:[;,:]\s*)+")
SPACE_BEFORE = re.compile(r"(?<=\S)[ \t]+([.,)])(?=\s|$)")
BETWEEN_PARTS = re.compile(r"\|(?![^\[\]]*\]\])")  # of a template, not of a link in it
EMPTY_BRACKETS = re.compile(r"[ \t]?(?:\(\s*\)|\[\s*\])")
SPACES = re.compile(r"[ \t\u00a0]+")
BLANK = re.compile(r"\n{3,}")


def plain_text(markup: str, dropped_links: frozenset[str] | set[str] = frozenset()) -> str:
    """dropped_links: the wiki's names of the file and category namespaces, in lower case.

    Raises ValueError (too many marks that are never closed), ParserError, RecursionError.
    """
    markup = lighter(markup)
    if (count := unclosed(markup)) > MAX_UNCLOSED:
        raise ValueError(f"{count} marks are never closed")
    code = mwparserfromhell.parse(markup)
    sections: list[tuple[int, str, list[str]]] = [(1, "", [])]
    inside = _Text(EVERYWHERE | dropped_links)
    for node in code.nodes:
        if isinstance(node, nodes.Heading):
            sections.append((node.level, inside.of(node.title), []))
        else:
            sections[-1][2].append(inside.of_node(node))
    return "\n\n".join(_filled((level, title, "".join(b)) for level, title, b in sections))


def lighter(markup: str) -> str:
    """The markup without most of what would be dropped or has no effect on plain text: regular
    expressions find the simple cases at 20 times the speed of the parser, which gets the rest."""
    markup = LANGUAGE_LINK.sub("", MAGIC_WORD.sub("", markup))
    if "<nowiki" in markup or "<pre" in markup:  # braces may be text there
        return markup
    markup = COMMENT.sub("", markup)
    markup = _innermost_first(TEMPLATE, _template_text, markup)
    markup = _innermost_first(TABLE, "", REFERENCE.sub("", markup))
    markup = LINK.sub(lambda found: found[2] or found[1], markup)
    return QUOTES.sub(lambda found: "'" if len(found[0]) == 4 else "", markup)


def _innermost_first(pattern: re.Pattern[str], by: Any, markup: str) -> str:
    for _ in range(NESTING):
        markup, count = pattern.subn(by, markup)
        if not count:
            break
    return markup


def unclosed(markup: str) -> int:
    """How many templates, links, tables and tags are opened and never closed."""
    count = sum(max(0, markup.count(a) - markup.count(b)) for a, b in PAIRS)
    return count + max(0, len(OPENED_TAG.findall(markup)) - markup.count("</"))


def _template_text(found: re.Match[str]) -> str:
    """What a template shows in the sentence; most show nothing."""
    name, _, rest = found[1].partition("|")
    name = name.strip().lower()
    if name.startswith("formatnum:"):
        return name.removeprefix("formatnum:")
    number = TEXT_TEMPLATES.get(name)
    if not number or len(rest) > INLINE_CHARACTERS:
        return ""
    parts = [part for part in BETWEEN_PARTS.split(rest) if "=" not in part]
    return parts[number - 1] if len(parts) >= number else ""


def _filled(sections: Iterable[tuple[int, str, str]]) -> list[str]:
    """Titles and bodies, without the titles that head nothing."""
    kept: list[str] = []
    below = 0  # level of the section that was kept last, which follows this one in the page
    for level, title, markup in reversed(list(sections)):
        body, heading = _tidy(markup), _tidy(title)
        if body or below > level:
            kept += [body, heading]
            below = level
    return [part for part in reversed(kept) if part]


class _Text:
    """The text of parsed nodes; `links` are the prefixes of links that are no text."""

    def __init__(self, links: set[str] | frozenset[str]):
        self.links = links
        self.of_kind: dict[type, Callable[[Any], str]] = {
            nodes.Text: lambda node: node.value,
            nodes.Wikilink: self._link,
            nodes.ExternalLink: lambda node: self.of(node.title) if node.title else "",
            nodes.HTMLEntity: lambda node: node.normalize(),
            nodes.Tag: self._tag,
            nodes.Template: self._template,
            nodes.Heading: lambda node: f"\n{self.of(node.title)}\n",
        }

    def of(self, code: Any) -> str:
        return "".join(map(self.of_node, code.nodes)) if code is not None else ""

    def of_node(self, node: Any) -> str:
        kind = self.of_kind.get(type(node))
        return kind(node) if kind else ""

    def _link(self, node: Any) -> str:
        title = str(node.title).strip()
        prefix, colon, _ = title.partition(":")
        if colon and prefix.strip().lower() in self.links:
            return ""
        return self.of(node.text).strip() or self.of(node.title).strip().removeprefix(":")

    def _tag(self, node: Any) -> str:
        name = str(node.tag).strip().lower()
        if name in DROPPED_TAGS:
            return ""
        return BREAKS[name] if name in BREAKS else self.of(node.contents)

    def _template(self, node: Any) -> str:
        name = str(node.name).strip().lower()
        number = str(TEXT_TEMPLATES.get(name, ""))
        return self.of(node.get(number).value) if number and node.has(number) else ""


def _tidy(text: str) -> str:
    text = EMPTY_BRACKETS.sub("", OPEN_DEBRIS.sub("(", text))
    lines = (SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return SPACE_BEFORE.sub(r"\1", BLANK.sub("\n\n", "\n".join(lines))).strip()
