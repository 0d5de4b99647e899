"""What the page knows about the rules that dropped documents (rules.py reads it)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceShare:
    name: str
    documents_in: int  # after clean
    dropped: int  # by this rule; of `Rules.sources`, by any

    @property
    def kept_share(self) -> float:
        return 1 - self.dropped / max(self.documents_in, 1)


@dataclass(frozen=True)
class Rule:
    stage: str
    reason: str
    documents: int
    words: str = ""
    sources: tuple[SourceShare, ...] = ()  # the hardest hit first
    examples: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()  # of `filter`: 'min_words 20', 'law: min_words 10'


@dataclass(frozen=True)
class WouldDrop:
    """What a rule of a thin pack would drop, were its thresholds measured."""

    reason: str
    documents: int
    words: str = ""


@dataclass(frozen=True)
class EvaluationSet:
    """How much of an evaluation set stands in the kept text; what it made `decontaminate` drop."""

    name: str
    texts: int  # that were looked for
    texts_found: int
    documents_dropped: int
    common_ngrams: int = 0  # in so many documents that they drop none


@dataclass(frozen=True)
class Rules:
    documents_in: int = 0
    rules: tuple[Rule, ...] = ()  # most documents first
    sources: tuple[SourceShare, ...] = ()  # the lowest keep-rate first
    pack: str = ""  # the language pack that judged, '' before `filter` has run
    evidence: str = ""  # measured | thin | none
    would_drop: tuple[WouldDrop, ...] = ()  # most documents first
    evaluation: tuple[EvaluationSet, ...] = ()
    not_looked_for: tuple[str, ...] = ()  # evaluation sets that the pack knows by name alone
