"""The shipped recipe `pt-corpus`: it checks without a network, and says so where it needs one."""

from __future__ import annotations

import os
import subprocess
import sys

from data_jobs.quality.licenses import permitted, policy
from in_process import here
from mutirao.core.recipe_file import load_recipe, shipped_text

RECIPE = load_recipe("pt-corpus").recipe


def mutirao(*arguments: str, cwd) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mutirao.cli.main", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
    )


def test_every_active_source_is_allowed_by_the_recipes_own_policy():
    allowed = policy(RECIPE.filter.allowed_licenses)
    assert all(permitted(source.license, allowed) for source in RECIPE.sources)
    assert not any("-NC" in name or "-ND" in name for name in allowed)


def test_every_source_has_a_hub_id_a_name_and_a_genre():
    assert all(str(source.path).startswith("hf://datasets/") for source in RECIPE.sources)
    assert len({source.name for source in RECIPE.sources}) == len(RECIPE.sources)
    assert all(source.genre for source in RECIPE.sources)


def test_a_source_that_is_left_out_names_its_license():
    lines = shipped_text("pt-corpus").splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("# - path:"):
            stated = lines[number + 1].strip().removeprefix("#").strip()
            assert stated.startswith("license: ") and "#" in stated, line


def test_it_checks_without_a_network_and_does_not_run_without_one(tmp_path):
    done = here("recipe", "check", "pt-corpus", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(RECIPE.sources)} behind URLs" in done.stdout
    done = here("run", "pt-corpus", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "162,417,408 parameters" in done.stdout
    done = mutirao("run", "pt-corpus", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "Cannot reach the store" in done.stderr and "Traceback" not in done.stderr


def test_a_misspelt_license_stops_before_any_work(tmp_path):
    done = here("run", "demo", "--set", "filter.allowed_licenses=[CC-BY-5.0]", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Did you mean CC-BY-" in done.stderr
    assert not list(tmp_path.rglob("files.json"))
