"""Personal data masked by kind: `fulana@exemplo.org` becomes `<email>`, a CPF `<cpf>`.

In: a text and the kinds of the language (`personal_data` of clean.yaml). Out: the text with masks,
and how many of each kind. A mask is the kind in angle brackets, as in BigCode's corpora (StarCoder,
Li et al. 2023, arXiv:2305.06161, section 4): short, the same everywhere, a word of no language.
Numbers are masked on evidence, since laws, prices, versions and ISBNs are numbers too: check
digits, a code that exists, or a word before them that says what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from data_jobs.cleaning.number_checks import CHECKS
from mutirao.core.errors import RecipeError, nearest

BEFORE = 60  # characters before a number, of its own line, in which its context is looked for


@dataclass(frozen=True)
class Kind:
    """`pattern`: for RE2 and `re` alike, so without look-around; it never touches other letters."""

    kind: str
    pattern: str
    check: str = ""  # a key of CHECKS
    context: str = ""  # must stand before the match
    edges: str = "0-9A-Za-z_"  # what may not stand beside the match
    sign: str = ""  # a shorter pattern that is found wherever `pattern` is; default: the pattern


UNIVERSAL = {
    "email": Kind(
        "email",
        r"[A-Za-z0-9._%+\-]{1,64}@(?:[A-Za-z0-9\-]{1,63}\.){1,6}[A-Za-z]{2,18}",
        "email",
        edges=r"0-9A-Za-z_%+\-",
        sign="[A-Za-z0-9._%+-]@[A-Za-z0-9-]",
    ),
    "ip": Kind(
        "ip", r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", "ipv4", edges=r"0-9A-Za-z_"
    ),
    "ipv6": Kind("ip", r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{3,35}", "ipv6", edges="0-9A-Za-z_:"),
    "phone": Kind(
        "phone",
        r"\+[1-9][0-9]{0,2}[ .\-]?(?:\(?[0-9]{1,5}\)?[ .\-]{0,2}){1,5}[0-9]{2,5}",
        "e164",
        edges=r"0-9A-Za-z_+\])",
        sign=r"\+[1-9][0-9 ().\-]{5}",
    ),
}


def kinds(entries: list[str | dict[str, Any]]) -> list[Mask]:
    """The masks of a language. Raises RecipeError for a kind that does not exist or is damaged."""
    return [Mask(_kind(entry)) for entry in entries]


class Mask:
    """Replaces one kind of personal data; `sign` is found in each text that holds it."""

    def __init__(self, kind: Kind):
        self.name = kind.kind
        self.sign = kind.sign or kind.pattern
        self.pattern = _bounded(kind)
        self.check = CHECKS.get(kind.check, _anything)
        self.context = re.compile(rf"(?:{kind.context})\W*$", re.I)

    def apply(self, text: str, counts: Counter[str]) -> str:
        def masked(found: re.Match[str]) -> str:
            value, before = found.group(), _before(found)
            if not (self.check(value, before, found) and self.context.search(before)):
                return value
            counts[f"masked.{self.name}"] += 1
            return f"<{self.name}>"

        return self.pattern.sub(masked, text)


def _anything(value: str, before: str, found: re.Match[str]) -> bool:
    return True


def _kind(entry: str | dict[str, Any]) -> Kind:
    where = "personal_data of clean.yaml"
    if isinstance(entry, str):
        if entry not in UNIVERSAL:
            hint = nearest(entry, sorted(UNIVERSAL))
            raise RecipeError(f"Unknown kind of personal data: {entry}", where, hint)
        return UNIVERSAL[entry]
    try:
        kind = Kind(**entry)
        for pattern in (kind.pattern, kind.context, kind.sign):
            re.compile(pattern)
    except (TypeError, re.error) as error:
        raise RecipeError(f"Damaged kind of personal data: {error}", where) from error
    if kind.check and kind.check not in CHECKS:
        hint = nearest(kind.check, sorted(CHECKS))
        raise RecipeError(f"Unknown check of personal data: {kind.check}", where, hint)
    return kind


def _bounded(kind: Kind) -> re.Pattern[str]:
    return re.compile(rf"(?<![{kind.edges}])(?:{kind.pattern})(?![{kind.edges}])")


def _before(found: re.Match[str]) -> str:
    start = max(0, found.start() - BEFORE)
    return found.string[start : found.start()].rpartition("\n")[2]
