"""The kept artefact that a module names as OLD, as a copy."""

from __future__ import annotations

import shutil

import pytest

from mutirao.core.workdir import Workdir


@pytest.fixture(scope="module")
def old(request, tmp_path_factory) -> Workdir:
    """A copy, so that no test writes into what is kept."""
    place = tmp_path_factory.mktemp("old") / "work"
    shutil.copytree(request.module.OLD, place)
    return Workdir(place)
