"""`mutirao data`: judge plain files, look at documents kept and dropped, take them elsewhere."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import click

from mutirao.cli.common import global_options, print_result, settings
from mutirao.cli.data_files import clean, exact, filter_, langid
from mutirao.cli.data_forget import forget

SHOWN = 10  # documents, where nobody says how many


@click.group()
def data() -> None:
    """Judge plain files; show, explain, export and forget documents.

    RESULT is a run, or the folder that clean, exact, langid or filter made.
    """


@data.command()
@click.argument("result")
@click.option("--dropped", is_flag=True, help="What was dropped and why.")
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"At most so many [{SHOWN}; with --json all]."
)
@global_options
def show(result: str, dropped: bool, limit: int | None) -> None:
    """Documents that RESULT kept, or those it dropped and why.

    With --json one object a line: id, lang, lang_score, drop_reason, stage,
    source, name, url, license, kind and the whole text.
    """
    from data_jobs.results.view import show as documents
    from mutirao.run.results import open_result

    found = open_result(settings().workdir, result)
    whole = settings().json
    count = SHOWN if limit is None and not whole else limit
    for row in documents(found.manifests, dropped, count, whole):
        if whole:
            click.echo(json.dumps(row, ensure_ascii=False))
        else:
            click.echo("\n".join(_row_lines(row)))


@data.command()
@click.argument("result")
@click.argument("document")
@global_options
def explain(result: str, document: str) -> None:
    """The way of one DOCUMENT through the stages, and what dropped it.

    Each value stands beside its threshold. DOCUMENT: an id (its first 8 digits
    are enough), the source's own id, or SHARD:ROW.
    """
    from data_jobs.results.explain import explain as explain_document
    from mutirao.run.results import open_result

    found = open_result(settings().workdir, result)
    base = Path(found.run.record["base"])
    value = explain_document(found.manifests, document, found.run.recipe(), base)
    print_result(value, _explain_lines(value))


@data.command()
@click.argument("result")
@click.option("--format", "kind", required=True, metavar="FORMAT", help="parquet or jsonl.")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The file; jsonl also as .jsonl.gz and .jsonl.zst.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@global_options
def export(result: str, kind: str, output: Path, overwrite: bool) -> None:
    """Write the kept documents of RESULT to one file."""
    from data_jobs.results.export import FORMATS
    from data_jobs.results.export import export as export_documents
    from mutirao.core.errors import RecipeError, nearest
    from mutirao.run.results import open_result

    if kind not in FORMATS:
        problem = f"--format {kind}: there is no such format"
        raise RecipeError(problem, hint=nearest(kind, FORMATS), code="bad-format")
    found = open_result(settings().workdir, result)
    wrote = export_documents(found.manifests, kind, output, overwrite)
    line = f"Wrote {wrote['documents']:,} documents, {wrote['bytes'] / 1e6:,.1f} MB, to {output}"
    print_result({"output": str(output), "format": kind, **wrote}, [line])


def _row_lines(row: dict[str, Any]) -> list[str]:
    """Where, why and the first words, each on one line of at most 79 columns."""
    place = f"{row['shard']}:{row['row']}" if "shard" in row else str(row["position"])
    language = f"{row['lang']} {row['lang_score']:.2f}  " if row["lang"] else ""
    head = f"{place:<8} {row['id'][:12]}  {language}{row['source']} "
    lines = [(head + (row["name"] or row.get("file", "")))[:79].rstrip()]
    if row["drop_reason"]:
        lines.append(f"  dropped by {row['stage']}: {row['drop_reason']}"[:79])
    if other := row.get("duplicate_of"):
        lines.append(f"  stays in its place: {other['shard']}:{other['row']} {other['name']}"[:79])
    words = " ".join(str(row["text"])[:200].split())
    return [*lines, f"  {words[:76]}"] if words else lines


def _explain_lines(value: dict[str, Any]) -> list[str]:
    verdict = "kept" if value["kept"] else f"dropped by {value['stage']}: {value['drop_reason']}"
    place = f"{value['shard']}:{value['row']}" if "shard" in value else value["file"]
    about = [value["source"], value.get("name", ""), value.get("license", "")]
    lines = [
        f"{value['id']}  {place}"[:79],
        f"  {', '.join(filter(None, about))}"[:79],
        f"  {' '.join(value['snippet'].split())[:76]}",
        f"  {verdict}",
    ]
    for stage in value["stages"]:
        lines += _stage_lines(stage, first=stage["stage"] == value["stage"])
    return lines


def _stage_lines(stage: dict[str, Any], first: bool) -> list[str]:
    """The stage's verdict, then a line a check: value, sign, threshold; '!' where it fails, '?'
    where only a thin pack would drop."""
    reason = stage["drop_reason"]
    verdict = f"DROPS: {reason}" if reason and first else f"would drop: {reason}" if reason else ""
    lines = [f"{stage['stage']:<14} {verdict or 'keeps'}"]
    for check in stage["checks"]:
        mark = "!" if check["drops"] else "?" if check["would_drop"] else " "
        value, limit = _number(check["value"]), _number(check["threshold"])
        row = f" {mark} {check['name']:<30} {value:>9} {check['sign']:>2} {limit:<9}"
        lines.append((f"{row} {check['reason'] if mark != ' ' else ''}")[:79].rstrip())
        if check["drops"] and check["what"]:
            indent = " " * 5
            lines += textwrap.wrap(
                check["what"], 79, initial_indent=indent, subsequent_indent=indent
            )
    if thin := stage["values"].get("would_drop"):
        lines.append(f"   the pack is thin and drops nothing; measured, it would drop: {thin}"[:79])
    if other := stage.get("duplicate_of"):
        lines.append(f"   stays in its place: {other['shard']}:{other['row']} {other['id'][:12]}")
    return lines


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


for command in (clean, exact, langid, filter_, forget):
    data.add_command(command)
