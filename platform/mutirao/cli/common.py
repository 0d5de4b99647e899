"""What every command shares: the global options, output on stdout, errors as one sentence."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from mutirao.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, UserError
from mutirao.core.workdir import Workdir, find_workdir


@dataclass
class Settings:
    """The global options; they may stand before or after the command."""

    workdir_option: str | None = None
    json: bool = False
    quiet: bool = False
    debug: bool = False

    @property
    def workdir(self) -> Workdir:
        return find_workdir(self.workdir_option)


def settings() -> Settings:
    """The settings of the command that is running."""
    context = click.get_current_context()
    return context.ensure_object(Settings)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value not in (None, False):
            setattr(context.ensure_object(Settings), name, value)
        return value

    return callback


WORKDIR_HELP = "Where results and runs live [MUTIRAO_HOME, else ./mutirao-work]."
# option -> (the setting's name, help); all but the first are flags
GLOBAL_OPTIONS = {
    "--workdir": ("workdir_option", WORKDIR_HELP),
    "--json": ("json", "Results as JSON."),
    "--quiet": ("quiet", "No progress on stderr."),
    "--debug": ("debug", "Show tracebacks."),
}


def global_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workdir, --json, --quiet and --debug to a command."""
    for option, (name, text) in reversed(GLOBAL_OPTIONS.items()):
        kind: dict[str, Any] = {"metavar": "PATH"} if option == "--workdir" else {"is_flag": True}
        command = click.option(option, expose_value=False, callback=_set(name), help=text, **kind)(
            command
        )
    return command


def print_result(value: Any, lines: list[str]) -> None:
    """JSON where asked for, else the lines: results go to stdout, all else to stderr."""
    if settings().json:
        click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))
    else:
        for line in lines:
            click.echo(line)


def amount(count: int, noun: str) -> str:
    """'1 file', '2,000 files'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def run_guarded(command: Callable[[], Any]) -> int:
    """Run the command line; every known problem becomes one sentence and its exit code."""
    debug = "--debug" in sys.argv
    try:
        result = command()
        return result if isinstance(result, int) else 0
    except UserError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"mutirao: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("mutirao: interrupted", err=True)
        return EXIT_INTERRUPTED
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        kind = type(error).__name__
        click.echo(f"mutirao: an error of our own ({kind}: {error})", err=True)
        click.echo("  Run again with --debug, or see the run's log; please report it.", err=True)
        return EXIT_FAILED
