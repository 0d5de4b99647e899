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
@click.option("--sweep", "sweeps", multiple=True, metavar="K=V1,V2", help="A run for each value.")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--from", "start", metavar="STAGE", help="Begin here; all before must be done.")
@click.option("--redo", metavar="STAGE", help="Make this stage's result again.")
@click.option("--name", help="Name of the run [the recipe's].")
@click.option("--new", is_flag=True, help="Forget checkpoints of an unfinished training.")
@click.option("--dry-run", is_flag=True, help="Show what would run and why; start nothing.")
@click.option("--no-ray", is_flag=True, help="Everything in this one process.")
@global_options
def run(recipe, overrides, sweeps, until, start, redo, name, new, dry_run, no_ray) -> None:
    """Run RECIPE (a .yaml file or a shipped name) from raw text to a model.

    Finished work is not done again: after Ctrl-C, a crash or a kill, the same
    command goes on where it stopped.

    With --sweep there is a run for each value, one after another, over the same
    shards, and one table at the end. Several --sweep make all combinations. A
    list stands in brackets: --sweep train.betas=[0.9,0.95],[0.9,0.98]
    """
    from mutirao.core.recipe_file import load_recipe

    if name:
        overrides = (*overrides, f"name={name}")
    if sweeps:
        refuse_for_sweep(redo, new)
        from mutirao.run.execute import Options

        run_trials(recipe, overrides, sweeps, Options(until, start, use_ray=not no_ray), dry_run)
        return
    loaded = load_recipe(recipe, overrides)
    if dry_run:
        from mutirao.run.dry_run import dry_run as look_ahead

        print_result(*look_ahead(loaded, settings().workdir))
        return
    from mutirao.run.execute import Options

    run_to_end(loaded, Options(until, start, redo, new, not no_ray), this_command())


def this_command() -> str:
    """What continues this command: without the flags that would throw away what it has done."""
    words, past_redo = [], False
    for word in sys.argv[1:]:
        if not past_redo and word not in ("--new", "--redo") and not word.startswith("--redo="):
            words.append(shlex.quote(word))
        past_redo = word == "--redo"
    return " ".join(["mutirao", *words])


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


def refuse_for_sweep(redo: str | None, new: bool) -> None:
    from mutirao.core.errors import RecipeError

    if redo or new:
        hint = "Give the one run by --set first, then the sweep: it takes what is finished."
        raise RecipeError("--redo and --new are for one run, not a sweep", hint=hint, code="usage")


def run_trials(recipe, overrides, sweeps, options: Options, dry_run: bool) -> None:
    """A run for each combination of values, then the table of all; exit code 1 if any failed."""
    from mutirao.core.errors import UserError
    from mutirao.run.compare_tables import lines
    from mutirao.run.sweep import dry_runs, read_trials, result_of, run_sweep

    workdir = settings().workdir
    trials = read_trials(recipe, overrides, sweeps)
    if dry_run:
        plans = list(dry_runs(trials, workdir))
        print_result([value for value, _ in plans], [line for _, said in plans for line in said])
        return
    try:
        ended = run_sweep(trials, workdir, options, settings().quiet)
    except KeyboardInterrupt:
        click.echo(f"\nStopped. Continue with: {this_command()}", err=True)
        raise
    found = result_of(workdir, ended)
    value = {"trials": [one.record() for one in ended], **(found.record() if found else {})}
    print_result(value, lines(found) if found else [])
    failed = [one.id for one in ended if one.problem]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(ended)} runs of the sweep failed",
            ", ".join(failed),
            f"mutirao runs logs {failed[0]}",
            "sweep-failed",
        )
