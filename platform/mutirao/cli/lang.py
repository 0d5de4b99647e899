"""`mutirao lang`: the language packs, deriving one from reference text, checking one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mutirao.cli.common import global_options, print_result, settings

if TYPE_CHECKING:
    from mutirao.core.languages import Pack

WHERE_HELP = "Only documents with this field, such as lang=glg; may be given again."


@click.group()
def lang() -> None:
    """List, show, derive and check language packs."""


@lang.command("list")
@global_options
def list_packs() -> None:
    """The shipped packs and what they rest on."""
    from mutirao.core.languages import shipped_packs

    rows = [
        {
            "code": pack.code,
            "name": pack.name,
            "evidence": pack.evidence,
            "documents": pack.figures.get("documents", 0),
            "text_bytes": pack.figures.get("text_bytes", 0),
        }
        for pack in shipped_packs()
    ]
    lines = [
        f"{row['code']:<10} {row['name']:<34} {row['evidence']:<9} "
        f"{row['documents']:>7,} texts {row['text_bytes'] / 1e6:>6.2f} MB"
        for row in rows
    ]
    print_result(rows, lines)


@lang.command()
@click.argument("code")
@click.option("--pack", "folder", type=click.Path(path_type=Path), help="A folder of your own.")
@global_options
def show(code: str, folder: Path | None) -> None:
    """The pack of the language CODE: words, thresholds, genres, evidence."""
    from mutirao.core.languages import load_pack

    pack = load_pack(code, folder)
    print_result(_pack_json(pack), _pack_lines(pack))


@lang.command()
@click.argument("code")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the pack [./CODE].")
@click.option("--where", multiple=True, metavar="FIELD=VALUE", help=WHERE_HELP)
@click.option("--name", help="Name of the language in English.")
@click.option("--note", default="", help="A sentence on the evidence, kept in the pack.")
@global_options
def new(
    code: str,
    inputs: tuple[str, ...],
    output: Path | None,
    where: tuple[str, ...],
    name: str | None,
    note: str,
) -> None:
    """Derive a pack for the language CODE from INPUT: text worth keeping, from several sources.

    Writes pack.yaml into the folder; name the folder as `language_pack` in a recipe. Genres, word
    characters and other parts that people write are kept from a pack that is there already.
    """
    from data_jobs.quality.derive_pack import derive, pack_yaml
    from data_jobs.quality.reference_text import read_reference
    from mutirao.core.files import make_output_folder, write_bytes
    from mutirao.core.language_codes import canonical
    from mutirao.core.languages import load_pack

    folder = output or Path(canonical(code))
    own = folder if (folder / "pack.yaml").is_file() else None
    earlier = load_pack(code, own)
    hand = None if earlier.code == "und" else earlier
    references = read_reference(code, inputs, _fields(where), say=_say())
    derived = derive(references, earlier.word_characters)
    title = name or (hand.name if hand else canonical(code))
    text = pack_yaml(canonical(code), title, derived, hand, note)
    make_output_folder(folder)
    write_bytes(folder / "pack.yaml", text.encode("utf-8"))
    pack = load_pack(code, folder)
    print_result(
        {"path": str(folder / "pack.yaml"), **_pack_json(pack)},
        [f"Wrote {folder / 'pack.yaml'}", *_pack_lines(pack), *_what_now(pack, folder)],
    )


@lang.command()
@click.argument("code")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--pack", "folder", type=click.Path(path_type=Path), help="A folder of your own.")
@click.option("--where", multiple=True, metavar="FIELD=VALUE", help=WHERE_HELP)
@click.option("--genre", default="", help="Judge by the thresholds of this genre.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the worst documents.",
)
@global_options
def check(
    code: str,
    inputs: tuple[str, ...],
    folder: Path | None,
    where: tuple[str, ...],
    genre: str,
    limit: int,
) -> None:
    """How many documents of INPUT the pack of CODE keeps, by source and by rule."""
    from data_jobs.quality.check_pack import check as check_pack
    from data_jobs.quality.reference_text import read_reference
    from mutirao.core.errors import RecipeError, nearest
    from mutirao.core.languages import load_pack

    pack = load_pack(code, folder)
    if genre and genre not in pack.genres:
        raise RecipeError(
            f"The pack {pack.code} has no genre {genre!r}", hint=nearest(genre, pack.genres)
        )
    found = read_reference(code, inputs, _fields(where), str(folder or ""), _say())
    value = check_pack(found, pack, genre, limit)
    print_result(value, _check_lines(value))


def _fields(where: tuple[str, ...]) -> dict[str, str]:
    from mutirao.core.errors import RecipeError

    for entry in where:
        if "=" not in entry:
            raise RecipeError(f"Not FIELD=VALUE: {entry!r}", "--where", code="bad-where")
    return {name: value for name, _, value in (entry.partition("=") for entry in where)}


def _say() -> Callable[[str], None]:
    from mutirao.core.progress import Progress

    return Progress(quiet=settings().quiet).say


def _pack_json(pack: Pack) -> dict[str, Any]:
    return {
        "code": pack.code,
        "language": pack.language,
        "name": pack.name,
        "evidence": pack.evidence,
        "note": pack.note,
        "stop_words": sorted(pack.stop_words),
        "word_characters": pack.word_characters,
        "thresholds": pack.thresholds,
        "genres": pack.genres,
        "confusable": list(pack.confusable),
        "evaluation": [one.as_json() for one in pack.evaluation],
        "tokenizer": pack.tokenizer,
        "figures": pack.figures,
    }


def _pack_lines(pack: Pack) -> list[str]:
    lines = [f"{pack.code}  {pack.name}", *_wrapped("evidence", f"{pack.evidence}. {pack.note}")]
    lines += _wrapped("stop words", " ".join(sorted(pack.stop_words)) or "none")
    if pack.word_characters:
        lines += _wrapped("word characters", " ".join(pack.word_characters))
    lines += [f"  {name:<36} {value:g}" for name, value in pack.thresholds.items()]
    for genre, limits in pack.genres.items():
        shown = ", ".join(f"{k} {'off' if v is None else f'{v:g}'}" for k, v in limits.items())
        lines += _wrapped(f"genre {genre}", shown)
    if pack.confusable:
        lines += _wrapped("confusable", ", ".join(pack.confusable))
    return lines + _evaluation_lines(pack)


def _evaluation_lines(pack: Pack) -> list[str]:
    """The sets that `decontaminate` looks for, with their licence; then those it only knows."""
    lines = []
    for one in pack.evaluation:
        if one.ngrams or one.file:
            about = f"{one.title or one.name} ({one.license or 'no licence stated'})"
            lines += _wrapped(f"evaluation {one.name}", about)
    known = [one for one in pack.evaluation if not (one.ngrams or one.file)]
    names = [f"{one.name} ({one.where})" if one.where else one.name for one in known]
    if names:
        lines += _wrapped("evaluation sets without a file", ", ".join(names))
    return lines


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(f"{head}: {text}", 79, initial_indent="  ", subsequent_indent="    ")


def _what_now(pack: Pack, folder: Path) -> list[str]:
    lines = [f"Use it: language_pack: {folder} in a recipe; see what it keeps: mutirao lang check"]
    if pack.evidence == "thin":
        lines.append("The evidence is thin: it scores, and drops nothing by its thresholds.")
    return lines


def _check_lines(value: dict[str, Any]) -> list[str]:
    lines = [f"{value['pack']}: keeps {value['kept']:.1%} of {value['documents']:,} documents"]
    if value["evidence"] != "measured":
        lines.append("  (its evidence is thin: in a run these thresholds drop nothing)")
    for source, row in value["sources"].items():
        rules = ", ".join(f"{k} {v:,}" for k, v in list(row["rules"].items())[:2])
        line = f"  {source[:30]:<30} {row['kept']:>7.1%} of {row['documents']:>6,}  {rules}"
        lines.append(line.rstrip())
    lines += [
        f"  {name:<36} {row['threshold']:<8g} drops {row['documents']:,}, {row['only']:,} alone"
        for name, row in value["rules"].items()
    ]
    for row in value["worst"]:
        lines.append(f"{row['reason']}: {row['source']} {row['document']}"[:79])
        lines.append(f"  {row['value']} {row['measured']:g}, threshold {row['threshold']:g}")
        lines.append(f"  {row['snippet'][:76]}")
    return lines
