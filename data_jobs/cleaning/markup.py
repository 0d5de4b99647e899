"""Markup inside text that is not a page of a web archive: dumps, feeds, fields of a table.

In: a text. Out: its words without tags and entities, if it is markup; a text that only talks about
markup (a tutorial, a manual, code) comes back as it is. What tells them apart, in this order:
a page opens with its doctype or <html> and little follows its end; a fragment opens and ends with
tags of prose, has no code fence and no tag that HTML does not know; tags inside prose are closed,
known, and the prose does not speak of tags; an entity is a letter of a word (`n&atilde;o`).
"""

from __future__ import annotations

import html as entities
import re
from collections import Counter

from data_jobs.cleaning.extract import fragment_text, page_text, without_tags

SIGN = "</[A-Za-z]|<[bB][rR][ />]|<![dD][oO][cC]|<[hH][tT][mM][lL]|&[A-Za-z]{1,8}[0-9]?;|&#[0-9xX]"

PAGE = re.compile(r"\s*(?:<\?xml[^<>]*>\s*)?(?:<!doctype\s+html|<(?:html|head|body)[\s>])", re.I)
PAGE_END = re.compile(r"</(?:html|body)\s*>", re.I)
AFTER_PAGE = 0.1  # of the characters may follow the end of a page: more is a text with a page in it


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


INLINE = _set("a abbr b big br center cite em font i p q s small span strike strong sub sup tt u")
BLOCKS = _set("article blockquote div dl h1 h2 h3 h4 h5 h6 header main ol p section table ul")
ALONE = _set("br hr img wbr p li col meta link source")  # need no closing tag
OTHER = _set(
    "acronym address aside body caption code colgroup dd del dfn dt fieldset figcaption figure "
    "footer head html iframe ins kbd label mark nav pre samp script style tbody td tfoot th thead "
    "time title tr var video"
)
KNOWN = INLINE | BLOCKS | ALONE | OTHER
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)((?:\s[^<>]*)?)/?>")
CODE = re.compile(r"```|~~~|`<|className=|=\{|<\?php|<%|\{\{|\{%")
SPEAKS_OF_TAGS = re.compile(r"\b(?:tags?|html5?|xml|jsx|css|markup|javascript|etiquetas?)\b", re.I)
EDGE = 40  # characters that may stand before the first or after the last tag of a fragment
MIN_TAGS = 4

LETTER_ENTITY = re.compile(
    r"(?<=[^\W\d_])&(?:[A-Za-z]{1,2}(?:grave|acute|circ|tilde|uml|ring|cedil|caron|slash|lig)|"
    r"#(?:19[2-9]|2[0-9]{2}|[3-9][0-9]{2})|#[xX](?:[cCdDeEfF][0-9a-fA-F]|[12][0-9a-fA-F]{2}));"
    r"|&(?:[A-Za-z](?:grave|acute|circ|tilde|uml|ring|cedil|caron));(?=[^\W\d_])"
)
KEPT_ENTITY = re.compile(r"&(?:lt|gt|#0*60|#0*62|#[xX]0*3[cCeE]);?")
ENTITY = re.compile(r"&(?:[A-Za-z]{1,8}[0-9]{0,2}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")


def without_markup(text: str, engine: str, counts: Counter[str]) -> str:
    """The text of markup by the extraction `engine`; any other text unchanged."""
    new = _text_of(text, engine)
    counts["html"] += new != text
    return new


def _text_of(text: str, engine: str) -> str:
    if is_page(text):
        return page_text(text, engine)
    tags = [(bool(t[1]), t[2].lower(), t) for t in TAG.finditer(text)] if "<" in text else []
    if tags and not CODE.search(text) and all(name in KNOWN for _, name, _ in tags):
        if _is_fragment(text, tags):
            return fragment_text(text)
        if _is_marked_up_prose(text, tags):
            return without_tags(text)
    if LETTER_ENTITY.search(text):
        return ENTITY.sub(_read, text)
    return text


def is_page(text: str) -> bool:
    if not PAGE.match(text):
        return False
    ends = [found.end() for found in PAGE_END.finditer(text)]
    return not ends or len(text) - ends[-1] <= AFTER_PAGE * len(text)


def _is_fragment(text: str, tags: list[tuple[bool, str, re.Match[str]]]) -> bool:
    """Prose in block tags from end to end."""
    inside = tags[0][2].start() <= EDGE and len(text) - tags[-1][2].end() <= EDGE
    blocks = sum(closing and name in BLOCKS for closing, name, _ in tags)
    return inside and len(tags) >= MIN_TAGS and blocks > 0


def _is_marked_up_prose(text: str, tags: list[tuple[bool, str, re.Match[str]]]) -> bool:
    """Tags of words and lines alone, each closed, and the text does not speak of them."""
    if not all(name in INLINE for _, name, _ in tags):
        return False
    balance: Counter[str] = Counter()
    for closing, name, _ in tags:
        if name not in ALONE:
            balance[name] += -1 if closing else 1
            if balance[name] < 0:
                return False
    enough = len(tags) >= MIN_TAGS and not any(balance.values())
    return enough and not SPEAKS_OF_TAGS.search(TAG.sub(" ", text))


def _read(found: re.Match[str]) -> str:
    """The character of an entity; `&lt;` stays, or code would turn into tags."""
    entity = found.group()
    return entity if KEPT_ENTITY.fullmatch(entity) else entities.unescape(entity)
