"""The reference of all commands, from their own help.

python -m mutirao.cli.reference > docs/reference/commands.md
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from mutirao.cli.main import COMMANDS, cli

HEAD = """\
# Commands

Made by `python -m mutirao.cli.reference`. Global options, before or after the command:
`--workdir PATH` (else `MUTIRAO_HOME`, else `./mutirao-work`), `--json`, `--quiet`, `--debug`.
RECIPE is a file if it exists or ends in `.yaml`, else a shipped name. RUN is an id, an unambiguous
beginning of one, or a recipe's name (its newest run); RESULT is a RUN, or the folder that a `data`
command on plain files made.
"""


def reference() -> str:
    sections = [f"\n## {name}\n\n```\n{text}\n```\n" for name, text in helps()]
    return HEAD + "".join(sections)


def helps() -> Iterator[tuple[str, str]]:
    """(name, help at 80 columns) of every command that does something, groups opened up."""
    settings = {**cli.context_settings, "terminal_width": 80}
    root = click.Context(cli, info_name="mutirao", **settings)
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        yield from _helps(command, name, root)


def _helps(command: click.Command, name: str, parent: click.Context) -> Iterator[tuple[str, str]]:
    context = click.Context(command, parent, name.split()[-1], terminal_width=80)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _helps(found, f"{name} {child}", context)
    else:
        yield name, command.get_help(context).rstrip()


if __name__ == "__main__":
    print(reference(), end="")
