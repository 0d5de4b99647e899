"""Numbers and sentences as a reader meets them on the page; also the filters of the template."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mutirao.core.amounts import J_PER_KWH, electricity, kwh, significant

if TYPE_CHECKING:
    from mutirao.report.facts import Facts

SCALES = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
ENDINGS = {
    "done": "finished",
    "partial": "ran up to the stage that was asked for",
    "running": "is still running",
    "stopped": "was stopped and can be continued",
    "interrupted": "was interrupted and can be continued",
    "failed": "failed",
}


def result_sentence(facts: Facts) -> str:
    """What came out of the run, in one sentence; says so where there is nothing yet."""
    parts = [part for part in (_documents(facts), _model(facts), _quality(facts)) if part]
    if facts.energy:
        known = _measured(facts.energy.measured_share)
        parts.append(f"{kwh(facts.energy.energy_j)} of electricity ({known})")
    if not parts:
        return "No stage has finished yet, so there is nothing to report."
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def _documents(facts: Facts) -> str:
    if facts.documents_in is None:
        return ""
    said = f"{count(facts.documents_in)} documents in"
    if facts.documents_kept is not None:
        share = facts.documents_kept / max(1, facts.documents_in)
        said += f", {count(facts.documents_kept)} kept ({percent(share)})"
    return said


def _model(facts: Facts) -> str:
    tokens = [f"{scaled(facts.corpus_tokens)} tokens of text"] if facts.corpus_tokens else []
    if facts.trained_tokens:
        model = (
            f"a model of {scaled(facts.parameters)} parameters" if facts.parameters else "a model"
        )
        tokens.append(f"{model} trained on {scaled(facts.trained_tokens)} tokens")
    return ", ".join(tokens)


def _quality(facts: Facts) -> str:
    if facts.bits_per_byte is None:
        return ""
    said = f"held-out text at {facts.bits_per_byte:.3f} bits per byte"
    if facts.unigram_bits_per_byte is not None:
        said += f" against {facts.unigram_bits_per_byte:.3f} for a unigram model"
    return said


def _measured(share: float) -> str:
    if share >= 0.9995:
        return "all of it measured"
    return (
        f"{percent(share)} measured, the rest estimated" if share > 0 else "estimated, not measured"
    )


def energy_sentences(facts: Facts) -> str:
    """How much, how well it is known, what was wasted, and what the machine used besides."""
    energy = facts.energy
    if facts.energy_problem:
        return f"The energy ledger could not be read: {facts.energy_problem}."
    if not energy:
        return "No energy was recorded for this run."
    if energy.measured_share >= 0.9995:
        known = "counters measured all of it"
    elif energy.measured_share > 0:
        known = f"counters measured {percent(energy.measured_share)} of it, the rest is estimated"
    else:
        known = (
            "all of it is estimated from a model of the machine, because no counter could be read"
        )
    said = [f"The run used {kwh(energy.energy_j)}; {known}."]
    if energy.wasted_j:
        said.append(f"Of this, {kwh(energy.wasted_j)} went into work that was lost.")
    if energy.unattributed_j is not None:
        rest = kwh(energy.unattributed_j)
        said.append(f"In the same time the machine used another {rest} that belongs to no run.")
    return " ".join(said)


def loss_caption(facts: Facts) -> str:
    """What the lines of the loss plot are; only those that are there."""
    said = ["Mean loss in nats per token; lower is better."]
    if facts.heldout:
        said.append("Held-out points are of text that training never saw.")
    if facts.unigram_loss is not None:
        said.append("The dashed line is a model that knows only how frequent each token is.")
    if facts.restarts:
        said.append("A dotted line marks where a later attempt went on.")
    if facts.skipped_steps:
        steps = (
            "1 step was" if facts.skipped_steps == 1 else f"{count(facts.skipped_steps)} steps were"
        )
        said.append(f"{steps} left out by the guard because loss or gradient was out of bounds.")
    if facts.events:
        said.append("Marks at the top: a triangle for a step left out, a diamond for a rollback.")
    return " ".join(said)


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def scaled(value: float | None) -> str:
    """1,234,567 -> '1.23 million'; below a million every digit."""
    for size, word in SCALES:
        if value is not None and value >= size:
            return f"{significant(value / size)} {word}"
    return count(value)


def size(value: float | None) -> str:
    for unit, word in SIZES:
        if value is not None and value >= unit:
            return f"{significant(value / unit)} {word}"
    return "–" if value is None else f"{value:,.0f} B"


def percent(share: float) -> str:
    """One digit after the point where it says something."""
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def energy_unit(largest_j: float) -> tuple[float, str]:
    """(joules per unit, name) in which the largest amount of a plot or table reads well."""
    for joules, name in ((J_PER_KWH, "kWh"), (3600.0, "Wh")):
        if largest_j >= joules:
            return joules, name
    return 1.0, "J"


def grams(value: float) -> str:
    return f"{significant(value / 1000)} kg" if value >= 1000 else f"{significant(value)} g"


def duration(wall_s: float | None) -> str:
    if wall_s is None:
        return "–"
    if wall_s < 120:
        return f"{wall_s:.1f} s"
    minutes = round(wall_s / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def moment(utc_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(utc_s))


def ending(status: str) -> str:
    return ENDINGS.get(status, status)


FILTERS = {
    "count": count,
    "scaled": scaled,
    "size": size,
    "percent": percent,
    "significant": significant,
    "kwh": kwh,
    "electricity": electricity,
    "grams": grams,
    "duration": duration,
    "moment": moment,
    "ending": ending,
}
