"""`mutirao data clean|exact|langid|filter|neardup|decontaminate|tokenizer|pack INPUT...`."""

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
KINDS = ("bpe", "sentencepiece-bpe", "sentencepiece-unigram")
LANGUAGE = {
    True: "Needed with files: pt, gug, ...",
    False: "For cleaning: pt, gug, ...",
}


def _options(needs_language: bool, *own: Callable[..., Any]) -> Callable[..., Any]:
    """What the commands share, after the options of their own."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        command.__doc__ = (command.__doc__ or "").rstrip() + INPUTS
        where = click.Path(path_type=Path)
        words = LANGUAGE[needs_language]
        for decorate in (
            global_options,
            click.option("--ray/--no-ray", default=None, help="Force Ray on or off [by size]."),
            click.option(
                "--set", "overrides", multiple=True, metavar="K=V", help="A recipe value."
            ),
            click.option("--language", default="", metavar="CODE", help=words),
            *reversed(own),
            click.option(
                "--output",
                required=True,
                type=where,
                metavar="DIR",
                help="A new folder, or its own.",
            ),
            click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        ):
            command = decorate(command)
        return command

    return decorated


@click.command()
@_options(True)
def clean(**options: Any) -> None:
    """Read files and repair their text; quarantine what cannot be read."""
    _run("clean", **options)


@click.command()
@_options(False)
def exact(**options: Any) -> None:
    """Clean, then drop documents equal after normalisation."""
    _run("exact", **options)


@click.command()
@_options(True)
def langid(**options: Any) -> None:
    """Clean, then drop documents in other languages."""
    _run("langid", **options)


@click.command("filter")
@_options(True)
def filter_(**options: Any) -> None:
    """Clean, then judge quality by the language pack's thresholds.

    The pack alone decides: language is judged by `mutirao data langid`.
    """
    _run("filter", **options)


@click.command()
@_options(
    False,
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="X",
        help="Jaccard similarity of word 5-grams [0.8].",
    ),
    click.option(
        "--against",
        multiple=True,
        metavar="DIR",
        help="Also drop what is near to documents kept there; may be repeated.",
    ),
)
def neardup(threshold: float | None, against: tuple[str, ...], **options: Any) -> None:
    """Clean, then drop equal and nearly equal documents.

    Every pair is verified; of two documents the better source, then the longer
    stays. --against: the DIR of an earlier `mutirao data neardup`, or a run's
    folder, whose index is read and not made again.
    """
    _run("neardup", {"neardup.threshold": threshold, "neardup.against": against}, **options)


@click.command()
@_options(
    False,
    click.option(
        "--against",
        multiple=True,
        metavar="FILE",
        help="Evaluation texts (text, jsonl, csv) of your own; may be repeated.",
    ),
)
def decontaminate(against: tuple[str, ...], **options: Any) -> None:
    """Clean, then drop documents that share text with evaluation sets.

    Looked for are the sets of the language's pack (--language) and those of
    --against.
    """
    _run("decontaminate", {"decontaminate.against": against}, **options)


@click.command()
@_options(
    False,
    click.option("--kind", type=click.Choice(KINDS), metavar="KIND", help=f"{', '.join(KINDS)}."),
    click.option(
        "--vocab-size",
        type=click.IntRange(300, 1_000_000),
        metavar="N",
        help="Ids, spare ones included [4096].",
    ),
)
def tokenizer(kind: str | None, vocab_size: int | None, **options: Any) -> None:
    """Clean, drop equal documents, hold some out, train a tokenizer.

    DIR/tokenizer can be opened by transformers as it is.
    """
    _run("tokenizer", {"tokenizer.kind": kind, "tokenizer.vocab_size": vocab_size}, **options)


@click.command()
@_options(
    False,
    click.option(
        "--tokenizer",
        "path",
        metavar="PATH",
        help="A tokenizer.json, its folder, or the DIR of `data tokenizer`.",
    ),
    click.option(
        "--pretokenized",
        is_flag=True,
        help="INPUT is token files: parquet with input_ids, .npy, Megatron .bin.",
    ),
)
def pack(path: str | None, pretokenized: bool, **options: Any) -> None:
    """Clean, drop equal documents, hold some out, write token shards.

    Over the DIR of `mutirao data tokenizer` its tokenizer is taken.
    """
    _run("pack", {"tokenizer.path": path}, pretokenized=pretokenized, **options)


def _run(
    command: str,
    flags: dict[str, Any] | None = None,
    *,
    inputs: tuple[str, ...],
    output: Path,
    language: str,
    overrides: tuple[str, ...],
    ray: bool | None,
    pretokenized: bool = False,
) -> None:
    from mutirao.core.progress import Progress
    from mutirao.run.plain_files import finished, prepare, run_task

    task = prepare(command, inputs, output, language, flags or {}, overrides, pretokenized)
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
    """Counts by stage and reason, what was written, and what to do next."""
    value: dict[str, Any] = {"output": str(output), "command": command, "run": result.run.id}
    lines: list[str] = []
    if "clean" in result.manifests:
        counts, lines = _documents(result, before)
        value |= counts
    if "decontaminate" in result.manifests and "decontaminate" not in before:
        value["evaluation_sets"] = result.manifests["decontaminate"].content["info"]["sets"]
        lines += [_set_line(one) for one in value["evaluation_sets"]]
    written, more = _written(output, result)
    value |= written
    lines += more
    place = shlex.quote(str(output))
    if "clean" in result.manifests:
        lines += [
            f"Look: mutirao data show {place} [--dropped] [--json]",
            f"Take: mutirao data export {place} --format parquet --output FILE.parquet",
        ]
    return value, lines


def _documents(result: Any, before: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    from data_jobs.results.view import tally

    counts = tally(result.manifests, before)
    dropped = sum(sum(reasons.values()) for reasons in counts["dropped"].values())
    total = counts["documents_in"]
    lines = [f"{total:,} documents in, {counts['kept']:,} kept, {dropped:,} dropped"]
    for stage, reasons in counts["dropped"].items():
        for reason, number in reasons.items():
            share = number / max(total, 1)
            lines.append(f"  {stage:<13} {reason:<25} {number:>12,} {share:>7.1%}")
    return counts, lines


def _set_line(one: dict[str, Any]) -> str:
    """What of an evaluation set was looked for, and what of it the documents hold."""
    looked = f"{one['texts']:,} text{'s' * (one['texts'] != 1)}, {one['ngrams']:,} n-grams"
    found = f"found {one['texts_found']:,}, drops {one['documents_dropped']:,}"
    return f"  {one['name'][:20]:<20} {looked}; {found}"[:79]


def _written(output: Path, result: Any) -> tuple[dict[str, Any], list[str]]:
    """Of the tokenizer and the token shards: what they are, and where."""
    from mutirao.run.plain_files import TOKENIZER
    from mutirao.run.summary import WORDS

    value: dict[str, Any] = {}
    lines = []
    places = {"tokenizer": output / TOKENIZER}
    if "pack" in result.manifests:
        places["pack"] = output / result.manifests["pack"].directory.relative_to(
            result.workdir.root
        )
    for name, place in places.items():
        if name in result.manifests:
            manifest = result.manifests[name]
            info = manifest.content["info"]
            value[name] = {"folder": str(place), "counts": manifest.counts, "info": info}
            lines += [f"{name}: {WORDS[name](manifest.counts, info)}"[:79], f"  in {place}"]
    return value, lines
