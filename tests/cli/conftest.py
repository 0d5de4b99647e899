"""Commands in this process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mutirao.cli.common import run_guarded
from mutirao.cli.main import cli


@pytest.fixture
def command(capsys):
    """command(words...) -> (exit code, stdout, stderr), in the current folder."""

    def run(*words: str):
        capsys.readouterr()
        code = run_guarded(lambda: cli.main(list(words), "mutirao", standalone_mode=False))
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return run
