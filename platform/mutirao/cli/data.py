"""`mutirao data`: documents that were kept, documents that were dropped, and why."""

from __future__ import annotations

import textwrap
from typing import Any

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
    from data_jobs.view import show as documents
    from mutirao.core.runs import find_run
    from mutirao.run.show import manifests

    found = find_run(settings().workdir, run)
    rows = list(documents(manifests(settings().workdir, found), dropped, limit))
    print_result(rows, [line for row in rows for line in _row_lines(row)])


@data.command()
@click.argument("run")
@click.argument("document")
@global_options
def explain(run: str, document: str) -> None:
    """Every decision about one DOCUMENT (id, the source's own id, or SHARD:ROW)."""
    from data_jobs.view import explain as explain_document
    from mutirao.core.runs import find_run
    from mutirao.run.show import manifests

    found = find_run(settings().workdir, run)
    value = explain_document(manifests(settings().workdir, found), document)
    print_result(value, _explain_lines(value))


def _row_lines(row: dict[str, Any]) -> list[str]:
    """Where, why and the first words, each on one line of at most 79 columns."""
    place = f"{row['shard']}:{row['row']}" if "shard" in row else str(row["position"])
    head = f"{place:<8} {row.get('source', '')} {row.get('name') or row.get('file', '')}"
    lines = [head[:79].rstrip()]
    if row.get("reason"):
        lines.append(f"  dropped by {row['stage']}: {row['reason']}")
    if other := row.get("duplicate_of"):
        lines.append(f"  stays in its place: {other['shard']}:{other['row']} {other['name']}"[:79])
    words = " ".join(str(row.get("snippet", "")).split())
    return [*lines, f"  {words[:76]}".rstrip()]


def _explain_lines(value: dict[str, Any]) -> list[str]:
    verdict = "kept" if value["kept"] else f"dropped by {value['stage']}: {value['reason']}"
    lines = [
        f"{value['id']}  {value['shard']}:{value['row']}",
        f"  {value['source']} {value['name']}, {value['license']}"[:79],
        f"  {verdict}",
    ]
    for stage, values in value["decisions"].items():
        shown = ", ".join(f"{k} {v}" for k, v in values.items() if v is not None)
        lines += textwrap.wrap(
            f"{stage}: {shown or 'nothing'}", 79, initial_indent="  ", subsequent_indent="    "
        )
    return lines
