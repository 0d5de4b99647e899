"""A language pack from reference text: stop words, thresholds, and the figures they rest on.

In: cleaned texts by source, all worth keeping. Out: `Derived`, and pack.yaml as text.

A threshold is the extreme of the worst source, widened by as much again as that source is from the
usual one: a source nobody has seen may be as far out as the farthest seen. Then two guards hold:
never stricter than where text of any kind still is (`Guard.strictest`), never looser than where
damage begins (`Guard.loosest`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import yaml

from data_jobs.quality.measure import measure
from data_jobs.quality.reference_text import Reference, joined
from data_jobs.quality.rules import RULES, Limits
from data_jobs.words import words_of
from mutirao.core.languages import Pack

EXTREME = 0.005  # quantile of one source: 1 % of it at most lies beyond the two
# Below both a pack is thin: the quantile then rests on fewer than four documents.
MEASURED_DOCUMENTS, MEASURED_BYTES = 750, 1_000_000
STOP_WORDS, SAMPLE_CHARACTERS = 60, 2_000_000  # of each source, for counting words
SHORT_CHARACTERS = 300  # a source whose median text is shorter holds sentences, not documents


class Guard(NamedTuple):
    strictest: float | None  # the threshold drops no more than this
    loosest: float | None  # and no less than this
    why: str


# What holds in any language written in words. Gopher's, C4's and FineWeb's own thresholds, chosen
# for English web pages, are in brackets.
GUARDS: dict[str, Guard] = {
    "min_words": Guard(20, 10, "notes and news are short (Gopher 50)"),
    "max_words": Guard(100_000, 1_000_000, "books (Gopher 100,000)"),
    "min_mean_word_length": Guard(2.5, 1.8, "letters set apart have 1.0 (Gopher 3)"),
    "max_mean_word_length": Guard(12, 20, "agglutinating languages (Gopher 10)"),
    "min_alpha_words": Guard(0.6, 0.3, "tables and laws are full of numbers (Gopher 0.8)"),
    "max_symbol_ratio": Guard(0.5, 0.8, "a symbol to two words: commented code (Gopher 0.1)"),
    "max_uppercase": Guard(0.5, 0.8, "titles, names and acronyms; shouting has 1.0"),
    "max_bullet_lines": Guard(0.95, None, "recipes, references (Gopher 0.9)"),
    "max_ellipsis_lines": Guard(0.5, None, "speech trails off (Gopher 0.3)"),
    "max_newlines": Guard(0.7, 2.0, "verse and dialogue (FineWeb 0.3)"),
    "max_curly_brackets": Guard(0.05, 0.1, "tutorials quote code (C4 none)"),
    "max_javascript_lines": Guard(0.5, None, "tutorials speak of it (C4 drops each such line)"),
    "max_lorem_ipsum": Guard(2, 2, "tutorials quote it (C4 none)"),
    "max_duplicate_lines": Guard(0.4, 0.65, "headings of reference pages come again (Gopher 0.3)"),
    "max_duplicate_line_characters": Guard(0.35, 0.6, "as above (Gopher 0.2, FineWeb 0.01)"),
    "max_duplicate_paragraphs": Guard(0.4, 0.65, "as above (Gopher 0.3)"),
    "max_duplicate_paragraph_characters": Guard(0.35, 0.6, "as above (Gopher 0.2)"),
    "max_top_bigram": Guard(0.25, 0.5, "names in short texts (Gopher 0.2)"),
    "max_top_trigram": Guard(0.3, 0.5, "as above (Gopher 0.18)"),
    "max_top_4gram": Guard(0.3, 0.5, "as above (Gopher 0.16)"),
    "max_duplicate_5grams": Guard(0.6, 0.7, "laws and manuals repeat their formulas (Gopher 0.15)"),
    "max_duplicate_6grams": Guard(0.6, 0.7, "as above (Gopher 0.14)"),
    "max_duplicate_7grams": Guard(0.6, 0.7, "as above (Gopher 0.13)"),
    "max_duplicate_8grams": Guard(0.6, 0.7, "as above (Gopher 0.12)"),
    "max_duplicate_9grams": Guard(0.6, 0.7, "as above (Gopher 0.11)"),
    "max_duplicate_10grams": Guard(0.6, 0.7, "as above (Gopher 0.10)"),
    "min_stop_words": Guard(0.1, 0.02, "running text in any language has its small words"),
    "min_distinct_stop_words": Guard(2, 1, "Gopher 2"),
}
# Lines that end no sentence, few sentences, short lines: rules for web pages alone. As general
# rules they drop transcripts, laws, verse and lists; the genre `web` of a pack may have them.
WEB_ONLY = {"min_terminal_lines", "min_sentences", "max_short_lines"}


UNBOUNDED = {"words", "mean_word_length", "distinct_stop_words", "lorem_ipsum"}


@dataclass(frozen=True)
class Derived:
    stop_words: list[str]
    thresholds: Limits
    evidence: str  # 'measured' or 'thin'
    figures: dict[str, Any]


def derive(references: list[Reference], word_characters: str = "", guards: bool = True) -> Derived:
    """The pack's derived part. `guards` False: what the data alone says, for comparison."""
    stops = stop_words(references, word_characters)
    by_source = {}
    for one in references:
        pieces = joined(one.texts) if holds_sentences(one) else one.texts
        by_source[one.source] = measure(pieces, stops, word_characters)
    documents = sum(len(one.texts) for one in references)
    text_bytes = sum(one.text_bytes for one in references)
    enough = documents >= MEASURED_DOCUMENTS or text_bytes >= MEASURED_BYTES
    figures = {
        "documents": documents,
        "text_bytes": text_bytes,
        "sources": [_source(one, by_source[one.source]) for one in references],
        "quantiles": quantiles(by_source),
    }
    limits = thresholds(by_source, guards)
    return Derived(stops, limits, "measured" if enough else "thin", figures)


def thresholds(by_source: dict[str, pa.RecordBatch], guards: bool = True) -> Limits:
    """From the values of each source's documents; what nothing can cross is left out."""
    found = {}
    for rule in RULES:
        if rule.threshold in WEB_ONLY:
            continue
        extremes = [_quantile(batch, rule.value, rule.sign) for batch in by_source.values()]
        limit = widened(extremes, rule.sign, rule.value in UNBOUNDED)
        guard = GUARDS[rule.threshold]
        if guards:
            limit = _between(limit, guard, rule.sign)
        if rule.sign < 0 and limit <= 0:
            continue
        if rule.sign > 0 and guard.loosest is None and limit >= 1:
            continue
        found[rule.threshold] = _outward(limit, rule.sign)
    return found


def widened(extremes: list[float], sign: int, unbounded: bool = False) -> float:
    """The worst source's extreme, and as much again as it lies beyond the usual source's: the same
    difference for shares, the same ratio for counts and lengths (`unbounded`)."""
    found = np.log(np.maximum(extremes, 0.5)) if unbounded else np.array(extremes)
    signed = found * sign
    worst, usual = signed.max(), np.median(signed)
    limit = float(sign * (2 * worst - usual))
    return math.exp(limit) if unbounded else limit


def _between(limit: float, guard: Guard, sign: int) -> float:
    signed = limit * sign
    if guard.strictest is not None:
        signed = max(signed, guard.strictest * sign)
    if guard.loosest is not None:
        signed = min(signed, guard.loosest * sign)
    return signed * sign


def _outward(limit: float, sign: int) -> float:
    """Two significant digits, rounded to the side that keeps more; whole numbers as such."""
    if limit == 0:
        return 0
    step = 10.0 ** (math.floor(math.log10(abs(limit))) - 1)
    away = math.ceil if sign > 0 else math.floor
    rounded = round(away(round(limit / step, 6)) * step, 10)
    return int(rounded) if rounded.is_integer() else rounded


def _quantile(batch: pa.RecordBatch, value: str, sign: int) -> float:
    column = batch.column(value).to_numpy(zero_copy_only=False)
    return float(np.quantile(column, EXTREME if sign < 0 else 1 - EXTREME))


def quantiles(by_source: dict[str, pa.RecordBatch]) -> dict[str, dict[str, list[float]]]:
    """By value {low, high}: the extreme quantiles, [usual source, worst source]; the evidence."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in dict.fromkeys(rule.value for rule in RULES):
        found[name] = {}
        for side, sign in (("low", -1), ("high", 1)):
            extremes = np.array([_quantile(batch, name, sign) for batch in by_source.values()])
            worst = extremes.min() if sign < 0 else extremes.max()
            found[name][side] = [float(f"{np.median(extremes):.4g}"), float(f"{worst:.4g}")]
    return found


def stop_words(references: list[Reference], word_characters: str = "") -> list[str]:
    """The words that are frequent in all sources alike: by the lower quartile over the sources of
    their share of the words, so that the subject of one or two sources does not count."""
    counts = []
    for one in references:
        words: Counter[str] = Counter()
        left = SAMPLE_CHARACTERS
        for text in one.texts:
            words.update(words_of(text[:left].lower(), word_characters))
            left -= len(text)
            if left <= 0:
                break
        counts.append((words, max(1, words.total())))
    everything = sorted({w for words, _ in counts for w, _ in words.most_common(500)})
    names = [w for w in everything if w.isalpha() or not any(c.isdigit() for c in w)]

    def rank(word: str) -> tuple[float, str]:
        return -float(np.quantile([words[word] / n for words, n in counts], 0.25)), word

    ranked = sorted(rank(word) for word in names)[:STOP_WORDS]
    return sorted(word for share, word in ranked if share < 0)


def holds_sentences(one: Reference) -> bool:
    return float(np.median([len(text) for text in one.texts])) < SHORT_CHARACTERS


def _source(one: Reference, batch: pa.RecordBatch) -> dict[str, Any]:
    found: dict[str, Any] = {
        "source": one.source,
        "documents": len(one.texts),
        "text_bytes": one.text_bytes,
        "licenses": sorted(one.licenses),
    }
    if batch.num_rows != len(one.texts):
        found["joined_to"] = batch.num_rows  # sentences put together to pieces
    return found


def pack_yaml(code: str, name: str, derived: Derived, hand: Pack | None, note: str = "") -> str:
    """pack.yaml. `hand`: an earlier pack, of which what people wrote (genres, word characters,
    confusable languages, evaluation sets, tokenizer target) stays."""
    content: dict[str, Any] = {"name": name, "evidence": derived.evidence}
    content["note"] = note or _note(derived)
    content["stop_words"] = " ".join(derived.stop_words)
    content["thresholds"] = derived.thresholds
    kept = {
        "genres": hand.genres if hand else {},
        "word_characters": hand.word_characters if hand else "",
        "confusable": list(hand.confusable) if hand else [],
        "evaluation": [one.as_json() for one in hand.evaluation] if hand else [],
        "tokenizer": hand.tokenizer if hand else {},
    }
    content |= {key: value for key, value in kept.items() if value}
    content["figures"] = derived.figures
    head = (
        f"# Language pack {code}, derived by `mutirao lang new`: stop_words, thresholds, evidence\n"
        "# and figures are replaced when it is derived again, everything else is kept.\n"
    )
    return head + yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=98)


class _Dumper(yaml.SafeDumper):
    """Lists of numbers on one line, so that the quantiles read as a table."""


def _short_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = all(not isinstance(entry, dict) for entry in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(list, _short_list)


def _note(derived: Derived) -> str:
    figures = derived.figures
    licenses = sorted({name for one in figures["sources"] for name in one["licenses"]})
    return (
        f"Derived from {figures['documents']:,} texts ({figures['text_bytes']:,} bytes) of "
        f"{len(figures['sources'])} source(s); licences: {', '.join(licenses)}."
    )
