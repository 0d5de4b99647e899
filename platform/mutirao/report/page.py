"""The report of a run: one offline HTML page in the run's folder.

In: a run's folder, the manifests of its finished stages, its recipe. Out: `report.html`, one file
without scripts, network requests or external fonts; it can be mailed, printed and kept. A run that
stopped early gets a page too: a sentence stands where there is nothing to show yet.
Reading order: facts.py (what is known), gather.py, training.py and rules.py (where from), plots.py,
page.html.j2 and rules.html.j2 (how told).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mutirao.core.files import write_bytes
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Recipe
from mutirao.report.facts import Facts
from mutirao.report.gather import gather
from mutirao.report.plots import all_plots
from mutirao.report.rules import SHOWN
from mutirao.report.training_plots import training_plots
from mutirao.report.wording import (
    FILTERS,
    energy_sentences,
    energy_unit,
    loss_caption,
    result_sentence,
)

PAGE = "report.html"


def write_report(run_dir: Path, manifests: dict[str, Manifest], recipe: Recipe) -> Path:
    """Write `run_dir/report.html` by one rename and return its path.

    Raises UserError when the disk is full or a file of the run is of a newer format.
    """
    page = render(gather(run_dir, manifests, recipe))
    write_bytes(run_dir / PAGE, page.encode("utf-8"))
    return run_dir / PAGE


def render(facts: Facts) -> str:
    """The page as text; the same facts give the same text. All values are escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    template = environment.from_string(_shipped("page.html.j2"))
    plots = {**all_plots(facts), **training_plots(facts)}
    unit_j, unit = energy_unit(facts.energy.energy_j if facts.energy else 0.0)
    return template.render(
        facts=facts,
        sentence=result_sentence(facts),
        loss_caption=loss_caption(facts),
        energy_sentences=energy_sentences(facts),
        plots={name: Markup(svg) if svg else None for name, svg in plots.items()},
        css=Markup(_shipped("page.css")),
        text_language=facts.language.replace("_", "-"),
        unit_j=unit_j,
        unit=unit,
        rules_section=_rules_section(environment, facts),
    )


def _rules_section(environment: Environment, facts: Facts) -> Markup:
    """Empty where nothing was dropped and no pack has judged."""
    if not facts.rules.rules and not facts.rules.pack:
        return Markup("")
    template = environment.from_string(_shipped("rules.html.j2"))
    language = facts.language.replace("_", "-")
    return Markup(template.render(rules=facts.rules, shown=SHOWN, text_language=language))


def _shipped(name: str) -> str:
    return (files("mutirao.report") / name).read_text(encoding="utf-8")
