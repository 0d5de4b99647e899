"""The command line: help is quick to read, wrong words get the nearest right one, no tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from in_process import here
from mutirao.cli.main import COMMANDS


def mutirao(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    """The command in a process of its own: what a user starts, imports and all."""
    command = [sys.executable, "-m", "mutirao.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_help_lists_every_command_in_80_columns():
    done = mutirao("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_imports_neither_ray_nor_torch():
    code = (
        "import sys; sys.argv = ['mutirao', '--help']\n"
        "from mutirao.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('ray', 'torch', 'pyarrow', 'deepspeed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_at_most_80_columns(command):
    done = mutirao(command, "--help")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rnu"], 2, "run"),
        (["run", "dmeo"], 2, "demo"),
        (["run", "nowhere.yaml"], 2, "No such recipe file"),
        (["run", "demo", "--set", "train.lrr=1"], 2, "lr"),
        (["run", "demo", "--set", "train.lr"], 2, "KEY=VALUE"),
        (["run", "demo", "--set", "model.preset=tt-160m", "--dry-run"], 2, "ttl-160m"),
        (["run", "demo", "--until", "traim"], 2, "train"),
        (["run", "demo", "--wrokdir", "x"], 2, "--workdir"),
        (["run", "demo", "--workdir", "s3://bucket/x"], 2, "folders"),
        (["runs", "show", "nothing"], 2, "no runs"),
        (["energy", "show", "nothing"], 2, "no runs"),
        (["init", "x", "--language", "pt", "--input", "nowhere.txt"], 2, "nowhere.txt"),
        (["recipe", "copy", "demoo", "x.yaml"], 2, "demo"),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_code(arguments, code, words, tmp_path):
    done = here(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_ends_with_the_exit_code_and_the_sentence(tmp_path):
    done = mutirao("rnu", cwd=tmp_path)
    assert done.returncode == 2 and "run" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_dry_run_lists_the_stages_and_starts_nothing(tmp_path):
    done = mutirao("run", "demo", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ingest        to do" in done.stdout and "parameters" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not (tmp_path / "mutirao-work" / "runs").exists()


def test_dry_run_works_without_the_data(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: far\nsources:\n  - path: not/here.jsonl\n")
    done = here("run", str(recipe), "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert "not/here.jsonl" in value["sources_problem"]
    assert value["stages"][0] == {
        "stage": "ingest",
        "state": "to do",
        "why": "the sources are not here",
    }


@pytest.mark.parametrize(
    ("preset", "parameters"), [("ttl-160m", 162_417_408), ("ttl-460m", 468_239_360)]
)
def test_dry_run_knows_the_reference_models(preset, parameters, tmp_path):
    arguments = ["--set", f"model.preset={preset}", "--set", "tokenizer.vocab_size=32000"]
    done = here("run", "demo", "--dry-run", "--json", *arguments, cwd=tmp_path)
    assert json.loads(done.stdout)["parameters"] == parameters


def test_recipes_are_listed_copied_and_checked(tmp_path):
    assert "demo" in here("recipe", "list", cwd=tmp_path).stdout
    done = here("recipe", "copy", "demo", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "mine.yaml").exists()
    again = here("recipe", "copy", "demo", "mine.yaml", cwd=tmp_path)
    assert again.returncode == 2 and "already" in again.stderr
    done = here("recipe", "check", "mine.yaml", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["files"] >= 5


def test_init_counts_and_writes_a_recipe_that_checks(tmp_path):
    text = "Era uma vez uma pequena cidade do interior, onde todos se conheciam. " * 5
    for number in range(3):
        (tmp_path / f"t{number}.txt").write_text(text)
    done = here(
        "init", "meu", "--language", "pt", "--input", "t0.txt", "t1.txt", "t2.txt", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "3 documents" in done.stdout and "por 100" in done.stdout
    recipe = (tmp_path / "meu" / "recipe.yaml").read_text()
    assert len(recipe.splitlines()) < 60 and recipe.count("#") > 10
    assert here("recipe", "check", "meu/recipe.yaml", cwd=tmp_path).returncode == 0
    again = here("init", "meu", "--language", "pt", "--input", "t0.txt", cwd=tmp_path)
    assert again.returncode == 2 and "--force" in again.stderr
