"""Varieties of one language, such as pt-BR and pt-PT: rules of spelling first, then a classifier.

In: texts of a language whose pack holds a `varieties.yaml` (words and patterns with weights) and,
where `mutirao/assets/` has one, a linear classifier (`train_variety.py` makes it). Out: a variety
for each text, 'undecided' where neither is sure. Only the windows that identified the language are
read. Weights are integers, so that every machine adds up to the same sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from data_jobs.language.variety_kernel import (
    EXACT,
    FEATURES_A_WORD,
    INFIX,
    PREFIX,
    SHORTEST_PREFIX,
    SLOTS,
    feature_lists,
    lookup_table,
    pattern_key,
    rule_sums,
)
from data_jobs.words import tables
from mutirao.core.errors import RecipeError
from mutirao.core.files import sha256_hex
from mutirao.core.language_codes import canonical, label_language

UNDECIDED = "undecided"
RULE_WEIGHT = 2  # one word that is usual in one variety only, or two that are commoner there
RULE_SHARE = 0.75  # of the weight on the winning side
CONFIDENT = 0.8  # probability from which the classifier decides


@dataclass(frozen=True)
class Varieties:
    """The rules and the classifier of one language. `names[0]` is the side of positive sums."""

    names: tuple[str, str]
    keys: np.ndarray  # uint64, open addressing; 0: free
    values: np.ndarray  # int64 weights beside them
    weights: np.ndarray  # int8[SLOTS] of the classifier, all 0 where there is none
    scale: float  # of the classifier: what one unit of weight is worth
    bias: float
    sha256: str  # of both files


def decide_varieties(views: list[bytes], language: str) -> list[str]:
    """The variety of each view, all in `language` (our label, such as 'por'); '' for a language
    that has none."""
    own = varieties_of(language)
    return decide(own, views) if own else [""] * len(views)


def decide(own: Varieties, views: list[bytes]) -> list[str]:
    """By rules where their weight is enough and not divided; else by the classifier, where it is
    sure and the rules do not speak against it."""
    sums = rule_sums(*joined(views), *tables(), own.keys, own.values)
    answers = [by_rules(own, *row) for row in sums.tolist()]
    open_rows = [row for row, answer in enumerate(answers) if answer == UNDECIDED]
    if own.scale and open_rows:
        chances = probabilities(own, [views[row] for row in open_rows])
        for row, chance in zip(open_rows, chances.tolist(), strict=True):
            answers[row] = by_classifier(own, chance, *sums[row].tolist())
    return answers


def by_rules(own: Varieties, first: int, second: int) -> str:
    """first, second: weight of the rules for either variety."""
    weight = first + second
    if weight >= RULE_WEIGHT and max(first, second) >= RULE_SHARE * weight:
        return own.names[0 if first > second else 1]
    return UNDECIDED


def by_classifier(own: Varieties, chance: float, first: int, second: int) -> str:
    """chance: of the first variety. Without a rule on its side the classifier decides nothing: it
    was trained on news, and takes a third of a novelist from Rio for European."""
    if first > second and chance >= CONFIDENT:
        return own.names[0]
    if second > first and 1 - chance >= CONFIDENT:
        return own.names[1]
    return UNDECIDED


def probabilities(own: Varieties, views: list[bytes]) -> np.ndarray:
    """float64[views]: probability of the first variety. The evidence grows with the root of the
    length, so that a long text is not called certain for the words of its topic."""
    rows, slots = feature_lists(*joined(views), *tables())
    counts = np.maximum(np.bincount(rows, minlength=len(views)) / FEATURES_A_WORD, 1)
    sums = np.bincount(rows, own.weights[slots].astype(np.float64), len(views))
    return 1 / (1 + np.exp(-np.clip(own.bias + own.scale * sums / np.sqrt(counts), -30, 30)))


def joined(views: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8[n], offsets int64[views + 1]) of all views, with a line end behind each."""
    lengths = [0, *(len(view) + 1 for view in views)]
    data = np.frombuffer(b"".join(view + b"\n" for view in views), np.uint8)
    return data, np.cumsum(lengths, dtype=np.int64)


@cache
def varieties_of(language: str) -> Varieties | None:
    """None for a language that has no varieties file. Raises RecipeError if it is damaged."""
    pack = canonical(language)
    path = resources.files("mutirao.languages") / pack / "varieties.yaml"
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        names, keys, values = read_rules(yaml.safe_load(data))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecipeError(f"Damaged varieties: {error}", f"{pack}/varieties.yaml") from error
    model = resources.files("mutirao.assets") / f"{asset_name(language)}"
    if not model.is_file():
        empty = np.zeros(SLOTS, np.int8)
        return Varieties(names, keys, values, empty, 0.0, 0.0, sha256_hex(data))
    with model.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
        numbers = found["weights"], float(found["scale"]), float(found["bias"])
    return Varieties(names, keys, values, *numbers, sha256_hex(data + model.read_bytes()))


def asset_name(language: str) -> str:
    return f"varieties_{label_language(language)}.npz"


def variety_sha256(language: str) -> str:
    """Of what decides the varieties of this language, '' where it has none: an asset of langid."""
    own = varieties_of(language)
    return own.sha256 if own else ""


def read_rules(content: dict[str, Any]) -> tuple[tuple[str, str], np.ndarray, np.ndarray]:
    """The two names and the look-up table of a varieties file."""
    first, second = content["varieties"]
    entries: dict[int, int] = {}
    for sign, name in ((1, first), (-1, second)):
        for weight, listed in content[name].items():
            for entry in listed.split():
                entries[entry_key(entry)] = sign * int(weight)
    for word in content.get("never", "").split():
        entries[entry_key(word)] = 0
    return (first, second), *lookup_table(entries)


def entry_key(entry: str) -> int:
    """`word`, `word*` or `*abc*`. Raises ValueError for anything else."""
    inner = entry.strip("*")
    if entry == inner and inner:
        return pattern_key(inner, EXACT)
    if entry == f"{inner}*" and len(inner) >= SHORTEST_PREFIX:
        return pattern_key(inner, PREFIX)
    if entry == f"*{inner}*" and len(inner) == 3 and not inner.isascii():
        return pattern_key(inner, INFIX)
    raise ValueError(f"{entry!r} is no word, word* or *abc* with an accent")
