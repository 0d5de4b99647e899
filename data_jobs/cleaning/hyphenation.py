"""Words that a line end has cut: `apresen-` / `tação` becomes `apresentação` on one line.

In: a text and the language's rules (`hyphenation` of clean.yaml). Out: the text without the hyphens
that a typesetter put in. A hyphen that belongs to the word stays: `disse-` / `lhe` becomes
`disse-lhe`. Where neither the text nor the language tells, nothing is changed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mutirao.core.errors import RecipeError

SIGN = "[^ \n0-9!-/:-@[-`{-~][-\u2010\u00ad]\n"
LETTERS = r"[^\W\d_]+"
# Left part, hyphen, line end, perhaps the hyphen again (Portuguese repeats it), the rest.
# A word in dashes (`-ou-`) is none.
BREAK = re.compile(
    rf"(?<![\w])(?<!(?<!\w)-)({LETTERS})([-\u2010\u00ad])\n(-?)({LETTERS})((?:-{LETTERS})*)"
)
SOFT = "\u00ad"
MIN_WORD = 4  # letters of a part that is taken for a word


@dataclass(frozen=True)
class Hyphenation:
    """`join`: a cut word is joined unless something speaks against it; otherwise only on evidence.

    `kept`: what words look like that have a hyphen of their own. `glued`: first parts that are
    words too and yet take no hyphen (entre|tanto).
    """

    join: bool = False
    kept: re.Pattern[str] | None = None
    glued: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rules: dict[str, Any]) -> Hyphenation:
        """Raises RecipeError for a pattern that is damaged."""
        own = rules.get("hyphenation") or {}
        try:
            kept = re.compile("|".join(own["kept"])) if own.get("kept") else None
        except re.error as error:
            where = "hyphenation of clean.yaml"
            raise RecipeError(f"Damaged pattern: {error}", where) from error
        return cls(bool(own.get("join", False)), kept, frozenset(own.get("glued", "").split()))

    def apply(self, text: str, counts: Counter[str]) -> str:
        evidence = _Evidence(text)

        def mended(found: re.Match[str]) -> str:
            new = self._mended(found, evidence)
            counts["hyphens"] += new is not None
            return found.group() if new is None else new

        # Twice, since a word may be cut at two line ends.
        return BREAK.sub(mended, BREAK.sub(mended, text))

    def _mended(self, found: re.Match[str], evidence: _Evidence) -> str | None:
        """The word without its line end, or None where it is not sure."""
        left, hyphen, again, right, rest = found.groups()
        joined, kept = left + right + rest, f"{left}-{right}{rest}"
        if hyphen == SOFT:
            return joined
        if len(left) > 1 and left[-1].islower() and right[:2].istitle():
            return kept  # no word is cut before a capital: Vice-Presidente
        if not _one_word(left, right):
            return None
        seen_kept, seen_joined = evidence.has(f"{left}-{right}"), evidence.has(left + right)
        if again or seen_kept != seen_joined:
            return kept if again or seen_kept else joined
        inside = found.string[: found.start()].endswith("-")  # dir-se-ia, past its first hyphen
        if inside or self._belongs(left, right, rest) or evidence.two(left, right):
            return joined if left.lower() in self.glued else kept
        return joined if self.join else None

    def _belongs(self, left: str, right: str, rest: str) -> bool:
        """The language writes such a word with a hyphen."""
        words = (f"{left}-{right}".lower(), f"{left}-{right}{rest}".lower())
        return self.kept is not None and any(map(self.kept.fullmatch, words))


class _Evidence:
    """How the text writes a word where no line end cuts it; read only when first asked."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def words(self) -> frozenset[str]:
        whole = BREAK.sub(" ", self.text).lower()
        return frozenset(re.findall(rf"{LETTERS}(?:-{LETTERS})*", whole))

    def has(self, word: str) -> bool:
        return word.lower() in self.words

    def two(self, left: str, right: str) -> bool:
        """Both parts are words of the text."""
        return min(len(left), len(right)) >= MIN_WORD and self.has(left) and self.has(right)


def _one_word(left: str, right: str) -> bool:
    """Both halves in small letters where they meet, or both in capitals."""
    if right[0].islower():
        return left[-1].islower() and len(left) > 1
    return len(left) > 1 and len(right) > 1 and left.isupper() and right.isupper()
