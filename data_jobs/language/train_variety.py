"""Train the classifier of varieties that ships as `mutirao/assets/varieties_<lang>.npz`.

In: gzipped JSON lines with the fields id, text, lang, variety, of a language whose pack holds a
`varieties.yaml`. Out: the classifier (int8 weights of hashed features, scale, bias), and on stdout
a JSON report: how often rules and classifier decide, and are right, on each `--test` file.

Logistic regression with an L2 penalty, its features divided by the root of a text's words, by
full-batch gradient steps of AdaGrad (Duchi et al. 2011); every variety weighs the same. No random
numbers: the same files give the same weights.

    python -m data_jobs.language.train_variety --language por --output varieties_por.npz \
        FILE.jsonl.gz... [--test FILE.jsonl.gz...]
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.language.langid_windows import windows
from data_jobs.language.variety import UNDECIDED, Varieties, decide, joined, varieties_of
from data_jobs.language.variety_kernel import FEATURES_A_WORD, SLOTS, feature_lists
from data_jobs.words import tables
from mutirao.core.recipe import LangId

PIECE_BYTES = 800  # documents are cut at sentence ends into training texts of about this length
SHORTEST = 60  # shorter rests are left out
MIN_TEXTS = 4  # a feature in fewer training texts has no weight
PENALTY, STEPS, RATE = 1e-5, 300, 0.5
WINDOW_BYTES = LangId().window_bytes


def train(rows: list[dict[str, Any]], rules: Varieties) -> Varieties:
    """The rules with a classifier trained on `rows` (text, variety)."""
    pieces = [(piece, row["variety"]) for row in rows for piece in pieces_of(row["text"])]
    target = np.array([variety == rules.names[0] for _, variety in pieces], float)
    texts, slots = feature_lists(*joined([piece.encode() for piece, _ in pieces]), *tables())
    seen = np.unique(slots.astype(np.int64) << 32 | texts) >> 32
    usual = np.bincount(seen, minlength=SLOTS) >= MIN_TEXTS
    words = np.maximum(np.bincount(texts, minlength=len(pieces)) / FEATURES_A_WORD, 1)
    texts, slots = texts[usual[slots]], slots[usual[slots]]
    weights, bias = logistic(texts, slots, 1 / np.sqrt(words)[texts], target)
    scale = max(float(np.abs(weights).max()) / 127, 1e-9)
    small = np.round(weights / scale).astype(np.int8)
    return replace(rules, weights=small, scale=scale, bias=round(bias, 6))


def logistic(
    texts: np.ndarray, slots: np.ndarray, values: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights float64[SLOTS] and bias that fit P(target) to sparse rows (text, slot, value)."""
    share = target.mean()
    weight = np.where(target > 0, 0.5 / share, 0.5 / (1 - share)) / len(target)
    weights, bias, seen, seen_bias = np.zeros(SLOTS), 0.0, np.full(SLOTS, 1e-8), 1e-8
    for _ in range(STEPS):
        logit = np.bincount(texts, values * weights[slots], len(target)) + bias
        error = (1 / (1 + np.exp(-logit)) - target) * weight
        gradient = np.bincount(slots, values * error[texts], SLOTS) + PENALTY * weights
        seen += gradient**2
        seen_bias += error.sum() ** 2
        weights -= RATE * gradient / np.sqrt(seen)
        bias -= RATE * float(error.sum()) / seen_bias**0.5
    return weights, bias


def pieces_of(text: str) -> Iterator[str]:
    """The text cut behind full stops into pieces of about PIECE_BYTES."""
    piece = ""
    for sentence in text.replace("\n", " ").split(". "):
        piece += sentence + ". "
        if len(piece.encode()) >= PIECE_BYTES:
            yield piece
            piece = ""
    if len(piece) >= SHORTEST:
        yield piece


def score(rows: list[dict[str, Any]], own: Varieties) -> dict[str, Any]:
    """{texts, decided, accuracy of the decided, by_rules, rules_accuracy, confusion}."""
    views = windows(pa.array([row["text"] for row in rows], pa.large_string()), WINDOW_BYTES)
    found_all = decide(own, views)
    ruled_all = decide(replace(own, scale=0.0), views)  # the classifier has no say
    table: dict[str, Counter[str]] = defaultdict(Counter)
    right = Counter[str]()
    for row, found, by_rules in zip(rows, found_all, ruled_all, strict=True):
        table[row["variety"]][found] += 1
        right["decided"] += found != UNDECIDED
        right["decided right"] += found == row["variety"]
        right["by rules"] += by_rules != UNDECIDED
        right["by rules right"] += by_rules == row["variety"]
    return {
        "texts": len(rows),
        "decided": round(right["decided"] / max(1, len(rows)), 4),
        "accuracy": round(right["decided right"] / max(1, right["decided"]), 4),
        "by_rules": round(right["by rules"] / max(1, len(rows)), 4),
        "rules_accuracy": round(right["by rules right"] / max(1, right["by rules"]), 4),
        "found": {name: dict(counts) for name, counts in sorted(table.items())},
    }


def labelled_rows(path: Path, language: str) -> list[dict[str, Any]]:
    """The rows of the file that are in this language and name a variety."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return [row for row in rows if row["lang"] == language and row.get("variety")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl.gz")
    parser.add_argument("--language", default="por", help="ISO 639-3")
    parser.add_argument("--output", required=True, type=Path, help="the classifier to write, .npz")
    parser.add_argument("--test", nargs="+", type=Path, default=[], help="files never trained on")
    options = parser.parse_args()
    rules = varieties_of(options.language)
    if rules is None:
        parser.error(f"the pack of {options.language} holds no varieties.yaml")
    rows = [row for path in options.files for row in labelled_rows(path, options.language)]
    own = train(rows, rules)
    np.savez_compressed(
        options.output, weights=own.weights, scale=np.float64(own.scale), bias=np.float64(own.bias)
    )
    tests = {path.name: score(labelled_rows(path, options.language), own) for path in options.test}
    print(json.dumps({"trained_on": len(rows), "test": tests}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
