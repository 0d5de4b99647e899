"""Lines that are no part of the text: page headers, one line over and over, banners.

In: a text and the language's phrases (`phrases`, `navigation`, `page_marks` of clean.yaml). Out:
the text without them, and how many lines went. A line that returns is a page header only where it
interrupts a sentence, or where a page mark of the language stands in it: a refrain, a list and code
return too, and stay.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mutirao.core.errors import RecipeError

MIN_TIMES = 4  # a page header stands on this many pages
# The same one to MAX_PERIOD lines, one after another this often and this long: one is enough. Less
# is a refrain, or the cells of a table.
MIN_RUN, MIN_RUN_LETTERS = 10, 16
MAX_PERIOD = 4
MIN_LETTERS = 8  # of a line or a block of lines that is taken out
MAX_HEADER = 200  # characters of one line
MAX_BLOCK = 8  # lines of a page header
INTERRUPTS = 0.5  # of its places, where a sentence stops before it and goes on after it
MIN_BLANKS = 5  # in a line of running text; cells of a table and code have fewer
MIN_ITEMS = 3  # of a navigation line
CODE = re.compile(r"[{};]|=>|^\s*(?://|#|/\*|\*)|\w\(|</?\w")
SEPARATORS = frozenset("|·•»›>/\t")
SEPARATOR = re.compile(r"\s*[|·•»›>/]\s*|\s{3,}|\t")


@dataclass(frozen=True)
class Boilerplate:
    phrases: re.Pattern[str] | None = None  # a line that is one or several of these goes
    navigation: re.Pattern[str] | None = None  # a line of MIN_ITEMS of these goes
    page_marks: re.Pattern[str] | None = None  # marks a returning line as a page header
    sign: str = ""  # found in each text that has to be searched for phrases and navigation

    @classmethod
    def of(cls, rules: dict[str, Any]) -> Boilerplate:
        lists = {name: rules.get(name) or [] for name in ("phrases", "navigation", "page_marks")}
        compiled = {name: _any_of(patterns, name) for name, patterns in lists.items()}
        signs = rules.get("line_signs", "")
        return cls(**compiled, sign=f"(?i:{signs})" if signs else "")

    def without_phrases(self, text: str, counts: Counter[str]) -> str:
        """Lines that are nothing but stock phrases go."""
        lines = text.split("\n")
        return _counted(text, lines, [line for line in lines if not self._is_stock(line)], counts)

    def without_returning(self, text: str, counts: Counter[str]) -> str:
        """Page headers go; of one line over and over, one stays."""
        lines = text.split("\n")
        keys = _keys(text, lines)
        times = Counter(keys)
        del times[""]
        most = max(times.values(), default=0)
        if most < MIN_TIMES:
            return text
        kept = self._without_headers(lines, keys, times)
        if most >= MIN_RUN:
            kept = _without_runs(kept)
        return _counted(text, lines, kept, counts)

    def _is_stock(self, line: str) -> bool:
        line = line.strip()
        if not line or len(line) > 4 * MAX_HEADER:
            return False
        if self.phrases and self.phrases.match(line):
            rest = line
            while rest and (found := self.phrases.match(rest)):
                rest = rest[found.end() :].lstrip(" .!|·•-–—")
            return not rest
        if self.navigation is None:
            return False
        if not SEPARATORS.isdisjoint(line) or "   " in line:
            items = [item for item in SEPARATOR.split(line) if item]
        else:
            return False
        return len(items) >= MIN_ITEMS and all(map(self.navigation.fullmatch, items))

    def _without_headers(self, lines: list[str], keys: list[str], times: Counter[str]) -> list[str]:
        """Blocks of lines that return on each page and interrupt the text there."""
        often = {key for key, count in times.items() if count >= MIN_TIMES}
        returning = [i for i, key in enumerate(keys) if key in often]
        places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for start, end in _stretches(returning):
            places.setdefault(tuple(keys[start:end]), []).append((start, end))
        gone: set[int] = set()
        for block, where in places.items():
            if len(where) >= MIN_TIMES and self._is_header(block, where, lines):
                gone.update(i for start, end in where for i in range(start, end))
        return [line for i, line in enumerate(lines) if i not in gone] if gone else lines

    def _is_header(
        self, block: tuple[str, ...], where: list[tuple[int, int]], lines: list[str]
    ) -> bool:
        first = lines[where[0][0] : where[0][1]]
        if len(block) > MAX_BLOCK or _letters(first) < MIN_LETTERS or any(map(CODE.search, first)):
            return False
        if self.page_marks and any(map(self.page_marks.search, first)):
            return True
        cut = sum(_is_cut(lines, start, end) for start, end in where)
        return cut >= INTERRUPTS * len(where)


def _is_cut(lines: list[str], start: int, end: int) -> bool:
    """Running text stops before `start` inside a sentence and goes on at `end`."""
    if start == 0 or end >= len(lines):
        return False
    before, after = lines[start - 1].rstrip(), lines[end]
    prose = before.count(" ") >= MIN_BLANKS and after.count(" ") >= MIN_BLANKS
    return prose and before[-1:].isalpha() and after[:1].islower()


def _without_runs(lines: list[str]) -> list[str]:
    """One of each run of MIN_RUN equal lines, or of blocks of up to MAX_PERIOD lines."""
    for period in range(1, MAX_PERIOD + 1):
        same = bytes(map(str.__eq__, lines, lines[period:]))
        if b"\x01" * ((MIN_RUN - 1) * period) not in same:
            continue
        out: list[str] = []
        start = 0
        while start < len(lines):
            end = start + period
            while end < len(lines) and lines[end] == lines[end - period]:
                end += 1
            block = lines[start : start + period]
            repeats = (end - start) // period
            if repeats >= MIN_RUN and _letters(block) >= MIN_RUN_LETTERS:
                out += block
                start += repeats * period
            else:
                out.append(lines[start])
                start += 1
        lines = out
    return lines


def _counted(text: str, lines: list[str], kept: list[str], counts: Counter[str]) -> str:
    counts["boilerplate_lines"] += len(lines) - len(kept)
    return text if len(kept) == len(lines) else "\n".join(kept)


def _letters(lines: list[str]) -> int:
    return sum(c.isalpha() for line in lines for c in line)


def _stretches(places: list[int]) -> list[tuple[int, int]]:
    """[start, end) of the runs of consecutive numbers."""
    edges = [i for i, (a, b) in enumerate(pairwise(places), 1) if b != a + 1]
    return [(places[a], places[b - 1] + 1) for a, b in pairwise([0, *edges, len(places)]) if places]


def _keys(text: str, lines: list[str]) -> list[str]:
    """Lines as they are compared: digits and outer blanks do not count; '' is no header."""
    bare = text.encode().translate(None, b"0123456789").decode().split("\n")
    return [
        "" if len(line) > MAX_HEADER else key.strip() or (line.strip() and "0")
        for key, line in zip(bare, lines, strict=True)
    ]


def _any_of(patterns: list[str], where: str) -> re.Pattern[str] | None:
    try:
        return re.compile("|".join(f"(?:{p})" for p in patterns), re.I) if patterns else None
    except re.error as error:
        raise RecipeError(f"Damaged pattern: {error}", f"{where} of clean.yaml") from error
