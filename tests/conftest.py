"""Shared by all tests: a private home and no network look-ups; one Ray for the whole session.

`make test` divides the tests between two processes (pytest-xdist), file by file; what is costly
to make is made in one of them (TOGETHER). `pytest` alone runs all in this process.
"""

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

# No test takes the power away, and kill -9 loses nothing that was written. A small run calls fsync
# 3,000 times, up to half of its time. Processes that a test starts do call it.
os.fsync = lambda descriptor: None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent

# Files that go to one process, since they share what takes long to make. They come first, so that
# short files are the last to end.
TOGETHER = {
    "a finished run": ("tests/end_to_end/",),
    "Ray": (
        "tests/data_jobs/test_killed_workers.py",
        "tests/data_jobs/test_same_bytes.py",
        "tests/run/test_session.py",
        "tests/train_jobs/test_ray_train.py",
        "tests/test_packaging.py",
    ),
    "a Ray head": ("tests/cluster/test_submit.py",),
}


def shared(nodeid: str) -> str:
    """The name in TOGETHER of what this test's file shares with others, or ''."""
    found = (name for name, files in TOGETHER.items() if nodeid.startswith(files))
    return next(found, "")


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate([*TOGETHER, ""])}
    items.sort(key=lambda item: ranks[shared(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files and TOGETHER go to the processes whole, in the order of collection."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared(nodeid) or super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Together(config, log)


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
