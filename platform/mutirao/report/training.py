"""What the training measured, for the report and for `runs show`: metrics segments in, plain values
and words out. Everything may be missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from mutirao.core.amounts import significant
from mutirao.core.metrics import Row, read_metrics, step_losses
from mutirao.report.facts import LEFT_OUT, Event, Points, StreamBits
from mutirao.report.wording import count, percent, size

UNTOLD = ("scaler", "left-out")  # no events of the guard


def gather_training(run_dir: Path, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Facts`. evaluation: of the finished model, by stream where it knows them."""
    rows, heldout = read_metrics(run_dir), read_metrics(run_dir, "heldout")
    attempts = sorted({row["step"] for row in read_metrics(run_dir, "attempt")})
    return {
        "losses": finite_points(step_losses(run_dir).items()),
        "heldout": _points(heldout, "loss"),
        "heldout_bits": heldout_bits(rows, heldout, evaluation),
        "speed": _points(rows, "tokens_per_s"),
        "learning_rate": _points(rows, "lr"),
        "restarts": tuple(step for step in attempts if step > 0),
        "skipped_steps": rows[-1].get("skipped", 0) if rows else 0,
        "events": events(run_dir),
        "training": tuple(training_words(run_dir)),
    }


def heldout_bits(
    rows: list[Row], heldout: list[Row], evaluation: Mapping[str, Any]
) -> tuple[StreamBits, ...]:
    """The curve of each stream over tokens, and its figure on all of its held-out text; the stream
    with the most held-out text first."""
    per_step = rows[-1]["tokens"] / rows[-1]["step"] if rows and rows[-1].get("tokens") else 0
    points: dict[str, list[tuple[int, float]]] = {}
    for row in heldout if per_step else ():
        for one in row.get("streams", ()):
            if one["bits_per_byte"] is not None:
                where = (round(row["step"] * per_step), one["bits_per_byte"])
                points.setdefault(one["name"], []).append(where)
    final = {one["name"]: one for one in evaluation.get("streams", ())}
    found = [
        StreamBits(
            name,
            tuple(points.get(name, ())),
            final.get(name, {}).get("bits_per_byte"),
            final.get(name, {}).get("text_bytes"),
        )
        for name in {**final, **points}
    ]
    return tuple(sorted(found, key=lambda one: -(one.text_bytes or 0)))


def events(run_dir: Path) -> tuple[Event, ...]:
    """What the guard and the machine did, in order of steps."""
    return tuple(
        Event(row["step"], row["what"], row.get("to_step"), row.get("detail") or "")
        for row in read_metrics(run_dir, "event")
        if row["what"] not in UNTOLD
    )


def training_words(run_dir: Path) -> list[tuple[str, str]]:
    """(what, how much) of the training as far as it has come; [] before its first row."""
    rows = read_metrics(run_dir)
    if not rows:
        return []
    speeds = [row["tokens_per_s"] for row in rows if row.get("tokens_per_s") is not None]
    found = [
        ("Reached", f"step {count(rows[-1]['step'])}, {count(rows[-1].get('tokens'))} tokens"),
        ("Speed, median", f"{count(median(speeds))} tokens/s" if speeds else "–"),
        ("MFU, median", _mfu(rows, read_metrics(run_dir, "attempt"))),
    ]
    if time := _time(rows):
        found.append(("Time not on steps", time))
    if stall := _checkpoints(read_metrics(run_dir, "checkpoint")):
        found.append(("Checkpoints", stall))
    return [*found, *_guard(events(run_dir))]


def finite_points(points: Iterable[tuple[int, float | None]]) -> Points:
    """A loss that was not finite has no place on an axis."""
    return tuple((step, v) for step, v in points if v is not None and math.isfinite(v))


def _points(rows: list[Row], name: str) -> Points:
    return finite_points((row["step"], row.get(name)) for row in rows)


def _mfu(rows: list[Row], attempts: list[Row]) -> str:
    known = [row["mfu"] for row in rows if row.get("mfu") is not None]
    cards = " and ".join(sorted({row["device"] for row in attempts if row.get("device")}))
    if known:
        least = [row["mfu_matrices"] for row in rows if row.get("mfu_matrices") is not None]
        words = f"{median(known):.1%} of the dense peak" + (f" ({cards})" if cards else "")
        return words + (f", {median(least):.1%} by matrices alone" if least else "")
    return f"n/a: no peak is known for {cards or 'a CPU'}"


def _time(rows: list[Row]) -> str:
    """Shares of the time of the attempts that led to the result."""
    known = [row for row in rows if "data_s" in row]
    if not known:
        return ""
    # tokens of a row over its pace: the time on steps
    steps_s = sum(_row_tokens(row) / row["tokens_per_s"] for row in known if row["tokens_per_s"])
    beside_s = sum(row["beside_s"] for row in known)
    whole = max(steps_s + beside_s, 1e-9)
    waiting = percent(sum(row["data_s"] for row in known) / whole)
    beside = percent(beside_s / whole)
    return f"{waiting} loader; {beside} held-out, samples, checkpoints"


def _row_tokens(row: Row) -> float:
    return row["tokens"] * (row["step"] - row["first_step"] + 1) / row["step"]


def _checkpoints(rows: list[Row]) -> str:
    stalls = [row["stall_s"] for row in rows if row.get("stall_s") is not None]
    if not stalls:
        return ""
    written = [row["write_s"] for row in rows if row.get("write_s") is not None]
    sizes = [row["bytes"] for row in rows if row.get("bytes") is not None]
    words = count(len(stalls)) + (f" of {size(median(sizes))}" if sizes else "")
    words += f", standstill {significant(median(stalls), 2)} s (median)"
    return words + (f", written in {significant(median(written), 2)} s" if written else "")


def _guard(found: tuple[Event, ...]) -> list[tuple[str, str]]:
    kinds = Counter(event.what for event in found)
    left_out = {what: kinds.pop(what) for what in LEFT_OUT if what in kinds}
    words = []
    if left_out:
        by_kind = ", ".join(f"{what} {count(number)}" for what, number in left_out.items())
        words.append(("Steps left out by the guard", f"{count(sum(left_out.values()))}: {by_kind}"))
    for what, number in kinds.items():
        steps = [event for event in found if event.what == what]
        name = "Rollbacks" if what == "rollback" else f"Events: {what}"
        words.append((name, f"{count(number)}: {'; '.join(map(_where, steps[:3]))}"))
    return words


def _where(event: Event) -> str:
    back = "" if event.to_step is None else f" back to {count(event.to_step)}"
    return f"step {count(event.step)}{back}" + (f" ({event.detail})" if event.detail else "")
