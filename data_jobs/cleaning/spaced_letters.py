"""Letter-spaced text: `t e x t o   d a   p á g i n a` becomes `texto da página`.

In: a text. Out: the text with the letters joined where wider gaps say where words end. Where all
gaps are alike the words are lost: a text that is mostly so is rejected, another left as it is.
"""

from __future__ import annotations

import re
from collections import Counter

REASON = "spaced-letters"
MIN_LETTERS = 12  # in a run; shorter ones are initials, vowels, table headings
MIN_DISTINCT = 6  # different letters: `x o x o x x o` is a game
LETTER_SHARE = 0.6  # of a run's characters: lists of digits are no words
MIN_LOST = 60  # letters whose words are lost: fewer are an alphabet
WHOLE = 0.5  # of the text's characters in such runs: the text as a whole is letter-spaced
MAX_WORD, MAX_LONG = 30, 0.2  # letters; share of letters in longer "words": then the gaps mislead

SIGN = "[^ \n] {1,3}[^ \n] {1,3}[^ \n] {1,3}[^ \n] {1,3}[^ \n] {1,3}[^ \n] {1,3}[^ \n] {1,3}[^ \n] "
RUN = re.compile(r"(?<!\S)\S(?: {1,3}\S(?!\S)){7,}")
SHORT_RUN = re.compile(r"^\S(?: {1,3}\S(?!\S))*$")
LEADERS = re.compile(r"([^\w\s])\1+")  # rows of dots count as one
GAP = re.compile(" {2,3}")


def joined(text: str, counts: Counter[str]) -> tuple[str, str]:
    """(text, reason): reason is REASON where the letters cannot be put together."""
    runs = [run.group() for run in RUN.finditer(text) if _is_spelled(run.group())]
    if not runs:
        return text, ""
    whole = sum(map(len, runs)) > WHOLE * len(text)
    if not any(_has_words(run) for run in runs):
        return text, REASON if whole and sum(map(len, runs)) > 2 * MIN_LOST else ""
    counts["spaced_letters"] += len(runs)
    new = RUN.sub(lambda run: _words(run.group()), text)
    if whole:  # then the short lines between the long ones are spaced too
        new = "\n".join(_line(line) for line in new.split("\n"))
    return new, ""


def _line(line: str) -> str:
    stripped = line.strip(" ")
    return _closed(stripped) if SHORT_RUN.match(stripped) else line


def _words(run: str) -> str:
    return _closed(run) if _is_spelled(run) and _has_words(run) else run


def _closed(run: str) -> str:
    return " ".join(word.replace(" ", "") for word in GAP.split(run))


def _has_words(run: str) -> bool:
    """Wider gaps part most of the letters into words of a likely length."""
    lengths = [sum(map(str.isalpha, word)) for word in GAP.split(run)]
    long = sum(length for length in lengths if length > MAX_WORD)
    return len(lengths) > 1 and long <= MAX_LONG * sum(lengths)


def _is_spelled(run: str) -> bool:
    """Letters of a script with capitals (Chinese written with blanks is not letter-spaced)."""
    marks = LEADERS.sub(r"\1", run.replace(" ", ""))
    letters = [c for c in marks if c.lower() != c.upper()]
    enough = len(letters) >= max(MIN_LETTERS, LETTER_SHARE * len(marks))
    return enough and len(set(letters)) >= MIN_DISTINCT
