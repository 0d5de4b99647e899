"""Shared by all tests: a private home and no network look-ups; one Ray for the whole session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback, see mutirao.run.session
        "OMP_NUM_THREADS": "1",
    }
)
os.environ.pop("MUTIRAO_HOME", None)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ray_session():
    """The local Ray that the whole test session shares (two CPUs, a bounded object store)."""
    from mutirao.core.recipe import Ray
    from mutirao.run.session import ray_session as start

    with start(Ray(cpus=2, object_store_mb=300)):
        yield


@pytest.fixture
def workdir(tmp_path):
    from mutirao.core.workdir import Workdir

    return Workdir(tmp_path / "work")
