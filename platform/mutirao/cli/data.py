"""`mutirao data`: judge plain files, look at documents kept and dropped, take them elsewhere."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import click

from mutirao.cli.common import global_options, print_result, settings
from mutirao.cli.data_files import (
    clean,
    decontaminate,
    exact,
    filter_,
    langid,
    neardup,
    pack,
    tokenizer,
)
from mutirao.cli.data_forget import forget

SHOWN = 10  # documents, where nobody says how many
NEAR = 5  # near-duplicates on a page; --json has more


@click.group()
def data() -> None:
    """Judge plain files; show, explain, export and forget documents.

    RESULT is a run, or the folder that one of the commands from clean to pack
    made of INPUT files.
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
    duplicate_of (the document that stays), jaccard with it (1 where they are
    equal), source, name, url, license, kind and the whole text.
    """
    from data_jobs.results.view import show as documents
    from mutirao.run.results import open_result

    found = open_result(settings().workdir, result)
    whole = settings().json
    count = SHOWN if limit is None and not whole else limit
    against = found.run.recipe().neardup.against
    for row in documents(found.manifests, dropped, count, whole, against):
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
        alike = f", jaccard {row['jaccard']:.3f}" if row["jaccard"] is not None else ""
        lines.append(f"  stays in its place: {_place(other)}{alike}"[:79])
    words = " ".join(str(row["text"])[:200].split())
    return [*lines, f"  {words[:76]}"] if words else lines


def _place(other: dict[str, Any]) -> str:
    """SHARD:ROW and name; of an earlier result also its folder."""
    place = f"{other['shard']}:{other['row']} " if other["shard"] is not None else ""
    named = place + (other.get("name") or other.get("id", "")[:12])
    return f"{named} of {other['against']}" if "against" in other else named


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
    whole, left = value.get("text_bytes", 0), value.get("kept_text_bytes", 0)
    if left < whole and value["kept"]:
        lines.append(f"  without some of its paragraphs: {left:,} of {whole:,} bytes stay")
    for stage in value["stages"]:
        lines += _stage_lines(stage, first=stage["stage"] == value["stage"])
    return lines


def _stage_lines(stage: dict[str, Any], first: bool) -> list[str]:
    """The stage's verdict, then a line a check: value, sign, threshold; '!' where it fails, '?'
    where only a thin pack would drop."""
    reason = stage["drop_reason"]
    verdict = f"DROPS: {reason}" if reason and first else f"would drop: {reason}" if reason else ""
    silent = "keeps" if stage.get("looked_at", True) else "not looked at, dropped before"
    lines = [f"{stage['stage']:<14} {verdict or silent}"]
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
    return lines + [one[:79] for one in _duplicate_lines(stage)]


def _duplicate_lines(stage: dict[str, Any]) -> list[str]:
    """What stays in its place, also where that was dropped in turn; what else is near to it."""
    lines = []
    if other := stage.get("duplicate_of"):
        lines.append(f"   stays in its place: {_place(other)}{_fate(other)}")
    if end := stage.get("in_the_end"):
        lines.append(f"   stays in the end:   {_place(end)}{_fate(end)}")
    if edges := stage.get("edges"):
        size = stage["values"].get("cluster_size")
        cluster = f" in a cluster of {size:,}" if size else ""
        lines.append(f"   verified near: {edges:,}{cluster}; the most alike:")
        lines += [f"     {near['jaccard']:<8.4g} {_place(near)}" for near in stage["near"][:NEAR]]
    return lines


def _fate(other: dict[str, Any]) -> str:
    return f", dropped by {other['stage']}: {other['drop_reason']}" if other.get("stage") else ""


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


FILES = (clean, exact, langid, filter_, neardup, decontaminate, tokenizer, pack)
for command in (*FILES, forget):
    data.add_command(command)
