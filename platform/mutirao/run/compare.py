"""Runs beside one another: how their recipes differ, what came out of each, what it took.

In: two or more runs of a workdir, finished or not. Out: a `Comparison` of plain values; what does
not compare is refused for its row, with the reason, and the rest still stands. The first run that
has a value is the one that others must be comparable with: bits per byte with the same held-out
text, losses with the same tokenizer.
Reading order: this, compare_rows.py, recipe_differences.py, heldout_text.py, compare_tables.py (how
it is said).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from mutirao.core.energy_rows import J_PER_KWH
from mutirao.core.errors import RecipeError
from mutirao.core.runs import Run, find_run
from mutirao.core.workdir import Workdir
from mutirao.run.compare_rows import Points, Row, look_at
from mutirao.run.heldout_text import same_text
from mutirao.run.recipe_differences import Difference, recipe_differences

FORMAT = 1
SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)  # of the tokens that all have seen: the loss is told there
WINDOW = 1 / 20  # of the same: a loss is the mean over the steps of so many tokens before it


@dataclass(frozen=True)
class Comparison:
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    at_tokens: tuple[int, ...]  # where the losses below are told
    losses: tuple[tuple[float | None, ...], ...]  # of each run at each of `at_tokens`
    refused: tuple[str, ...]  # what does not compare and why, a sentence each

    def record(self) -> dict[str, Any]:
        """As JSON; energies in joules and kWh."""
        hidden = ("losses", "heldout_text", "loss_kind")
        rows = [{k: v for k, v in vars(row).items() if k not in hidden} for row in self.rows]
        for row in rows:
            for name in ("train", "energy"):
                joules = row[f"{name}_j"]
                row[f"{name}_kwh"] = None if joules is None else joules / J_PER_KWH
        return {
            "format": FORMAT,
            "runs": rows,
            "differences": [asdict(one) for one in self.differences],
            "loss": {"at_tokens": self.at_tokens, "runs": self.losses},
            "refused": self.refused,
        }


def find_runs(workdir: Workdir, words: tuple[str, ...]) -> list[Run]:
    """Raises RecipeError for fewer than two, an unknown one, and the same run twice."""
    if len(words) < 2:
        hint = "Name two or more: mutirao runs compare A B (`mutirao runs list` shows them)."
        raise RecipeError("There is nothing to compare it with", hint=hint, code="one-run")
    found: dict[str, str] = {}
    runs = []
    for word in words:
        run = find_run(workdir, word)
        if run.id in found:
            names = word if word == found[run.id] else f"{found[run.id]} and {word}"
            hint = "A recipe's name stands for its newest run; `mutirao runs list` shows all."
            raise RecipeError(f"The same run twice: {names} is {run.id}", hint=hint, code="twice")
        found[run.id] = word
        runs.append(run)
    return runs


def compare(workdir: Workdir, runs: list[Run]) -> Comparison:
    """Raises UserError for files of a newer format, RecipeError for a recipe that does not read."""
    rows = [look_at(workdir, run) for run in runs]
    rows, other_text = _comparable_bits(rows)
    rows, other_loss = _comparable_losses(rows)
    at = common_tokens(rows)
    window = at[-1] * WINDOW if at else 0
    losses = tuple(tuple(loss_at(row.losses, tokens, window) for tokens in at) for row in rows)
    refused = (*other_text, *other_loss)
    return Comparison(tuple(rows), tuple(recipe_differences(runs)), at, losses, refused)


def best_first(found: Comparison) -> Comparison:
    """By bits per byte at the end; then the others by those while training, unknown ones last."""

    def rank(number: int) -> tuple[bool, float]:
        row = found.rows[number]
        last = row.heldout[-1][1] if row.heldout else float("inf")
        return row.bits_per_byte is None, last if row.bits_per_byte is None else row.bits_per_byte

    order = sorted(range(len(found.rows)), key=rank)

    def sort(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[number] for number in order)

    differences = (replace(one, values=sort(one.values)) for one in found.differences)
    return replace(
        found, rows=sort(found.rows), losses=sort(found.losses), differences=tuple(differences)
    )


def common_tokens(rows: list[Row]) -> tuple[int, ...]:
    """Token counts that every run with losses has reached: the last of them, and shares of it."""
    reached = [row.losses[-1][0] for row in rows if row.losses]
    return tuple(round(min(reached) * share) for share in SHARES) if reached else ()


def loss_at(losses: Points, tokens: int, window: float) -> float | None:
    """Mean loss of the steps that ended in the `window` tokens up to `tokens`, of the last step
    before it where none did; None before the first step."""
    before = [(at, loss) for at, loss in losses if at <= tokens]
    some = [loss for at, loss in before if at > tokens - window] or [v for _, v in before[-1:]]
    return sum(some) / len(some) if some else None


def _comparable_bits(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Without the bits per byte on other text than the first run's that has some."""

    def has(row: Row) -> bool:
        return row.bits_per_byte is not None or bool(row.heldout)

    def same(one: Row, other: Row) -> bool:
        assert one.heldout_text and other.heldout_text, "measured on packed tokens"
        return same_text(one.heldout_text, other.heldout_text)

    def why(one: Row, other: Row) -> str:
        return (
            f"Bits per byte of {other.id} are on other held-out text ({other.heldout_text}) than "
            f"those of {one.id} ({one.heldout_text})."
        )

    return _without(rows, has, same, why, {"bits_per_byte": None, "heldout": ()})


def _comparable_losses(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Without the losses of another unit: nats per token of another tokenizer, or of answers."""

    def why(one: Row, other: Row) -> str:
        assert one.loss_kind and other.loss_kind
        same_tokenizer = one.loss_kind[0] == other.loss_kind[0]
        what = "counts other tokens (train.loss_on)" if same_tokenizer else "has another tokenizer"
        return (
            f"Losses of {other.id} do not compare with those of {one.id}: it {what}, and they are "
            "nats per token."
        )

    def same(one: Row, other: Row) -> bool:
        return one.loss_kind == other.loss_kind

    return _without(rows, lambda row: bool(row.losses), same, why, {"losses": ()})


def _without(
    rows: list[Row],
    has: Callable[[Row], bool],
    same: Callable[[Row, Row], bool],
    why: Callable[[Row, Row], str],
    nothing: dict[str, Any],
) -> tuple[list[Row], list[str]]:
    first = next((row for row in rows if has(row)), None)
    kept, refused = [], []
    for row in rows:
        if first is not None and has(row) and not same(first, row):
            refused.append(why(first, row))
            row = replace(row, **nothing)
        kept.append(row)
    return kept, refused
