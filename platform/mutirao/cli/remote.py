"""`mutirao submit RECIPE --address URL`: the same run, as a job of a Ray cluster."""

from __future__ import annotations

import click

from mutirao.cli.common import global_options, settings


@click.command()
@click.argument("recipe")
@click.option("--address", required=True, metavar="URL", help="Ray's job server (dashboard).")
@click.option("--follow", is_flag=True, help="Print the job's log; its exit code is the answer.")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a recipe value.")
@global_options
def submit(recipe: str, address: str, follow: bool, overrides: tuple[str, ...]) -> int:
    """Run RECIPE (a .yaml file or a shipped name) as a Ray job.

    --workdir is a folder on a disk that all nodes of the cluster share; the
    sources are read from there too. The same command again attaches to the
    running job, or continues a run that has ended early.
    """
    from cluster.submit import submit as submit_job
    from mutirao.core.progress import Progress
    from mutirao.core.recipe_file import load_recipe
    from mutirao.run.session import SETTINGS

    loaded = load_recipe(recipe, overrides)
    progress = Progress(quiet=settings().quiet)
    return submit_job(loaded, address, _workdir_there(address), follow, progress, SETTINGS)


def _workdir_there(address: str) -> str:
    """The workdir as the cluster sees it. Raises RecipeError if that would be a guess."""
    from cluster.connect import check_address, is_loopback
    from mutirao.core.errors import RecipeError

    check_address(address)
    if is_loopback(address):
        return str(settings().workdir.root)
    place = settings().workdir_option
    if place is None or not place.startswith("/"):
        hint = "Give --workdir an absolute path on a disk that all nodes of the cluster share."
        raise RecipeError("Which workdir on the cluster?", hint=hint, code="no-workdir")
    return place
