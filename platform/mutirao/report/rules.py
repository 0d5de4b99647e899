"""Why documents were dropped, rule by rule: counts, keep-rate by source, masked examples.

In: the manifests of a run. Out: `Rules`, and the section of the page that shows them, worst first.
Counts by source are those that `split` joined; before it has run, the stages' own counts stand in.
Examples are snippets of at most EXAMPLE characters with personal data masked, from the first
EXAMPLE_SHARDS text shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mutirao.core.errors import UserError
from mutirao.core.manifest import Manifest
from mutirao.report.facts import Drop
from mutirao.report.masking import mask
from mutirao.report.rule_facts import EvaluationSet, Rule, Rules, SourceShare, WouldDrop

EXAMPLES, EXAMPLE, EXAMPLE_SHARDS = 2, 160, 8
SHOWN = 10  # rows of a table that stand open; the rest is folded
WORDS = {  # the rules of `filter` bring their own (data_jobs/quality/rules.py)
    "exact-duplicate": "The same text stands earlier in the corpus.",
    "near-duplicate": "Nearly the same text stays in its place.",
    "language": "It is in another language.",
    "language-unsure": "The language could not be told with enough confidence.",
    "variety": "It is in another variety of the language.",
    "license": "The recipe does not allow its licence.",
    "evaluation-text": "It shares word n-grams with an evaluation set.",
    "takedown": "It was taken down (mutirao data forget).",
    "empty": "Nothing was left after cleaning.",
    "invalid-json": "The line is not JSON.",
    "invalid-utf8": "The bytes are not UTF-8.",
    "missing-field": "The record has no such text field.",
    "too-long": "It is longer than clean.max_document_bytes.",
    "truncated": "The file ends in the middle.",
    "unreadable": "The file could not be read.",
}


def gather_rules(manifests: dict[str, Manifest], drops: tuple[Drop, ...]) -> Rules:
    """All rules that dropped something, and what a thin pack would drop. Raises nothing: examples
    that cannot be read are left out."""
    info = manifests["split"].content.get("info", {}) if "split" in manifests else {}
    per_source = info.get("dropped_per_source", {})
    sizes = _sizes(info, per_source)
    examples = _examples(manifests)
    words = _words()
    judged = manifests["filter"].content.get("info", {}) if "filter" in manifests else {}
    rules = [
        Rule(
            drop.stage,
            drop.reason,
            drop.documents,
            words.get(f"{drop.stage}.{drop.reason}") or WORDS.get(drop.reason, ""),
            _hardest_hit(f"{drop.stage}.{drop.reason}", per_source, sizes),
            tuple(examples.get((drop.stage, drop.reason), ())),
            _thresholds(drop.reason, judged) if drop.stage == "filter" else (),
        )
        for drop in drops
    ]
    dropped = {name: sum(_documents(n) for n in rows.values()) for name, rows in per_source.items()}
    sources = [SourceShare(name, size, dropped.get(name, 0)) for name, size in sizes.items()]
    return Rules(
        manifests["clean"].counts.get("documents_in", 0) if "clean" in manifests else 0,
        tuple(sorted(rules, key=lambda rule: (-rule.documents, rule.stage, rule.reason))),
        tuple(sorted(sources, key=lambda row: (row.kept_share, row.name))),
        judged.get("pack", ""),
        judged.get("evidence", ""),
        _would_drop(judged.get("would_drop", {}), words),
        *_evaluation(manifests),
    )


def _evaluation(
    manifests: dict[str, Manifest],
) -> tuple[tuple[EvaluationSet, ...], tuple[str, ...]]:
    """The sets that were looked for, those with most texts found first; those that were not."""
    if "decontaminate" not in manifests:
        return (), ()
    info = manifests["decontaminate"].content.get("info", {})
    copied = ("name", "texts_found", "documents_dropped", "common_ngrams")
    found = [
        EvaluationSet(
            **{name: row[name] for name in copied},
            texts=row["texts"] - row["short_texts"],
        )
        for row in info.get("sets", ())
    ]
    ordered = sorted(found, key=lambda one: (-one.texts_found, one.name))
    return tuple(ordered), tuple(info.get("not_looked_for", ()))


def _would_drop(counts: Mapping[str, int], words: Mapping[str, str]) -> tuple[WouldDrop, ...]:
    found = [WouldDrop(name, n, words.get(f"filter.{name}", "")) for name, n in counts.items()]
    return tuple(sorted(found, key=lambda row: (-row.documents, row.reason)))


def _thresholds(reason: str, judged: Mapping[str, Any]) -> tuple[str, ...]:
    """The thresholds behind a reason of `filter`, then those of a source's genre that differ."""
    from data_jobs.quality.rules import RULES

    names = [rule.threshold for rule in RULES if rule.reason == reason]
    general = judged.get("thresholds", {})
    found = [f"{name} {general[name]:g}" for name in names if name in general]
    for genre, limits in judged.get("genres", {}).items():
        for name in names:
            if limits.get(name) != general.get(name):
                said = f"{limits[name]:g}" if name in limits else "off"
                found.append(f"{genre}: {name} {said}")
    return tuple(found)


def _sizes(info: Mapping[str, Any], per_source: Mapping[str, Any]) -> dict[str, int]:
    """Documents of each source after clean."""
    sizes = {name: _documents(n) for name, n in info.get("kept_per_source", {}).items()}
    for name, rows in per_source.items():
        sizes[name] = sizes.get(name, 0) + sum(_documents(n) for n in rows.values())
    return sizes


def _hardest_hit(
    rule: str, per_source: Mapping[str, Any], sizes: dict[str, int]
) -> tuple[SourceShare, ...]:
    rows = [
        SourceShare(name, sizes[name], _documents(found[rule]))
        for name, found in per_source.items()
        if rule in found
    ]
    return tuple(sorted(rows, key=lambda row: (row.kept_share, row.name)))


def _documents(numbers: Any) -> int:
    return numbers["documents"] if isinstance(numbers, Mapping) else int(numbers)


def _words() -> dict[str, str]:
    from data_jobs.quality.rules import RULES

    return {f"filter.{rule.reason}": rule.words for rule in reversed(RULES)}


def _examples(manifests: dict[str, Manifest]) -> dict[tuple[str, str], list[str]]:
    """Up to EXAMPLES snippets of each (stage, reason)."""
    from data_jobs.results.view import dropped_examples

    try:
        found = dropped_examples(manifests, EXAMPLES, EXAMPLE_SHARDS)
    except (UserError, OSError, KeyError, IndexError):
        return {}
    return {rule: [shortened(text) for text in texts] for rule, texts in found.items()}


def shortened(text: str) -> str:
    """Masked before it is cut: half of an address is not recognised."""
    line = mask(" ".join(text.split()))
    return line if len(line) <= EXAMPLE else line[: EXAMPLE - 1].rstrip() + "…"
