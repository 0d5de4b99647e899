"""HTML to the text of its main content: navigation, banners and forms out, paragraphs kept apart.

In: markup as a string, the engine's name. Out: text, best effort and quick whatever the markup is:
resiliparse needs 21 s for 30,000 nested tags and 2 s for 20,000 attributes (measured, 2.0.1), and
trafilatura may not come back at all (its issues 657, 704), so a page is looked at before it is
parsed.
"""

from __future__ import annotations

import html as entities
import re
from collections import Counter

import numpy as np
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from data_jobs.cleaning.repair import paired_surrogates
from data_jobs.kernels import numba
from mutirao.core.errors import EnvironmentProblem

MAX_PAGE = (
    20_000_000  # characters (or four times as many bytes); the rest of a longer page is not read
)
MAX_DEPTH, MAX_ATTRIBUTES = 500, 4_000  # beyond: tags are cut out without parsing
MAX_TRAFILATURA, MAX_TRAFILATURA_TAGS = 1_000_000, 20_000  # bytes, tags; beyond: resiliparse
THIN = 200  # characters of main text under which the whole page's text is asked for
THIN_SHARE = 0.1  # of it: then the main text is a mistake (a page that is one list, say)

HIDDEN = re.compile(
    r"(?is)<(script|style|head|noscript|template|svg)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)"
)
BLOCK = re.compile(
    r"(?i)</?(?:p|div|br|hr|h[1-6]|li|ul|ol|dl|dt|dd|tr|table|section|article|blockquote|pre)\b"
    r"[^<>]*>"
)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<![^<>]*>")
SPAN = re.compile(r"(?i)((?:col|row)span\s*=\s*[\"']?\s*)\d{4,}")
BLANKS = re.compile(r"[ \t]*\n\s*\n[ \t]*")


def page_text(html: str | bytes, engine: str = "resiliparse") -> str:
    """The main text of a page (bytes: UTF-8); '' where it has none.

    Raises EnvironmentProblem if `engine` is trafilatura and it is not installed.
    """
    data = _bytes(html)
    if _is_wild(data):
        return without_tags(data.decode("utf-8", "replace"))
    if engine == "trafilatura" and _fits_trafilatura(data):
        return _trafilatura(data.decode("utf-8", "replace")) or _main_text(data)
    return _main_text(data)


def fragment_text(html: str) -> str:
    """The whole text of markup that is no page: the body of a feed entry, a field of a dump."""
    data = _bytes(html)
    if _is_wild(data):
        return without_tags(data.decode("utf-8", "replace"))
    return _all_text(_tree(data))


def _bytes(html: str | bytes) -> bytes:
    if isinstance(html, str):
        html = paired_surrogates(
            html[:MAX_PAGE], Counter()
        ).encode()  # the parsers refuse lone ones
    return html[: 4 * MAX_PAGE]


def _is_wild(data: bytes) -> bool:
    depth, attributes = shape(np.frombuffer(data, np.uint8))
    return depth > MAX_DEPTH or attributes > MAX_ATTRIBUTES


def _tree(data: bytes) -> HTMLTree:
    return HTMLTree.parse_from_bytes(data, "utf-8", errors="replace")


def without_tags(html: str) -> str:
    """Tags cut out, blocks apart by line ends, entities read: in time linear in the length."""
    text = BLOCK.sub("\n", HIDDEN.sub(" ", html))
    return BLANKS.sub("\n\n", entities.unescape(TAG.sub("", text))).strip()


def _main_text(data: bytes) -> str:
    tree = _tree(data)
    main = extract_plain_text(tree, main_content=True, preserve_formatting=True)
    if len(main) >= THIN:
        return main
    whole = _all_text(tree)
    return whole if len(main) < THIN_SHARE * len(whole) else main


def _all_text(tree: HTMLTree) -> str:
    return extract_plain_text(tree, main_content=False, preserve_formatting=True)


def _fits_trafilatura(data: bytes) -> bool:
    return len(data) <= MAX_TRAFILATURA and data.count(b"<") <= MAX_TRAFILATURA_TAGS


def _trafilatura(html: str) -> str:
    try:
        from trafilatura import extract
    except ImportError as error:
        raise EnvironmentProblem(
            "clean.html_engine: trafilatura is not installed",
            str(error),
            "pip install 'mutirao[html]', or take the built-in resiliparse.",
            "missing-package",
        ) from error
    html = SPAN.sub(r"\g<1>1", html)  # it makes that many cells
    return extract(html, include_comments=False, fast=True) or ""


LESS, GREATER, SLASH, EQUALS, BLANK, CASE = 0x3C, 0x3E, 0x2F, 0x3D, 0x20, 0x20
# Tags that need no end: they cannot be told from nested ones, and the parser closes them itself.
NEED_NO_END = "p li td tr th dt dd br hr img input link meta option wbr col source area"
UNCLOSED = tuple(sum(ord(c) << (8 * i) for i, c in enumerate(name)) for name in NEED_NO_END.split())


@numba.njit(cache=True, nogil=True)
def shape(data):
    """(most tags open at once, most '=' and blanks in one tag) of UTF-8 markup."""
    depth = deepest = most = i = 0
    end = data.shape[0]
    while i < end:
        if data[i] != LESS or i + 1 >= end:
            i += 1
            continue
        closing = data[i + 1] == SLASH
        i += 1 + closing
        name, length = np.uint64(0), 0
        while i < end and (97 <= data[i] | CASE <= 122 or 48 <= data[i] <= 57):
            if length < 8:
                name |= np.uint64(data[i] | CASE) << np.uint64(8 * length)
            length += 1
            i += 1
        if length == 0:
            continue
        attributes = 0
        while i < end and data[i] != GREATER and data[i] != LESS:
            attributes += data[i] == EQUALS or data[i] <= BLANK
            i += 1
        most = max(most, attributes)
        if closing:
            depth = max(0, depth - (not _unclosed(name)))
        elif not (_unclosed(name) or data[i - 1] == SLASH):
            depth += 1
            deepest = max(deepest, depth)
    return deepest, most


@numba.njit(cache=True, nogil=True, inline="always")
def _unclosed(name):
    for other in UNCLOSED:  # numba has no any() over a generator  # noqa: SIM110
        if name == np.uint64(other):
            return True
    return False
