"""A command in this process, which has imported PyTorch once: seconds less for each call."""

from __future__ import annotations

import contextlib
import io
import subprocess

from mutirao.cli.common import run_guarded
from mutirao.cli.main import cli


def here(*arguments: str, cwd) -> subprocess.CompletedProcess:
    """`mutirao ARGUMENTS` in folder `cwd`: exit code and texts as a process would give them."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_guarded(lambda: cli.main(list(arguments), "mutirao", standalone_mode=False))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
