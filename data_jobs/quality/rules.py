"""The rules of `filter`: which measured value drops a document beyond which threshold, and why.

One list, RULES; thresholds come from the language pack, from its profile for the document's genre,
and from the recipe, in that order. Judging is columnar and touches no text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mutirao.core.errors import RecipeError, nearest
from mutirao.core.languages import Pack, load_pack
from mutirao.core.schemas import FILTER_VALUES

Limits = dict[str, float]


class Rule(NamedTuple):
    threshold: str  # its name in a pack or recipe
    value: str  # of FILTER_VALUES, or a score's name
    sign: int  # +1 if a greater value drops, -1 if a smaller one
    reason: str
    words: str  # for reports


# In the order of judging: the first that applies is the reason.
RULES: tuple[Rule, ...] = (
    Rule("min_words", "words", -1, "too-short", "Too few words to be a document."),
    Rule("max_words", "words", 1, "too-long", "More words than a document has."),
    Rule(
        "min_mean_word_length",
        "mean_word_length",
        -1,
        "short-words",
        "Words are too short on average: letters set apart, or tables of numbers.",
    ),
    Rule(
        "max_mean_word_length",
        "mean_word_length",
        1,
        "long-words",
        "Words are too long on average: missing spaces, codes or addresses.",
    ),
    Rule("min_alpha_words", "alpha_words", -1, "few-letters", "Too few words hold a letter."),
    Rule(
        "max_symbol_ratio",
        "symbol_ratio",
        1,
        "symbols",
        "Too many hash signs and ellipses for its words.",
    ),
    Rule("max_uppercase", "uppercase", 1, "shouting", "Too many letters are upper case."),
    Rule("max_bullet_lines", "bullet_lines", 1, "bullet-lines", "Too many lines are list items."),
    Rule(
        "max_ellipsis_lines",
        "ellipsis_lines",
        1,
        "ellipsis-lines",
        "Too many lines end in an ellipsis: teasers of other pages.",
    ),
    Rule(
        "min_terminal_lines",
        "terminal_lines",
        -1,
        "unfinished-lines",
        "Too few lines end a sentence: menus, tables, lists.",
    ),
    Rule("min_sentences", "sentences", -1, "few-sentences", "Too few sentences end in it."),
    Rule("max_short_lines", "short_lines", 1, "short-lines", "Too many lines are very short."),
    Rule("max_newlines", "newlines", 1, "list", "Too many line ends for its words: a list."),
    Rule(
        "max_curly_brackets",
        "curly_brackets",
        1,
        "curly-brackets",
        "Too many curly brackets: it is program code.",
    ),
    Rule(
        "max_javascript_lines",
        "javascript_lines",
        1,
        "javascript",
        "Too many lines speak of JavaScript: notices of a web page.",
    ),
    Rule("max_lorem_ipsum", "lorem_ipsum", 1, "lorem-ipsum", "It holds the filler text of drafts."),
    Rule(
        "max_duplicate_lines",
        "duplicate_lines",
        1,
        "repetition-lines",
        "Too many lines stood before in the document.",
    ),
    Rule(
        "max_duplicate_line_characters",
        "duplicate_line_characters",
        1,
        "repetition-lines",
        "Too much of it is lines that stood before in the document.",
    ),
    Rule(
        "max_duplicate_paragraphs",
        "duplicate_paragraphs",
        1,
        "repetition-paragraphs",
        "Too many paragraphs stood before in the document.",
    ),
    Rule(
        "max_duplicate_paragraph_characters",
        "duplicate_paragraph_characters",
        1,
        "repetition-paragraphs",
        "Too much of it is paragraphs that stood before in the document.",
    ),
    *(
        Rule(
            f"max_{value}",
            value,
            1,
            "repetition-words",
            f"Too much of it is one sequence of {n} words, again and again.",
        )
        for n, value in ((2, "top_bigram"), (3, "top_trigram"), (4, "top_4gram"))
    ),
    *(
        Rule(
            f"max_duplicate_{n}grams",
            f"duplicate_{n}grams",
            1,
            "repetition-words",
            f"Too much of it is sequences of {n} words that stood before in the document.",
        )
        for n in range(5, 11)
    ),
    Rule(
        "min_stop_words",
        "stop_words",
        -1,
        "few-stop-words",
        "Too few of its words are the language's small words: no running text in it.",
    ),
    Rule(
        "min_distinct_stop_words",
        "distinct_stop_words",
        -1,
        "few-stop-words",
        "Too few different small words of the language: no running text in it.",
    ),
)
VALUE_NAMES = [name for name, _ in FILTER_VALUES]


def rules_with(scores: Iterable[str]) -> tuple[Rule, ...]:
    """RULES and two for each model score, `min_NAME` and `max_NAME`."""
    found = list(RULES)
    for name in sorted(scores):
        words = f"The model {name!r} gives it too {{}} a score."
        found += [
            Rule(f"min_{name}", name, -1, f"low-{name}", words.format("low")),
            Rule(f"max_{name}", name, 1, f"high-{name}", words.format("high")),
        ]
    return tuple(found)


def profiles(
    pack: Pack, overrides: dict[str, float | None], rules: tuple[Rule, ...] = RULES
) -> dict[str, Limits]:
    """By genre ('' for all others) the pack's thresholds with the recipe's on top.

    Raises RecipeError for a threshold, of the recipe or the pack, that no rule knows.
    """
    known = [rule.threshold for rule in rules]
    named = {f"filter.thresholds.{name}": name for name in overrides}
    named |= {f"pack {pack.code}, thresholds.{name}": name for name in pack.thresholds}
    for genre, limits in pack.genres.items():
        named |= {f"pack {pack.code}, genres.{genre}.{name}": name for name in limits}
    for where, name in named.items():
        if name not in known:
            raise RecipeError("Unknown threshold", where, nearest(name, known), "unknown-threshold")
    genres: dict[str, dict[str, Any]] = {"": {}, **pack.genres}
    return {g: _limits(pack.thresholds, own, overrides) for g, own in sorted(genres.items())}


def enforced(pack: Pack, overrides: dict[str, float | None]) -> dict[str, Limits] | None:
    """What a pack without measured evidence drops by: the generic minimum and what the recipe says
    itself. None for a measured pack, whose own thresholds drop."""
    if pack.evidence == "measured":
        return None
    return {"": _limits(load_pack("und").thresholds, overrides)}


def _limits(*layers: dict[str, Any]) -> Limits:
    """Later layers win; null switches a rule off."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return {name: float(value) for name, value in sorted(merged.items()) if value is not None}


Columns = dict[str, np.ndarray]


def columns(values: pa.Table | pa.RecordBatch, scores: Columns | None = None) -> Columns:
    """The measured values by name as numpy arrays, and the scores."""
    found = {name: values.column(name).to_numpy(zero_copy_only=False) for name in VALUE_NAMES}
    return {**found, **(scores or {})}


def decide(
    values: Columns, limits: Limits, rules: tuple[Rule, ...] = RULES, rows: np.ndarray | None = None
) -> np.ndarray:
    """The first reason of `rules` that applies to each row (object array), None where none does."""
    chosen = values if rows is None else {name: column[rows] for name, column in values.items()}
    count = len(next(iter(chosen.values())))
    reasons = np.full(count, None, dtype=object)
    free = np.ones(count, bool)
    for rule in rules:
        if rule.threshold not in limits:
            continue
        # as float32, like the values: 0.1 measured is not beyond 0.1 allowed
        limit = np.float32(limits[rule.threshold])
        beyond = free & ((chosen[rule.value] - limit) * rule.sign > 0)
        reasons[beyond] = rule.reason
        free &= ~beyond
    return reasons


def judge(
    values: Columns,
    genres: np.ndarray,
    by_genre: dict[str, Limits],
    rules: tuple[Rule, ...] = RULES,
) -> np.ndarray:
    """Like `decide`, each row by the limits of its genre, or by those of '' where it has none."""
    reasons = np.full(len(genres), None, dtype=object)
    places = np.array([genre if genre in by_genre else "" for genre in genres.tolist()], object)
    for genre in sorted(set(places.tolist())):
        rows = np.flatnonzero(places == genre)
        reasons[rows] = decide(values, by_genre[genre], rules, rows)
    return reasons
