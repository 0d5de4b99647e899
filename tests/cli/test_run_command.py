"""What `mutirao run` says about itself."""

from __future__ import annotations

import sys

import pytest

from mutirao.cli.run import this_command


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["run", "r.yaml", "--set", "train.lr=1e-3"], "mutirao run r.yaml --set train.lr=1e-3"),
        (["run", "r.yaml", "--new", "--redo", "train", "--no-ray"], "mutirao run r.yaml --no-ray"),
        (["run", "my recipe.yaml", "--redo=train"], "mutirao run 'my recipe.yaml'"),
    ],
)
def test_the_command_that_continues_throws_nothing_away(monkeypatch, words, wanted):
    monkeypatch.setattr(sys, "argv", ["mutirao", *words])
    assert this_command() == wanted
