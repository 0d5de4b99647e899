"""Held-out bits per byte by stream over the tokens of the run, as inline SVG; helpers: plots.py."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, MaxNLocator

from mutirao.report.facts import Facts
from mutirao.report.plots import _clipped, _columns, _figure, _label_ends, _svg, thinned
from mutirao.report.wording import scaled

# Okabe and Ito's colours, as lines and, darker, as text on white.
COLOURS = (
    ("#0072B2", "#0072B2"),
    ("#D55E00", "#A84300"),
    ("#009E73", "#00694D"),
    ("#CC79A7", "#9A3F72"),
    ("#E69F00", "#8A5F00"),
    ("#56B4E9", "#22709E"),
)
MARKERS = "os^Dv<"  # beside the colour, for those who cannot tell it


def training_plots(facts: Facts) -> dict[str, str | None]:
    return {"heldout_bits": heldout_bits(facts)}


def heldout_bits(facts: Facts) -> str | None:
    """A line for each of the streams with the most held-out text, named at its end."""
    streams = [one for one in facts.heldout_bits if one.points][: len(COLOURS)]
    if not streams:
        return None
    with _figure(2.9) as (figure, axes):
        labels = []
        for stream, (colour, ink), marker in zip(streams, COLOURS, MARKERS, strict=False):
            points = thinned(stream.points)
            few = marker if len(points) <= 40 else None
            axes.plot(*_columns(points), color=colour, marker=few, markersize=4, linewidth=1.4)
            labels.append((points[-1][1], _clipped(stream.name, 14), ink))
        axes.set_xlabel("tokens")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value)))
        axes.set_xlim(left=0)
        axes.set_ylabel("bits per byte")
        _label_ends(axes, labels)
        return _svg(figure, "heldout-bits", "Held-out bits per byte by stream, over tokens")
