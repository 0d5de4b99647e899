"""The folder `platform/` must never hide Python's own module; the tree keeps its shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"platform", "data_jobs", "train_jobs", "cluster", "tests", "docs", "benchmarks"}


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return done.stdout.split()


def test_platform_is_no_package():
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_import_platform_is_pythons_own_here():
    import platform

    assert platform.system() and "mutirao" not in (platform.__file__ or "")


@pytest.mark.parametrize("folder", [".", "platform", "tests"])
def test_import_platform_is_pythons_own_from(folder):
    code = "import platform, mutirao, data_jobs, train_jobs, cluster; print(platform.system())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("Linux", "Darwin")


@pytest.mark.ray
def test_import_platform_is_pythons_own_in_ray_workers(ray_session):
    import ray

    @ray.remote
    def where() -> tuple[str, str]:
        import platform

        import mutirao

        return platform.system(), mutirao.__version__

    import mutirao

    system, version = ray.get(where.remote())
    assert system in ("Linux", "Darwin") and version == mutirao.__version__


def test_the_top_level_is_as_documented():
    top = {name.split("/")[0] for name in tracked() if "/" in name}
    assert {name for name in top if not name.startswith(".")} == FOLDERS


def test_the_bundled_sample_is_at_most_3_mb():
    sample = ROOT / "platform" / "mutirao" / "sample"
    size = sum(f.stat().st_size for f in sample.rglob("*") if f.is_file() and f.suffix != ".pyc")
    assert 1_000_000 < size <= 3_000_000


def test_constraints_are_exact_and_cover_every_dependency():
    import re
    import tomllib

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    names = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for line in wanted:
        name = re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", line).group()).lower()
        assert name in names, name
