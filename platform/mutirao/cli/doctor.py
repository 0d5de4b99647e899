"""`mutirao doctor`: what this machine has, what it lacks, and the cure."""

from __future__ import annotations

import textwrap

import click

from mutirao.cli.common import global_options, print_result, settings

WIDTH = 80


@click.command()
@global_options
def doctor() -> int:
    """Check this machine: versions, memory, disks, Ray, DeepSpeed, energy meters.

    Exit code 4 if a run would not work here.
    """
    from dataclasses import asdict

    from cluster.preflight import doctor as examine
    from mutirao.core.errors import EXIT_ENVIRONMENT, EXIT_OK

    verdicts = examine(settings().workdir.root)
    lines = [line for v in verdicts for line in _row(v.name, v.ok, v.value, v.cure)]
    counts = {state: sum(v.ok == state for v in verdicts) for state in ("ok", "warn", "fail")}
    lines.append(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    print_result([asdict(v) for v in verdicts], lines)
    return EXIT_ENVIRONMENT if counts["fail"] else EXIT_OK


def _row(name: str, state: str, value: str, cure: str) -> list[str]:
    """One check as lines of at most 80 columns, the cure below the value."""
    head = f"{state:<5}{name:<14}"
    indent = " " * len(head)
    lines = textwrap.wrap(value, WIDTH - len(head), break_on_hyphens=False) or [""]
    lines += [f"> {line}" for line in textwrap.wrap(cure, WIDTH - len(head) - 2)]
    return [f"{head}{lines[0]}", *(f"{indent}{line}" for line in lines[1:])]
