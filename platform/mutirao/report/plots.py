"""The plots of the report: `Facts` in, inline SVG out (None where there is nothing to draw).

Text stays text (`svg.fonttype: none`), so the page is small, can be searched and uses the reader's
fonts. The same facts give the same bytes. Blue and orange are from Okabe and Ito's palette, which
colour-blind readers tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mutirao.report.facts import LEFT_OUT, Facts, Points, StageEnergy
from mutirao.report.wording import count, energy_unit, significant

WIDTH_IN = 5.4  # about 390 pt: half of a wide page, and still readable on a telephone
MAX_POINTS = 500  # per line; more are averaged in groups
MAX_BARS = 24
BLUE, SKY, ORANGE, GREY, INK = "#0072B2", "#8EC7EA", "#D55E00", "#9AA0A6", "#222222"
ORANGE_TEXT = "#A84300"  # 6:1 on white
ENERGY_BARS = (("measured", BLUE, ""), ("estimated", "#E3F0F9", "/////"), ("wasted", ORANGE, ""))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 11,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E4E6E8",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.linewidth": 1.2,
    "figure.facecolor": "white",
}


def all_plots(facts: Facts) -> dict[str, str | None]:
    """SVG by name; each has a title for screen readers."""
    return {
        "drops": drops(facts),
        "loss": loss(facts),
        "speed": speed(facts),
        "learning_rate": learning_rate(facts),
        "energy": energy(facts),
    }


def drops(facts: Facts) -> str | None:
    """A bar for each stage and reason, in the order of the stages; the largest MAX_BARS of them."""
    if not facts.drops:
        return None
    largest = sorted(facts.drops, key=lambda d: -d.documents)[:MAX_BARS]
    shown = [drop for drop in facts.drops if drop in largest]
    with _figure(0.9 + 0.27 * len(shown)) as (figure, axes):
        rows = range(len(shown))
        amounts = [drop.documents for drop in shown]
        axes.barh(rows, amounts, height=0.66, color=BLUE)
        labels = [f"{drop.stage}: {drop.reason}" for drop in shown]
        axes.set_yticks(rows, [_clipped(label) for label in labels])
        for row, amount in zip(rows, amounts, strict=True):
            _label_bar(axes, amount, row, count(amount))
        axes.invert_yaxis()
        axes.set_title("documents dropped", loc="left", fontsize=11)
        axes.set_xlim(0, max(amounts) * 1.18)
        _bars_only(axes)
        return _svg(figure, "drops", "Documents dropped, by stage and reason")


def loss(facts: Facts) -> str | None:
    """Training loss (thin: each step or group of steps; thick: smoothed), held-out points, and what
    a model that knows only token frequencies would reach on the held-out text."""
    if not facts.losses:
        return None
    with _figure(3.3) as (figure, axes):
        points = thinned(facts.losses)
        axes.plot(*_columns(points), color=SKY, linewidth=0.9)
        smooth = smoothed(points)
        axes.plot(*_columns(smooth), color=BLUE, linewidth=1.8)
        labels = [(smooth[-1][1], "training", BLUE)]
        if facts.heldout:
            axes.plot(*_columns(facts.heldout), color=ORANGE, marker="o", markersize=5, linewidth=1)
            labels.append((facts.heldout[-1][1], "held-out", ORANGE_TEXT))
        if facts.unigram_loss is not None:
            axes.axhline(facts.unigram_loss, color="#5F6368", linewidth=1.2, linestyle=(0, (4, 3)))
            labels.append((facts.unigram_loss, "unigram", "#5F6368"))
        _mark_restarts(axes, facts)
        _mark_events(axes, facts)
        _steps(axes)
        axes.set_ylabel("nats per token")
        _label_ends(axes, labels)
        return _svg(figure, "loss", "Training loss by optimizer step, with held-out loss")


def speed(facts: Facts) -> str | None:
    if not facts.speed:
        return None
    with _figure(2.5) as (figure, axes):
        points = thinned(facts.speed)
        axes.plot(
            *_columns(points), color=BLUE, linewidth=1.5, marker=_marker(points), markersize=4
        )
        axes.set_ylim(0, max(value for _, value in points) * 1.15)
        _mark_restarts(axes, facts)
        _steps(axes)
        axes.set_ylabel("tokens per second")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        return _svg(figure, "speed", "Tokens per second by optimizer step")


def learning_rate(facts: Facts) -> str | None:
    if not facts.learning_rate:
        return None
    with _figure(1.9) as (figure, axes):
        points = thinned(facts.learning_rate)
        axes.plot(
            *_columns(points), color=BLUE, linewidth=1.5, marker=_marker(points), markersize=4
        )
        axes.set_ylim(0, max(max(value for _, value in points) * 1.15, 1e-12))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
        _steps(axes)
        axes.set_ylabel("learning rate")
        return _svg(figure, "learning-rate", "Learning rate by optimizer step")


def energy(facts: Facts) -> str | None:
    """A bar for each stage: measured, estimated (hatched), wasted (orange); unattributed last."""
    if not facts.energy or not facts.energy.stages:
        return None
    stages, rest = facts.energy.stages, facts.energy.unattributed_j
    largest = max([stage.energy_j for stage in stages] + [rest or 0.0])
    unit, name = energy_unit(largest)
    labels = [stage.stage for stage in stages] + (["unattributed"] if rest else [])
    with _figure(1.5 + 0.27 * len(labels)) as (figure, axes):
        ends = _stacked(axes, stages, unit, f"energy in {name}")
        if rest:
            axes.barh([len(stages)], [rest / unit], 0.66, color=GREY)
            ends.append(rest / unit)
        for row, end in enumerate(ends):
            _label_bar(axes, end, row, significant(end))
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, max(largest / unit, 1e-12) * 1.18)
        _bars_only(axes)
        return _svg(figure, "energy", "Energy by stage: measured, estimated and wasted")


def _stacked(axes: Axes, stages: tuple[StageEnergy, ...], unit: float, title: str) -> list[float]:
    """Bars of the kinds that occur, and a legend of these; returns where each stage's bar ends."""
    bars = [_useful(s.measured_j, s.estimated_j, s.wasted_j) for s in stages]
    left = [0.0] * len(stages)
    for amounts, (label, fill, hatch) in zip(zip(*bars, strict=True), ENERGY_BARS, strict=True):
        if any(amounts):
            widths = [amount / unit for amount in amounts]
            style: dict[str, Any] = {"facecolor": fill, "hatch": hatch, "edgecolor": BLUE}
            axes.barh(range(len(stages)), widths, 0.66, left, label=label, linewidth=0, **style)
            left = [a + b for a, b in zip(left, widths, strict=True)]
    if any(left):
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderpad": 0}
        axes.legend(title=title, alignment="left", ncols=3, frameon=False, **place)
    return left


def thinned(points: Points) -> Points:
    """At most MAX_POINTS points: means of equal groups, each at the last step of its group."""
    group = -(-len(points) // MAX_POINTS)
    groups = [points[i : i + group] for i in range(0, len(points), group)]
    return tuple((g[-1][0], sum(value for _, value in g) / len(g)) for g in groups)


def smoothed(points: Points) -> Points:
    """Mean over a window of a fortieth of the points, centred, so that it doesn't lag behind."""
    reach = len(points) // 80
    found = []
    for at, (step, _) in enumerate(points):
        half = min(reach, at, len(points) - 1 - at)
        window = points[at - half : at + half + 1]
        found.append((step, sum(value for _, value in window) / len(window)))
    return tuple(found)


@contextmanager
def _figure(height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure apart from pyplot: nothing global is left behind."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, name: str, title: str) -> str:
    """The <svg> element alone: no prolog, no metadata, ids that are unique on the page, a title."""
    matplotlib.rcParams["svg.hashsalt"] = name
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z.\d]+_\d+"', "", text)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="1\.1"', "", text).replace("xlink:href", "href")
    head = f'<svg role="img" aria-labelledby="plot-{name}"'
    return text.replace("<svg", head, 1).replace(
        ">", f'><title id="plot-{name}">{escape(title)}</title>', 1
    )


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _marker(points: Points) -> str | None:
    return "o" if len(points) < 3 else None


def _useful(measured_j: float, estimated_j: float, wasted_j: float) -> tuple[float, float, float]:
    """Measured, estimated and wasted joules that add up: waste is taken from both in proportion."""
    total = measured_j + estimated_j
    left = max(0.0, 1 - wasted_j / total) if total > 0 else 0.0
    return measured_j * left, estimated_j * left, min(wasted_j, total)


def _steps(axes: Axes) -> None:
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_xlim(left=0)


def _bars_only(axes: Axes) -> None:
    axes.grid(False)
    axes.margins(y=0.01)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.set_xticks([])


def _label_bar(axes: Axes, end: float, row: int, text: str) -> None:
    axes.annotate(text, (end, row), (4, 0), textcoords="offset points", va="center")


def _mark_restarts(axes: Axes, facts: Facts) -> None:
    for step in facts.restarts:
        axes.axvline(step, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)))


def _mark_events(axes: Axes, facts: Facts) -> None:
    """At the top: triangles for steps that the guard left out, diamonds for all other events."""
    for marker, wanted in (("v", True), ("D", False)):
        steps = [e.step for e in facts.events if (e.what in LEFT_OUT) == wanted]
        style: dict[str, Any] = {"linestyle": "", "color": ORANGE, "markersize": 5}
        where = axes.get_xaxis_transform()
        axes.plot(steps, [0.97] * len(steps), marker, transform=where, **style)


def _label_ends(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Names at the right end of the lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap, at = (high - low) * 0.085, float("-inf")
    for value, text, colour in sorted(labels):
        at = max(value, at + gap)
        axes.annotate(
            f"{text} {value:.2f}",
            (1, (at - low) / (high - low)),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def _clipped(text: str, length: int = 34) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
