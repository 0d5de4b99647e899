"""What a language pack does to reference text: documents kept by source and rule, the worst ones.

In: cleaned texts by source and a pack. Out: plain dicts for `mutirao lang check`. A thin pack is
judged by its own thresholds too, which drop nothing in a run.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from data_jobs.quality.measure import measure
from data_jobs.quality.reference_text import Reference
from data_jobs.quality.rules import RULES, Columns, Limits, columns, decide, profiles
from mutirao.core.languages import Pack

SNIPPET = 120  # characters


def check(references: list[Reference], pack: Pack, genre: str = "", worst: int = 10) -> dict:
    """{documents, kept, sources: {source: {documents, kept, rules}}, rules: {threshold: {documents,
    only}}, worst: [...]}. kept: shares. `only`: documents that no other rule would drop."""
    by_genre = profiles(pack, {})
    limits = by_genre.get(genre, by_genre[""])
    sources, rows = {}, []
    rules: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for one in references:
        values = columns(measure(one.texts, pack.stop_words, pack.word_characters))
        crossed = _crossed(values, limits)
        found = Counter({name: int(mask.sum()) for name, mask in crossed.items() if mask.any()})
        hits = np.sum([*crossed.values(), np.zeros(len(one.texts), int)], axis=0)
        alone.update({n: int((mask & (hits == 1)).sum()) for n, mask in crossed.items()})
        rules.update(found)
        sources[one.source] = {
            "documents": len(one.texts),
            "kept": round(float((hits == 0).mean()), 4),
            "rules": dict(found.most_common()),
        }
        rows += _worst(one, values, limits)
    rows.sort(key=lambda row: (-row["beyond"], row["source"], row["document"]))
    total = sum(len(one.texts) for one in references)
    return {
        "pack": pack.code,
        "evidence": pack.evidence,
        "documents": total,
        "kept": round(1 - len(rows) / total, 4),
        "sources": sources,
        "rules": {
            name: {"documents": count, "only": alone[name], "threshold": limits[name]}
            for name, count in rules.most_common()
        },
        "worst": rows[:worst],
    }


def _crossed(values: Columns, limits: Limits) -> dict[str, np.ndarray]:
    """By threshold the mask of documents beyond it, whatever other rules say."""
    return {
        rule.threshold: decide(values, {rule.threshold: limits[rule.threshold]}) != None  # noqa: E711
        for rule in RULES
        if rule.threshold in limits
    }


def _worst(one: Reference, values: Columns, limits: Limits) -> list[dict[str, Any]]:
    """A row for each dropped document, with the rule that it is farthest beyond."""
    best: dict[int, dict[str, Any]] = {}
    for rule in RULES:
        if rule.threshold not in limits:
            continue
        limit = np.float32(limits[rule.threshold])
        beyond = (values[rule.value] - limit) * rule.sign / max(abs(float(limit)), 1e-3)
        for row in np.flatnonzero(beyond > 0).tolist():
            if row in best and best[row]["beyond"] >= beyond[row]:
                continue
            best[row] = {
                "source": one.source,
                "document": one.names[row],
                "reason": rule.reason,
                "value": rule.value,
                "measured": round(float(values[rule.value][row]), 4),
                "threshold": limits[rule.threshold],
                "beyond": round(float(beyond[row]), 3),
                "snippet": " ".join(one.texts[row][:SNIPPET].split()),
            }
    return list(best.values())
