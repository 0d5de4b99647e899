"""`mutirao energy`: what a run has used, by stage, and how much of it was measured."""

from __future__ import annotations

import click

from mutirao.cli.common import global_options, print_result, settings


@click.group()
def energy() -> None:
    """Show the energy of a run."""


@energy.command()
@click.argument("run")
@global_options
def show(run: str) -> None:
    """kWh by stage, the measured share, CO2e with its factor and source."""
    from mutirao.core.ledger import show as ledger_lines
    from mutirao.core.ledger import totals
    from mutirao.core.runs import find_run

    found = find_run(settings().workdir, run)
    print_result(totals(found.directory), ledger_lines(found.directory))
