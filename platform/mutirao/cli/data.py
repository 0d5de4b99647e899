"""`mutirao data`: documents that were kept, documents that were dropped, and why."""

from __future__ import annotations

import click

from mutirao.cli.common import global_options, print_result, settings


@click.group()
def data() -> None:
    """Look at documents, kept and dropped."""


@data.command()
@click.argument("run")
@click.option("--dropped", is_flag=True, help="What was dropped and why.")
@click.option("--limit", default=10, show_default=True, help="How many documents.")
@global_options
def show(run: str, dropped: bool, limit: int) -> None:
    """Documents of RUN with their source and text, or those dropped with the reason."""
    from itertools import islice

    from data_jobs.view import document_lines, documents

    from mutirao.core.runs import find_run
    from mutirao.run.show import manifests

    found = find_run(settings().workdir, run)
    rows = list(islice(documents(manifests(settings().workdir, found), dropped), limit))
    print_result(rows, [line for row in rows for line in document_lines(row)])


@data.command()
@click.argument("run")
@click.argument("document")
@global_options
def explain(run: str, document: str) -> None:
    """Every decision about one DOCUMENT (id, the source's own id, or SHARD:ROW)."""
    from data_jobs.view import explain as explain_document
    from data_jobs.view import explain_lines

    from mutirao.core.runs import find_run
    from mutirao.run.show import manifests

    found = find_run(settings().workdir, run)
    value = explain_document(manifests(settings().workdir, found), document)
    print_result(value, explain_lines(value))
