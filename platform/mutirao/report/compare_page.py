"""Runs beside one another on one offline page, in the style of a run's report.

In: a `Comparison`. Out: an HTML file without scripts, network requests or external fonts. The lines
of the plots carry the numbers that the runs have in the tables.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mutirao.core.errors import RecipeError
from mutirao.core.files import write_bytes
from mutirao.report.plots import (
    BLUE,
    INK,
    ORANGE,
    _columns,
    _figure,
    _label_ends,
    _marker,
    _svg,
    smoothed,
    thinned,
)
from mutirao.report.wording import FILTERS
from mutirao.run.compare import Comparison
from mutirao.run.compare_rows import Points, Row
from mutirao.run.compare_tables import sentences, short_count, tables, value_text

# Okabe and Ito's palette, darker where a label must be read on white; then the same ones dashed.
COLOURS = (BLUE, ORANGE, "#00795A", "#A3508A", "#1E7FB8", "#9A6A00", INK)
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))


def write_comparison(found: Comparison, path: Path) -> Path:
    """Write the page by one rename and return its path. Raises RecipeError for a folder, UserError
    where it cannot be written."""
    if path.is_dir():
        hint = f"Name a file: --html {path / 'compare.html'}"
        raise RecipeError("--html takes the path of a file", str(path), hint, "bad-output")
    write_bytes(path, render_comparison(found).encode("utf-8"))
    return path


def render_comparison(found: Comparison) -> str:
    """The page as text; the same comparison gives the same text. All values are escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update({**FILTERS, "written": value_text})
    template = environment.from_string(_shipped("compare.html.j2"))
    plots = {"loss": loss(found), "heldout": heldout(found)}
    return template.render(
        ids=[row.id for row in found.rows],
        sentence=best_sentence(found),
        notes=sentences(found),
        tables={table.title: table for table in tables(found)},
        differences=found.differences,
        plots={name: Markup(svg) if svg else None for name, svg in plots.items()},
        css=Markup(_shipped("page.css")),
    )


def best_sentence(found: Comparison) -> str:
    """Which run predicts the held-out text best, where more than one can be compared."""
    known = [row for row in found.rows if row.bits_per_byte is not None]
    if len(known) < 2:
        return "Held-out bits per byte are known of fewer than two of them."
    best = min(known, key=lambda row: row.bits_per_byte or 0.0)
    rest = sorted(row.bits_per_byte or 0.0 for row in known)[1]
    return (
        f"{best.id} predicts the held-out text best: {best.bits_per_byte:.4f} bits per byte, "
        f"the next {rest:.4f}."
    )


def loss(found: Comparison) -> str | None:
    def lines(row: Row) -> Points:
        return smoothed(thinned(row.losses)) if row.losses else ()

    return _plot(found, lines, "loss", "nats per token", "Training loss by tokens, for each run")


def heldout(found: Comparison) -> str | None:
    title = "Held-out bits per byte by tokens, for each run"
    return _plot(found, lambda row: row.heldout, "heldout", "bits per byte", title)


def _plot(found: Comparison, lines, name: str, unit: str, title: str) -> str | None:
    """A line for each run that has points; None where none has."""
    if not any(lines(row) for row in found.rows):
        return None
    with _figure(3.3) as (figure, axes):
        labels = []
        for number, row in enumerate(found.rows):
            points = lines(row)
            if points:
                colour = COLOURS[number % len(COLOURS)]
                dashes = DASHES[number // len(COLOURS) % len(DASHES)]
                axes.plot(*_columns(points), color=colour, linestyle=dashes, marker=_marker(points))
                labels.append((points[-1][1], f"{number + 1}:", colour))
        _tokens(axes)
        axes.set_ylabel(unit)
        _label_ends(axes, labels)
        return _svg(figure, f"compared-{name}", title)


def _tokens(axes: Axes) -> None:
    axes.set_xlabel("tokens")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlim(left=0)


def _shipped(name: str) -> str:
    return (files("mutirao.report") / name).read_text(encoding="utf-8")
