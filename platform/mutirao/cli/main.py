"""The command line: one plain table of commands; a command's module is imported when it runs."""

from __future__ import annotations

import importlib
import sys

import click

from mutirao import __version__
from mutirao.cli.common import Settings, global_options, run_guarded

# name -> (module, attribute, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("mutirao.cli.init", "init", "Write a recipe for your own text."),
    "doctor": ("mutirao.cli.doctor", "doctor", "Check this machine."),
    "recipe": ("mutirao.cli.recipe", "recipe", "List, show, copy and check recipes."),
    "run": ("mutirao.cli.run", "run", "Run a recipe from raw text to a model."),
    "runs": ("mutirao.cli.runs", "runs", "List, show, resume, stop and remove runs."),
    "data": ("mutirao.cli.data", "data", "Judge plain files; show, export, forget documents."),
    "lang": ("mutirao.cli.lang", "lang", "Language packs: list, show, derive, check."),
    "model": ("mutirao.cli.model", "model", "Peek at batches, sample, export."),
    "energy": ("mutirao.cli.energy", "energy", "Show the energy of a run."),
    "submit": ("mutirao.cli.remote", "submit", "Run a recipe as a Ray job."),
    "store": ("mutirao.cli.store", "store", "Size, clean and verify results."),
}


class LazyGroup(click.Group):
    """Lists the table, imports only what runs: `mutirao --help` stays under 0.3 s."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[2]) for name, row in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from mutirao.core.errors import RecipeError, nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = nearest(args[0], COMMANDS)
            raise RecipeError(f"There is no command {args[0]!r}", hint=hint, code="no-command")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="mutirao %(version)s")
@global_options
@click.pass_context
def cli(context: click.Context) -> None:
    """mutirão: raw text of a low-resource language in, a trained and
    energy-accounted language model out.

    Start with `mutirao run demo`.
    """
    context.ensure_object(Settings)


def main() -> None:
    """Entry point; exits with the code of docs/reference/exit-codes.md."""
    from mutirao.core.distribution import check_one_distribution

    def guarded() -> object:
        check_one_distribution()
        return cli.main(standalone_mode=False, prog_name="mutirao")

    sys.exit(run_guarded(guarded))


if __name__ == "__main__":
    main()
