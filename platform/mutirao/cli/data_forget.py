"""`mutirao data forget`: take documents down."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from mutirao.cli.common import amount, global_options, print_result, settings


@click.command()
@click.option("--id", "ids", multiple=True, metavar="ID", help="Its id, or its source's own id.")
@click.option("--url", "urls", multiple=True, metavar="URL", help="Its URL.")
@click.option(
    "--match",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Each line an id, a URL, or a line of its text of 20 characters or more.",
)
@click.option("--near", is_flag=True, help="Near-duplicates too, which are else only named.")
@click.option("--reason", default="", metavar="TEXT", help="For the receipt.")
@click.option("--dry-run", is_flag=True, help="Only say what would be rewritten.")
@global_options
def forget(
    ids: tuple[str, ...],
    urls: tuple[str, ...],
    files: tuple[Path, ...],
    near: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Take documents down, and keep them out of what is made later.

    In every result of --workdir (a run's, or the folder of a `data` command)
    their text, URL and ids go from text, tokens, samples, rejects, logs and
    reports, and so do equal texts. Models stay as they are: the receipt names
    the runs that were trained on the documents.
    """
    from mutirao.core.progress import Progress
    from mutirao.run.forget import forget as forget_documents
    from mutirao.run.forget import read_wanted

    wanted = read_wanted(ids, urls, files)
    say = Progress(quiet=settings().quiet).say
    receipt = forget_documents(settings().workdir, wanted, near, reason, dry_run, say)
    print_result(receipt, _lines(receipt))


def _lines(receipt: dict[str, Any]) -> list[str]:
    verb = "Would forget" if receipt["dry_run"] else f"{receipt['time']}: forgot"
    copies = "1 copy" if receipt["copies"] == 1 else f"{receipt['copies']:,} copies"
    lines = [f"{verb} {amount(receipt['documents'], 'document')}, and {copies} of the same text"]
    if receipt["unmatched"]:
        lines.append(f"Of what was asked for, {receipt['unmatched']:,} found no document")
    counted: dict[str, list[int]] = {}
    for row in receipt["rewritten"]:
        counted.setdefault(f"{row['stage']}/{row['key']}", []).append(row["places"])
    lines += [
        f"  {name:<36} {amount(sum(places), 'place'):>12} in {amount(len(places), 'file')}"
        for name, places in counted.items()
    ]
    lines += [
        f"  {row['file'][-60:]:<60} {amount(row['places'], 'place')}"
        for row in receipt["text_files"]
    ]
    if receipt["near_duplicates"]:
        lines.append(f"Near-duplicates that stay (--near takes them): {_some(receipt)}")
    lines += [_trained(row) for row in receipt["trained"]]
    lines.append("Not reached:")
    for what in receipt["not_reached"]:
        lines += textwrap.wrap(what, 79, initial_indent="  ", subsequent_indent="    ")
    if "receipt" in receipt:
        lines.append(f"Receipt: {_short(receipt['receipt'])}")
    return lines


def _short(path: str) -> str:
    from mutirao.run.show import short

    return short(Path(path))


def _some(receipt: dict[str, Any]) -> str:
    near = receipt["near_duplicates"]
    return ", ".join(one[:12] for one in near[:2]) + (f" and {len(near) - 2}" if near[2:] else "")


def _trained(row: dict[str, Any]) -> str:
    if row["heldout_only"]:
        return f"Run {row['run']} was measured on them, not trained"
    if "through" in row:
        kept = f"{len(row['checkpoints'])} checkpoints"
        return f"Run {row['run']} began from run {row['through']}, which was; {kept}"
    steps = f", steps {row['steps'][0]:,} to {row['steps'][1]:,}" if row["steps"] else ""
    return f"Run {row['run']} was trained on them{steps}; {len(row['checkpoints'])} checkpoints"
