"""`mutirao run RECIPE`: the whole way, or what is left of it."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from mutirao.cli.common import global_options, print_result, settings

if TYPE_CHECKING:
    from mutirao.core.recipe_file import LoadedRecipe
    from mutirao.run.execute import Options


@click.command()
@click.argument("recipe")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a recipe value.")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--from", "start", metavar="STAGE", help="Begin here; all before must be done.")
@click.option("--redo", metavar="STAGE", help="Make this stage's result again.")
@click.option("--name", help="Name of the run [the recipe's].")
@click.option("--new", is_flag=True, help="Forget checkpoints of an unfinished training.")
@click.option("--dry-run", is_flag=True, help="Show what would run and why; start nothing.")
@click.option("--no-ray", is_flag=True, help="Everything in this one process.")
@global_options
def run(recipe, overrides, until, start, redo, name, new, dry_run, no_ray) -> None:
    """Run RECIPE (a .yaml file or a shipped name) from raw text to a model.

    Finished work is not done again: after Ctrl-C, a crash or a kill, the same
    command goes on where it stopped.
    """
    from mutirao.core.recipe_file import load_recipe

    if name:
        overrides = (*overrides, f"name={name}")
    loaded = load_recipe(recipe, overrides)
    if dry_run:
        from mutirao.run.dry_run import dry_run as look_ahead

        print_result(*look_ahead(loaded, settings().workdir))
        return
    from mutirao.run.execute import Options

    command = " ".join(["mutirao", *map(shlex.quote, sys.argv[1:])])
    run_to_end(loaded, Options(until, start, redo, new, not no_ray), command)


def run_to_end(loaded: LoadedRecipe, options: Options, command: str) -> None:
    """Run and print the result; after Ctrl-C, the command that continues."""
    from mutirao.core.progress import Progress
    from mutirao.run.execute import execute
    from mutirao.run.show import run_record, run_summary

    quiet = settings().quiet
    try:
        finished = execute(loaded, settings().workdir, options, Progress(quiet=quiet))
    except KeyboardInterrupt:
        click.echo(f"\nStopped. Continue with: {command}", err=True)
        raise
    print_result(run_record(finished), run_summary(finished, stages=quiet))
