"""What happens to one text: repaired, tidied, its personal data masked, or rejected with a reason.

In: a batch of texts as the sources hold them. Out: one `Cleaned` each, in order. A text's result
depends on the text alone, and cleaning a result again changes nothing: the steps run until none
finds anything. Most texts need none: `signs` tells them from the others at the cost of one pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from data_jobs.cleaning import hyphenation, markup, personal_data, repair, spaced_letters
from data_jobs.cleaning.boilerplate import Boilerplate
from data_jobs.cleaning.hyphenation import Hyphenation
from data_jobs.cleaning.signs import ALWAYS, LINES, Signs
from mutirao.core.recipe import Clean

MAX_ROUNDS = 6  # a text is clean when a round changes nothing; two are the rule

Change = Callable[[str, Counter[str]], str]


@dataclass(frozen=True)
class CleanSettings:
    """The fields of a recipe's `clean` section that say what is done to a text."""

    unicode_repair: bool = True
    html: str = "extract"  # or 'keep'
    html_engine: str = "resiliparse"  # or 'trafilatura'
    hyphenation: bool = True
    boilerplate: bool = True
    personal_data: str = "mask"  # or 'keep'

    @classmethod
    def of(cls, section: Clean) -> CleanSettings:
        return cls(**{name: getattr(section, name) for name in cls.__dataclass_fields__})

    def for_kind(self, kind: str) -> CleanSettings:
        """In a conversation markup and lines that return are what is asked and answered."""
        return replace(self, html="keep", boilerplate=False) if kind == "instruction" else self


@dataclass(frozen=True)
class Cleaned:
    text: str
    # Why it is rejected: 'empty', 'nul-bytes', 'decode-error', 'spaced-letters'.
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)  # {'repaired': 1, 'masked.email': 2}


@dataclass(frozen=True)
class Step:
    name: str
    sign: str  # see signs.py; where it is not found the step has nothing to do
    change: Change


class Rejected(Exception):
    """Stops the steps of one text; the reason is its argument."""


class Cleaner:
    """Holds what a language's rules compile to; one a process. `rules` is `Pack.cleaning`."""

    def __init__(self, settings: CleanSettings, rules: dict[str, Any] | None = None):
        self.steps = steps(settings, rules or {})
        self.signs = Signs([step.sign for step in self.steps])
        self.calls: Counter[str] = Counter()  # texts each step was called for

    def clean(self, texts: Sequence[str]) -> list[Cleaned]:
        """One result a text, in order; batch borders play no part."""
        done = [Cleaned(text) for text in texts]
        work: dict[int, _Work] = {}
        need = self.signs.need(texts)
        for place in np.flatnonzero(need.any(axis=1)).tolist():
            work[place] = _Work(texts[place])
            self._apply(work[place], need[place])
        for _ in range(MAX_ROUNDS - 1):
            changed = [one for one in work.values() if one.changed]
            if not changed:
                break
            for one, marks in zip(changed, self.signs.need([c.text for c in changed]), strict=True):
                self._apply(one, marks)
        for place, one in work.items():
            done[place] = Cleaned(one.text, one.reason, dict(+one.counts))
        return done

    def _apply(self, one: _Work, marks: np.ndarray) -> None:
        """The marked steps on one text, in order."""
        called = [self.steps[place] for place in np.flatnonzero(marks)]
        self.calls.update(step.name for step in called)
        before = one.text
        try:
            for step in called:
                one.text = step.change(one.text, one.counts)
            one.reason = "" if one.text else "empty"
        except Rejected as reason:
            one.reason = str(reason)
        one.changed = one.text != before and not one.reason


@dataclass(slots=True)
class _Work:
    """A text on its way through the rounds."""

    text: str
    reason: str = ""
    changed: bool = False  # by the last round
    counts: Counter[str] = field(default_factory=Counter)


def steps(settings: CleanSettings, rules: dict[str, Any]) -> list[Step]:
    """The table of what is done, in order."""
    listed = [
        Step("binary", "\0", _refuse_binary),
        Step("surrogates", ALWAYS, repair.paired_surrogates),
        Step("line ends", "[\r\x0b\x0c\x1c-\x1e\u2028\u2029]", repair.line_ends),
    ]
    if settings.html == "extract":
        change = partial(_without_markup, settings.html_engine)
        listed.append(Step("markup", markup.SIGN, change))
    if settings.unicode_repair:
        listed.append(Step("decoding", repair.MOJIBAKE.pattern, repair.decoded))
    listed.append(Step("lost letters", repair.LOST, _readable))
    if settings.hyphenation:
        listed.append(Step("hyphens", hyphenation.SIGN, Hyphenation.of(rules).apply))
    listed += [
        Step("control characters", repair.CONTROL_SIGN, repair.visible),
        Step("composition", repair.nfc_sign(), repair.composed),
        Step("spaced letters", spaced_letters.SIGN, _spelled_together),
    ]
    if settings.boilerplate:
        lines = Boilerplate.of(rules)
        if lines.sign:
            listed.append(Step("stock phrases", lines.sign, lines.without_phrases))
        listed.append(Step("returning lines", LINES, lines.without_returning))
    if settings.personal_data == "mask":
        masks = personal_data.kinds(rules.get("personal_data") or [])
        listed += [Step(f"mask {mask.name}", mask.sign, mask.apply) for mask in masks]
    listed.append(Step("blanks", repair.TIDY_SIGN, repair.tidy))
    return [*listed, Step("ends", ALWAYS, repair.trimmed)]


def _without_markup(engine: str, text: str, counts: Counter[str]) -> str:
    return markup.without_markup(text, engine, counts)


def _refuse_binary(text: str, counts: Counter[str]) -> str:
    if repair.is_binary(text):
        raise Rejected("nul-bytes" if text.strip("\0") else "empty")
    return text


def _readable(text: str, counts: Counter[str]) -> str:
    text = repair.found_again(text, counts)
    if repair.is_lost(text):
        raise Rejected("decode-error")
    return text


def _spelled_together(text: str, counts: Counter[str]) -> str:
    text, reason = spaced_letters.joined(text, counts)
    if reason:
        raise Rejected(reason)
    return text
