"""A comparison as tables of words: the same cells for the terminal and for the page.

In: a `Comparison`. Out: `Table`s with a row for each run, so that any number of runs fits into 79
columns; the differences of the recipes become columns where they are few and short, else lines.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from mutirao.core.ledger import kwh
from mutirao.report.wording import count, duration, percent
from mutirao.run.compare import Comparison
from mutirao.run.compare_rows import Row
from mutirao.run.recipe_differences import Difference

COLUMNS = 79
GAP = 2
MOST_OF_ID = 20
UNKNOWN = "–"
SHORT = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Table:
    """rows: cells of each run, in the order of the comparison; a head for each cell."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Comparison) -> list[Table]:
    """All but the differences of the recipes."""
    every = [
        _table("State", found, STATE),
        _table("Result", found, RESULT),
        _losses(found),
        _table("Cost", found, COST),
    ]
    return [table for table in every if table.heads]


def lines(found: Comparison) -> list[str]:
    """The comparison for a terminal of 80 columns."""
    ids = [row.id for row in found.rows]
    state, *rest = tables(found)
    said = [*_printed(state, ids), "", *_differences(found)]
    for table in rest:
        said += ["", *_printed(table, ids)]
    notes = sentences(found)
    return said + ([""] if notes else []) + [piece for note in notes for piece in _wrapped(note)]


def sentences(found: Comparison) -> list[str]:
    """What is refused and why, what failed, and how well the energy is known."""
    failed = [f"{row.id}, {row.status}: {row.reason}." for row in found.rows if row.reason]
    notes = [f"{note}." for row in found.rows for note in row.notes]
    looks = []
    if any(row.heldout for row in found.rows):
        looks = ["Bits per byte are of all held-out text; in training, of its first sequences."]
    return [*found.refused, *failed, *notes, *looks, *_energy_sentences(found)]


def _energy_sentences(found: Comparison) -> list[str]:
    shares = [row.measured_share for row in found.rows if row.measured_share is not None]
    if not shares or min(shares) >= 0.9995:
        return []
    if max(shares) == 0:
        return ["All energy is estimated, none of it measured."]
    low, high = percent(min(shares)), percent(max(shares))
    share = low if low == high else f"{low} to {high}"
    return [f"Of the energy {share} was measured, the rest is estimated."]


def value_text(value: Any) -> str:
    """A value as one would write it in a recipe."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value) if str(value) else "''"


def short_count(value: float) -> str:
    """61440 -> 61.4k."""
    for size, letter in SHORT:
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def _state(row: Row) -> tuple[str, ...]:
    share = row.tokens / row.planned_tokens
    return row.status, count(row.parameters), count(row.tokens), f"{min(1.0, share):.0%}"


def _result(row: Row) -> tuple[str, ...]:
    last = row.heldout[-1][1] if row.heldout else None
    bits = [UNKNOWN if v is None else f"{v:.4f}" for v in (row.bits_per_byte, last)]
    return *bits, count(row.skipped_steps), count(row.rollbacks)


def _cost(row: Row) -> tuple[str, ...]:
    return (
        count(row.tokens_per_s),
        UNKNOWN if row.train_j is None else kwh(row.train_j),
        UNKNOWN if row.energy_j is None else kwh(row.energy_j),
        duration(row.train_wall_s),
        duration(row.wall_s),
    )


STATE = (("status", "parameters", "tokens", "of plan"), _state)
RESULT = (("bits per byte", "in training", "skipped", "rollbacks"), _result)
COST = (("tokens/s", "kWh train", "kWh all", "time train", "time all"), _cost)


def _table(title: str, found: Comparison, columns: Any) -> Table:
    heads, cells = columns
    return Table(title, heads, tuple(cells(row) for row in found.rows))


def _losses(found: Comparison) -> Table:
    rows = [[UNKNOWN if v is None else f"{v:.3f}" for v in losses] for losses in found.losses]
    heads = tuple(f"at {short_count(at)}" for at in found.at_tokens)
    return Table("Loss over tokens", heads, tuple(map(tuple, rows)))


def _differences(found: Comparison) -> list[str]:
    """Columns where they fit, else a line for each field with the runs that have each value."""
    if not found.differences:
        return ["The recipes do not differ."]
    heads = tuple(_name(one) for one in found.differences)
    cells = [[value_text(value) for value in one.values] for one in found.differences]
    table = Table("Recipe", heads, tuple(zip(*cells, strict=True)))
    printed = _printed(table, [row.id for row in found.rows])
    if max(map(len, printed)) <= COLUMNS:
        return printed
    said = [f"Recipe: {len(heads)} differences (values, and the numbers of the runs)"]
    for one in found.differences:
        line = f"  {_name(one)}: {_by_value(one)}"
        said += textwrap.wrap(line, COLUMNS, subsequent_indent="      ", break_on_hyphens=False)
    return said


def _name(one: Difference) -> str:
    """A mark at what changes no result."""
    return one.name if one.role == "identity" else f"({one.name})"


def _by_value(one: Difference) -> str:
    runs: dict[str, list[str]] = {}
    for number, value in enumerate(one.values, start=1):
        runs.setdefault(value_text(value), []).append(str(number))
    return "; ".join(f"{value} in {', '.join(numbers)}" for value, numbers in runs.items())


def _printed(table: Table, ids: list[str]) -> list[str]:
    """The title and heads, then a line for each run; columns as wide as they must be."""
    digits = len(str(len(ids)))
    first = [f"{n:>{digits}} {_shortened(name)}" for n, name in enumerate(ids, start=1)]
    wide = max(len(table.title), *map(len, first))
    widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
    rows = [(table.title, table.heads), *zip(first, table.rows, strict=True)]
    return [
        f"{begin:<{wide}}"
        + "".join(f"{cell:>{width + GAP}}" for cell, width in zip(cells, widths, strict=True))
        for begin, cells in rows
    ]


def _shortened(name: str) -> str:
    """With its end, which tells runs of one recipe apart."""
    return name if len(name) <= MOST_OF_ID else f"{name[: MOST_OF_ID - 10]}…{name[-9:]}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent="  ", break_on_hyphens=False)
