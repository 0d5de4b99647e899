"""`mutirao recipe`: the shipped recipes, and checking your own."""

from __future__ import annotations

from pathlib import Path

import click

from mutirao.cli.common import global_options, print_result


@click.group()
def recipe() -> None:
    """List, show, copy and check recipes."""


@recipe.command("list")
@global_options
def list_recipes() -> None:
    """The shipped recipes."""
    from mutirao.core.recipe_file import shipped_names, shipped_text

    rows = []
    for name in shipped_names():
        first = shipped_text(name).splitlines()[0].lstrip("# ").strip()
        rows.append({"name": name, "what": first})
    print_result(rows, [f"{row['name']:<12} {row['what']}" for row in rows])


@recipe.command()
@click.argument("name")
@global_options
def show(name: str) -> None:
    """Print a recipe (a file or a shipped name) with every value filled in."""
    from mutirao.core.recipe_file import dump_recipe, load_recipe

    loaded = load_recipe(name)
    print_result(
        loaded.recipe.model_dump(mode="json", by_alias=True), [dump_recipe(loaded.recipe).rstrip()]
    )


@recipe.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@global_options
def copy(name: str, target: Path) -> None:
    """Copy a shipped recipe to TARGET to change it there."""
    from mutirao.core.errors import RecipeError
    from mutirao.core.files import write_bytes
    from mutirao.core.recipe_file import shipped_text

    text = shipped_text(name)
    if target.is_dir():
        target = target / "recipe.yaml"
    if target.exists():
        raise RecipeError("There is a file already", str(target), "Choose another name.", "exists")
    write_bytes(target, text.encode("utf-8"))
    print_result({"path": str(target)}, [f"Wrote {target}. Run it: mutirao run {target}"])


@recipe.command()
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a value.")
@global_options
def check(name: str, overrides: tuple[str, ...]) -> None:
    """Check a recipe: keys, values, language, model, licences, sources of this machine.

    Sources behind a URL are counted and not looked at, so this needs no network.
    """
    from mutirao.core.languages import load_pack, pack_folder
    from mutirao.core.model_size import parameter_count, resolve
    from mutirao.core.recipe_file import load_recipe
    from mutirao.run.check import check_recipe
    from mutirao.run.sources import fingerprints, local_part

    loaded = load_recipe(name, overrides)
    pack = load_pack(loaded.recipe.language, pack_folder(loaded.recipe, loaded.base))
    check_recipe(loaded.recipe, loaded.base)
    shape = resolve(loaded.recipe.model, loaded.recipe.tokenizer.vocab_size)
    local, remote = local_part(loaded.recipe)
    files = fingerprints(local, loaded.base, None)
    size = sum(f["bytes"] for f in files)
    value = {
        "recipe": loaded.where,
        "language": pack.language,
        "files": len(files),
        "bytes": size,
        "remote": remote,
        "parameters": parameter_count(shape),
    }
    behind = f", {len(remote)} behind URLs (not looked at)" if remote else ""
    print_result(
        value,
        [
            f"{loaded.where} is well formed: {len(files)} source files, {size / 1e6:.1f} MB"
            f"{behind}, language {pack.language}, {value['parameters']:,} parameters"
        ],
    )
