"""Wikipedia XML dumps as documents: each article's wikitext becomes plain text.

In: `*-pages-articles*.xml`, plain or compressed (a multistream bz2 is one stream of bytes here).
Out: one document an article with url, id and title; a reject for redirects, other namespaces, and
pages that are damaged. The dump is cut at `<page>` before any XML is parsed: markup is escaped
inside a dump, so a bad byte costs one page, and no document type or entity of its own can reach the
parser. Memory: one page of at most PAGE_BYTES, and a block of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from mwparserfromhell.parser import ParserError

from data_jobs.read.documents import Document, Found, Piece, ReadOptions, Reject
from data_jobs.read.streams import BrokenStream, blocks
from data_jobs.read.wikitext import plain_text

PAGE_BYTES = 1 << 24  # MediaWiki itself allows pages of 2 MiB, before `&quot;` and the like
PAGE_TAGS = 100_000  # the tree of a page takes about 100 bytes a tag; an article has 20
HEAD_BYTES = 1 << 20  # <siteinfo> stands in the first of them
OPEN, CLOSE, END = b"<page>", b"</page>", b"</mediawiki>"
REDIRECT = re.compile(r"\s*#\s*\w+\s*:?\s*\[\[")  # in dumps older than <redirect/>
FILE, CATEGORY = "6", "14"  # keys of the namespaces that a dump names in its own language


@dataclass(frozen=True)
class Page:
    """A stretch of the dump from <page> to </page>; `data` is empty where it is too long."""

    number: int
    offset: int
    size: int
    data: bytes


@dataclass(frozen=True)
class Site:
    base: str = ""  # 'https://pt.wikipedia.org/wiki/'
    dropped_links: frozenset[str] = frozenset()


def read_wikipedia(piece: Piece, options: ReadOptions) -> Found:
    """Reasons: redirect, other-namespace, other-model, empty, bad-xml, bad-wikitext, too-long,
    truncated, unreadable. `position` is the page's number in the dump."""
    splitter = _Splitter(piece)
    try:
        beginning = head(piece)
        site = site_of(beginning)
        for page in splitter.pages():
            if piece.end is not None and page.offset >= piece.end:
                return
            if page.number >= piece.resume:
                yield _article(page, site)
    except BrokenStream as broken:
        yield splitter.reject(broken.reason, broken.detail, broken.lost)
        return
    if b"<mediawiki" not in beginning:
        yield splitter.reject("unreadable", "not a MediaWiki dump")
    elif END not in splitter.tail:
        yield splitter.reject("truncated", "the dump ends before </mediawiki>")


def borders(piece: Piece, options: ReadOptions, every: int) -> Iterator[tuple[int, int]]:
    """(offset, position) of the first page that starts `every` bytes or more after the last
    border: where the dump may be cut."""
    last = 0
    try:
        for page in _Splitter(piece).pages():
            if page.offset >= last + every:
                last = page.offset
                yield page.offset, page.number
    except BrokenStream:
        return


def head(piece: Piece) -> bytes:
    """What stands before the first page."""
    found = b""
    for block in blocks(piece.place):
        found += block
        start = found.find(OPEN)
        if start >= 0 or len(found) > HEAD_BYTES:
            return found[: start if start >= 0 else HEAD_BYTES]
    return found


def site_of(data: bytes) -> Site:
    """The wiki's address and its names for files and categories, from <siteinfo>."""
    found = re.search(rb"<siteinfo>.*?</siteinfo>", data, re.S)
    try:
        info = ElementTree.fromstring(found[0].decode("utf-8", "replace")) if found else None
    except ElementTree.ParseError:
        info = None
    if info is None:
        return Site()
    names = {
        (space.text or "").strip().lower()
        for space in info.iter("namespace")
        if space.get("key") in (FILE, CATEGORY)
    }
    base = (info.findtext("base") or "").rpartition("/")[0]
    return Site(f"{base}/" if base else "", frozenset(names))


class _Splitter:
    """Pages of a stream, in order; `tail` is what stood last in it."""

    def __init__(self, piece: Piece):
        self.stream = blocks(piece.place, piece.start)
        self.number, self.offset = piece.first, piece.start  # of the buffer's first byte
        self.buffer = bytearray()
        self.tail = b""
        self.passing = False  # inside a page that was too long

    def pages(self) -> Iterator[Page]:
        for block in self.stream:
            self.buffer += block
            self.tail = (self.tail + block)[-100:]
            yield from self._whole()
            if len(self.buffer) > PAGE_BYTES:
                yield self._page(0, len(self.buffer), b"")
                self.passing = True

    def reject(self, reason: str, detail: str, lost: int = 0) -> Reject:
        """What is left of the stream, which is no whole page, and `lost` bytes behind it."""
        size = lost + (len(self.buffer) if self.buffer.startswith(OPEN) else 0)
        return Reject(self.number, self.offset, size, reason, detail[:200])

    def _whole(self) -> Iterator[Page]:
        """The pages that the buffer holds whole; they and what stands between them leave it."""
        end = self._passed() if self.passing else 0
        while (start := self.buffer.find(OPEN, end)) >= 0:
            close = self.buffer.find(CLOSE, start)
            if close < 0:
                break
            later = self.buffer.rfind(OPEN, start + 1, close)  # then the first has lost its end
            stop = later if later > 0 else close + len(CLOSE)
            yield self._page(start, stop, bytes(self.buffer[start:stop]))
            end = stop
        drop = start if start >= 0 else max(end, len(self.buffer) - len(OPEN) + 1)
        del self.buffer[:drop]
        self.offset += drop

    def _passed(self) -> int:
        close = self.buffer.find(CLOSE)
        self.passing = close < 0
        return max(0, len(self.buffer) - len(CLOSE) + 1) if close < 0 else close + len(CLOSE)

    def _page(self, start: int, stop: int, data: bytes) -> Page:
        self.number += 1
        return Page(self.number - 1, self.offset + start, stop - start, data)


def _article(page: Page, site: Site) -> Document | Reject:
    place = (page.number, page.offset, page.size)
    if not page.data or page.data.count(b"<") > PAGE_TAGS:
        return Reject(*place, "too-long")
    try:
        root = ElementTree.fromstring(page.data)
    except ElementTree.ParseError as error:
        return Reject(*place, "bad-xml", f"{error}: {_shown(page.data)}"[:200])
    title = (root.findtext("title") or "").strip()
    revision = next(reversed(root.findall("revision")), root)  # the newest, where there is history
    markup = revision.findtext("text") or ""
    why = _unwanted(root, revision, markup)
    if why:
        return Reject(*place, why, title[:200])
    try:
        text = plain_text(markup, site.dropped_links)
    except (ValueError, ParserError, RecursionError) as error:
        return Reject(*place, "bad-wikitext", f"{title}: {error}"[:200])
    url = site.base + quote(title.replace(" ", "_"), safe="/:(),'!*~;@$") if site.base else ""
    name, fields = root.findtext("id") or "", {"title": title}
    return Document(*place, text, name, url, fields=fields)


def _unwanted(root: ElementTree.Element, revision: ElementTree.Element, markup: str) -> str:
    if (root.findtext("ns") or "0").strip() != "0":
        return "other-namespace"
    if root.find("redirect") is not None or REDIRECT.match(markup):
        return "redirect"
    if (revision.findtext("model") or "wikitext").strip() != "wikitext":
        return "other-model"
    return "" if markup.strip() else "empty"


def _shown(data: bytes) -> str:
    found = re.search(rb"<title>(.*?)</title>", data[:2000], re.S)
    return (found[1] if found else data[:150]).decode("utf-8", "replace")
