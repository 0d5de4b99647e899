"""`mutirao data clean|exact|langid|filter INPUT... --output DIR --language CODE`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mutirao.cli.common import global_options, print_result, settings

INPUTS = """

    INPUT: files, folders, globs, URLs, or the DIR of an earlier such command
    (then its kept documents). The same command again goes on where it stopped.
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the four commands share."""
    command.__doc__ = (command.__doc__ or "").rstrip() + INPUTS
    where = click.Path(path_type=Path)
    for decorate in (
        global_options,
        click.option("--ray/--no-ray", default=None, help="Force Ray on or off [by size]."),
        click.option("--set", "overrides", multiple=True, metavar="K=V", help="A recipe value."),
        click.option(
            "--language", default="", metavar="CODE", help="Needed with files: pt, gug, ..."
        ),
        click.option(
            "--output", required=True, type=where, metavar="DIR", help="A new folder, or its own."
        ),
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
    ):
        command = decorate(command)
    return command


@click.command()
@_options
def clean(**options: Any) -> None:
    """Read files and repair their text; quarantine what cannot be read."""
    _run("clean", **options)


@click.command()
@_options
def exact(**options: Any) -> None:
    """Clean, then drop documents equal after normalisation."""
    _run("exact", **options)


@click.command()
@_options
def langid(**options: Any) -> None:
    """Clean, then drop documents in other languages."""
    _run("langid", **options)


@click.command("filter")
@_options
def filter_(**options: Any) -> None:
    """Clean, then judge quality by the language pack's thresholds.

    The pack alone decides: language is judged by `mutirao data langid`.
    """
    _run("filter", **options)


def _run(
    command: str,
    inputs: tuple[str, ...],
    output: Path,
    language: str,
    overrides: tuple[str, ...],
    ray: bool | None,
) -> None:
    from mutirao.core.progress import Progress
    from mutirao.run.plain_files import finished, prepare, run_task

    task = prepare(command, inputs, output, language, overrides)
    result = finished(task)
    progress = Progress(quiet=settings().quiet)
    if result is not None:
        progress.say(f"Nothing to do: {output} was finished earlier.")
    else:
        try:
            result = run_task(task, progress, ray)
        except KeyboardInterrupt:
            again = " ".join(["mutirao", *map(shlex.quote, sys.argv[1:])])
            click.echo(f"\nStopped. Continue with: {again}", err=True)
            raise
    print_result(*_outcome(command, output, result, tuple(task.taken_over)))


def _outcome(
    command: str, output: Path, result: Any, before: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """Counts by stage and reason, and what to do next."""
    from data_jobs.results.view import tally

    counts = tally(result.manifests, before)
    value = {"output": str(output), "command": command, "run": result.run.id, **counts}
    dropped = sum(sum(reasons.values()) for reasons in counts["dropped"].values())
    total = counts["documents_in"]
    lines = [f"{total:,} documents in, {counts['kept']:,} kept, {dropped:,} dropped"]
    for stage, reasons in counts["dropped"].items():
        for reason, number in reasons.items():
            share = number / max(total, 1)
            lines.append(f"  {stage:<8} {reason:<30} {number:>12,} {share:>7.1%}")
    place = shlex.quote(str(output))
    lines += [
        f"Look: mutirao data show {place} [--dropped] [--json]",
        f"Take: mutirao data export {place} --format parquet --output FILE.parquet",
    ]
    return value, lines
