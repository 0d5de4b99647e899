"""Errors a person can act on: what is wrong, where, and how to mend it.

`UserError` is the only exception the command line turns into one sentence; its `code` is stable and
its `exit_code` follows the table in docs/reference/exit-codes.md. Anything else is our own mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_ENVIRONMENT = 4
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A problem that the person at the keyboard can solve.

    problem: one sentence without a full stop. where: file, line, field or key. hint: the cure.
    """

    exit_code = EXIT_FAILED

    def __init__(self, problem: str, where: str = "", hint: str = "", code: str = "error"):
        self.problem, self.where, self.hint, self.code = problem, where, hint, code
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        cure = f"\n  {self.hint}" if self.hint else ""
        return f"{self.problem}{place}{cure}"

    def __reduce__(self):  # crosses process borders whole (Ray pickles exceptions)
        return (type(self), (self.problem, self.where, self.hint, self.code))


class RecipeError(UserError):
    """Usage or recipe: exit 2."""

    exit_code = EXIT_USAGE


class DataError(UserError):
    """Data failed verification, or too much was quarantined: exit 3."""

    exit_code = EXIT_DATA


class EnvironmentProblem(UserError):
    """The machine or cluster lacks something: exit 4."""

    exit_code = EXIT_ENVIRONMENT


class Stopped(UserError):
    """Stopped on purpose and resumable (SIGTERM, budget): exit 75."""

    exit_code = EXIT_STOPPED


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """'Did you mean a, b?' for the known words closest to `word`; all of them if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=count, cutoff=0.6)
    if close:
        return f"Did you mean {', '.join(close)}?"
    return f"Known: {', '.join(known)}."
