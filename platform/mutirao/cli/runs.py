"""`mutirao runs`: what has run here, how it ended, its log and report."""

from __future__ import annotations

import click

from mutirao.cli.common import global_options, print_result, settings


@click.group()
def runs() -> None:
    """List, show, resume, stop and remove runs."""


@runs.command("list")
@global_options
def list_runs() -> None:
    """All runs of the workdir, the newest first."""
    from mutirao.core.runs import all_runs
    from mutirao.run.show import run_record, run_row

    found = all_runs(settings().workdir)
    lines = [run_row(run) for run in found] or ["No runs yet. Start one: mutirao run demo"]
    print_result([run_record(run) for run in found], lines)


@runs.command()
@click.argument("run")
@global_options
def show(run: str) -> None:
    """One run: its stages, results and energy."""
    from mutirao.core.runs import find_run
    from mutirao.run.show import run_record, run_summary

    found = find_run(settings().workdir, run)
    print_result(run_record(found), run_summary(found))


@runs.command()
@click.argument("run")
@global_options
def logs(run: str) -> None:
    """Print the logs of a run, all attempts in order."""
    from mutirao.core.runs import find_run

    found = find_run(settings().workdir, run)
    texts = [
        p.read_text(encoding="utf-8") for p in sorted((found.directory / "logs").glob("*.log"))
    ]
    print_result({"run": found.id, "logs": texts}, [text.rstrip() for text in texts])


@runs.command()
@click.argument("run")
@global_options
def report(run: str) -> None:
    """Write the report page of a run again and print its path."""
    from mutirao.core.runs import find_run
    from mutirao.report.page import write_report
    from mutirao.run.show import manifests

    found = find_run(settings().workdir, run)
    path = write_report(found.directory, manifests(settings().workdir, found), found.recipe())
    print_result({"report": str(path)}, [str(path)])


@runs.command()
@click.argument("names", nargs=-1, required=True, metavar="A B...")
@click.option("--html", metavar="PATH", help="Write a page with plots too.")
@global_options
def compare(names: tuple[str, ...], html: str | None) -> None:
    """Two or more runs beside one another: recipes, losses, bits per byte, cost.

    What does not compare (such as bits per byte on other held-out text) is left
    out with the reason. Runs that have not ended take part with what they have.
    """
    from pathlib import Path

    from mutirao.run.compare import compare as look
    from mutirao.run.compare import find_runs
    from mutirao.run.compare_tables import lines

    workdir = settings().workdir
    found = look(workdir, find_runs(workdir, names))
    said = lines(found)
    if html:
        from mutirao.report.compare_page import write_comparison

        said += ["", f"Page {write_comparison(found, Path(html))}"]
    print_result(found.record(), said)


@runs.command()
@click.argument("run")
@global_options
def resume(run: str) -> None:
    """Continue a run that was stopped, from its own copy of the recipe."""
    from pathlib import Path

    from mutirao.cli.run import run_to_end
    from mutirao.core.recipe_file import LoadedRecipe
    from mutirao.core.runs import find_run
    from mutirao.run.execute import Options
    from mutirao.run.results import refuse_result

    found = find_run(settings().workdir, run)
    refuse_result(settings().workdir, found)
    path = found.directory / "recipe.yaml"
    base = Path(found.record["base"])
    loaded = LoadedRecipe(found.recipe(), path.read_text(encoding="utf-8"), str(path), base)
    run_to_end(loaded, Options(), f"mutirao runs resume {found.id}")


@runs.command()
@click.argument("run")
@global_options
def stop(run: str) -> None:
    """Ask a run to stop: training writes a checkpoint first; exit code there 75."""
    from mutirao.core.runs import find_run
    from mutirao.core.stop import request_stop
    from mutirao.run.show import is_running

    found = find_run(settings().workdir, run)
    running = is_running(found)
    if running:
        request_stop(found.directory, "mutirao runs stop")
    line = "Asked to stop: it ends after its step or stage." if running else "It is not running."
    print_result({"run": found.id, "was_running": running}, [line])


@runs.command()
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
@global_options
def remove(run: str, yes: bool) -> None:
    """Delete a run's folder; results in the store stay until `mutirao store gc`."""
    import shutil

    from mutirao.core.errors import RecipeError
    from mutirao.core.runs import find_run
    from mutirao.run.show import is_running

    found = find_run(settings().workdir, run)
    if is_running(found):
        raise RecipeError(
            f"Run {found.id} is running", hint=f"mutirao runs stop {found.id}", code="running"
        )
    if not yes:
        click.confirm(f"Delete {found.directory}?", abort=True, err=True)
    shutil.rmtree(found.directory)
    print_result({"removed": found.id}, [f"Removed {found.id}."])
