"""One line about a step, for a terminal of 79 columns, and what comes in between: events, profiles.

In: rows of the metrics segments and the joules of the ledger. Out: words. No torch, no Ray.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from mutirao.core.amounts import electricity, left

RECENT = 20  # rows that the speed of what is left is taken from
LEAST_STEPS = 5  # measured before anything is foretold: the first ones compile and warm up
SAID = ("not-finite", "spike")  # verdicts of the guard on a step; others are said as they are
UNSAID = ("scaler", "left-out")  # as they should be


def step_line(row: dict[str, Any], note: str, steps: int) -> str:
    """`  step 120, 25%, loss 5.254, 6,076 tokens/s, MFU n/a, 1.9 Wh, 5 min left`"""
    return f"  step {row['step']:,}, {row['step'] / steps:.0%}, {note}"


def step_note(row: dict[str, Any], energy_j: float, left_s: float | None) -> str:
    """The same without step and percent, which a bar shows by itself. energy_j 0: not known."""
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.3f}"
    mfu = row.get("mfu")
    parts = [f"loss {loss}", f"{rate(row['tokens_per_s'])} tokens/s"]
    parts.append("MFU n/a" if mfu is None else f"MFU {mfu:.0%}")
    if energy_j:
        parts.append(electricity(energy_j))
    if left_s is not None:
        parts.append(f"{left(left_s)} left")
    return ", ".join(parts)


def rate(tokens_per_s: float) -> str:
    if tokens_per_s >= 1e6:
        return f"{tokens_per_s / 1e6:.2f}M"
    return f"{tokens_per_s / 1e3:.0f}k" if tokens_per_s >= 1e5 else f"{tokens_per_s:,.0f}"


class Eta:
    """Seconds to the last step, by the recent pace with all that belongs to it: held-out losses,
    checkpoints, a slower neighbour."""

    def __init__(self, steps: int):
        self.steps = steps
        self.recent: deque[tuple[int, float]] = deque(maxlen=RECENT)

    def note(self, row: dict[str, Any]) -> None:
        """A row of kind train, or attempt: the pace of another attempt says nothing."""
        if row["kind"] == "attempt":
            self.recent.clear()
        else:
            self.recent.append((row["step"], row["wall_s"]))

    def left_s(self) -> float | None:
        if not self.recent:
            return None
        (step0, wall0), (step, wall) = self.recent[0], self.recent[-1]
        if step - step0 < LEAST_STEPS:
            return None
        return (self.steps - step) * (wall - wall0) / (step - step0)


def event_line(row: dict[str, Any]) -> str:
    """'' for what is no news."""
    what, step = row["what"], row["step"]
    if what in UNSAID:
        return ""
    if what in SAID:
        about = f"loss {_number(row.get('loss'))}, gradient norm {_number(row.get('grad_norm'))}"
        word = "a spike" if what == "spike" else "not finite"
        return f"  step {step:,} is left out, {word}: {about}"
    words = [what] if row.get("to_step") is None else [what, f"back to step {row['to_step']:,}"]
    words += [str(row[name]) for name in ("cause", "detail") if row.get(name)]
    return f"  step {step:,}: {', '.join(words)}"


def attempt_line(row: dict[str, Any]) -> str:
    workers = "1 worker" if row["workers"] == 1 else f"{row['workers']} workers"
    return f"  goes on from step {row['step']:,} with {workers}"


def profile_lines(row: dict[str, Any]) -> list[str]:
    """The operations that took most of a recorded step."""
    lines = [f"  step {row['step']:,} took {row['wall_s']:.3g} s; its profile: {row['file']}"]
    for name, calls, own_s in row["top"]:
        lines.append(f"    {own_s:>9.4f} s  {calls:>7,} x  {name[:51]}")
    return lines


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
