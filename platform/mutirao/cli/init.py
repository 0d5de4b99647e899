"""`mutirao init DIR`: a recipe for one's own text."""

from __future__ import annotations

from pathlib import Path

import click

from mutirao.cli.common import global_options, print_result, settings


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--language", required=True, metavar="CODE", help="pt, por, por_Latn, gug, ...")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="FILE",
    help="File, folder or glob; may be repeated, and more may follow.",
)
@click.argument("more", nargs=-1)
@click.option("--force", is_flag=True, help="Overwrite DIR/recipe.yaml.")
@global_options
def init(
    directory: Path, language: str, inputs: tuple[str, ...], more: tuple[str, ...], force: bool
) -> None:
    """Count what is in your files and write DIR/recipe.yaml for them."""
    from mutirao.core.errors import RecipeError
    from mutirao.core.files import write_bytes
    from mutirao.core.languages import load_pack
    from mutirao.core.progress import Progress
    from mutirao.core.recipe import Recipe
    from mutirao.core.recipe_file import parse_recipe
    from mutirao.run.new_recipe import recipe_text, sources_for, take_census
    from mutirao.run.sources import fingerprints

    target = directory / "recipe.yaml"
    if target.exists() and not force:
        raise RecipeError(
            "There is a recipe already", str(target), "Use --force to overwrite it.", "exists"
        )
    pack = load_pack(language)
    base = directory.absolute()
    name = base.name.replace(" ", "-")
    sources = sources_for((*inputs, *more), base)
    draft = Recipe(name=name, language=pack.language, sources=tuple(sources))
    Progress(quiet=settings().quiet).say("Reading the files")
    census = take_census(fingerprints(draft, base, None), draft)
    if not census.documents:
        raise RecipeError("No document was found in these files", ", ".join(inputs), code="empty")
    text = recipe_text(name, pack.language, sources, census)
    parse_recipe(text, str(target))
    write_bytes(target, text.encode("utf-8"))
    value = {
        "recipe": str(target),
        "files": census.files,
        "documents": census.documents,
        "text_bytes": census.text_bytes,
        "languages": dict(census.languages.most_common()),
        "rejected": dict(census.rejected),
    }
    print_result(value, [*census.lines(), f"Wrote {target}. Next: mutirao run {target} --dry-run"])
