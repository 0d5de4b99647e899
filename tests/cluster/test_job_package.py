"""What a job is given, its id, its shell line and the meaning of its end; all without a cluster."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobDetails, JobType

from cluster import submit
from cluster.follow import exit_code
from cluster.submit import job_environment, make_package, run_entrypoint, submission_id
from mutirao.core.errors import RecipeError
from mutirao.core.recipe_file import load_recipe


@pytest.fixture
def recipe(tmp_path):
    """A recipe beside its text, an evaluation file and a stray big file that must stay at home."""
    folder = tmp_path / "project"
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "test.txt").write_text("uma pergunta\n")
    (folder / "huge.bin").write_bytes(b"x" * 100_000)
    tree = {
        "name": "tiny",
        "sources": [{"path": ["a.txt", "/shared/b.txt"]}, {"path": "sample://"}],
        "decontaminate": {"against": ["eval/test.txt"]},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def package(tmp_path):
    """Make the package of a recipe in a fresh folder; returns it."""

    def make(path: Path, *overrides: str):
        folder = tmp_path / f"package-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return make_package(load_recipe(str(path), overrides), folder)

    return make


def test_a_job_gets_code_recipe_and_named_files_and_no_more(package, recipe):
    made = package(recipe)
    tops = {path.name for path in made.directory.iterdir()}
    code = {"mutirao", "data_jobs", "train_jobs", "cluster"}
    assert {name for name in tops if not name.endswith(".dist-info")} == {
        *code,
        "recipe.yaml",
        "eval",
    }
    assert made.bytes == sum(p.stat().st_size for p in made.directory.rglob("*") if p.is_file())


def test_sources_stay_in_place_and_the_runs_identity_does_not_change(package, recipe):
    from mutirao.core.identity import identity

    sent = load_recipe(str(package(recipe, "train.lr=0.002").directory / "recipe.yaml"))
    assert sent.recipe.sources[0].path == (str(recipe.parent / "a.txt"), "/shared/b.txt")
    assert sent.recipe.sources[1].path == "sample://"
    assert sent.recipe.train.lr == 0.002
    local = load_recipe(str(recipe), ("train.lr=0.002",))
    assert identity(sent.recipe) == identity(local.recipe)


def test_the_id_is_a_hash_of_what_decides_the_job(package, recipe):
    first = package(recipe)
    assert submission_id(first, "/w") == submission_id(package(recipe), "/w")
    assert submission_id(first, "/w") != submission_id(first, "/other")
    assert submission_id(first, "/w") != submission_id(package(recipe, "seed=1"), "/w")
    (recipe.parent / "eval" / "test.txt").write_text("outra pergunta\n")
    assert submission_id(first, "/w") != submission_id(package(recipe), "/w")
    assert submission_id(first, "/w").startswith("mutirao-")
    assert len(submission_id(first, "/w")) == len("mutirao-") + 12


@pytest.mark.parametrize(
    ("name", "code"), [("../secret.txt", "file-outside"), ("none.txt", "no-asset")]
)
def test_a_named_file_that_cannot_travel_stops_before_anything_is_sent(package, recipe, name, code):
    (recipe.parent.parent / "secret.txt").write_text("s")
    with pytest.raises(RecipeError) as caught:
        package(recipe, f"decontaminate.against=[{name}]")
    assert caught.value.code == code


def test_a_stopped_job_has_time_for_a_checkpoint():
    environment = job_environment("/w", {"OMP_NUM_THREADS": "1", "MUTIRAO_HOME": "/mine"})
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert environment["MUTIRAO_HOME"] == "/w"
    assert environment["OMP_NUM_THREADS"] == "1"


def fake_python(folder: Path, name: str, has_ray: bool) -> str:
    """A program that answers the question for Ray, and prints what it is asked to run."""
    path = folder / name
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit {0 if has_ray else 1}\necho {name} "$@"\nexit 3\n'
    )
    path.chmod(0o755)
    return str(path)


def run_line(line: str, path: Path) -> subprocess.CompletedProcess:
    environment = {"PATH": str(path)}
    return subprocess.run(
        ["/bin/sh", "-c", line], env=environment, capture_output=True, text=True, timeout=20
    )


def test_the_first_interpreter_with_ray_runs_the_recipe(tmp_path):
    fake_python(tmp_path, "python", has_ray=False)
    fake_python(tmp_path, "python3", has_ray=True)
    result = run_line(run_entrypoint("/a b/w", here="/not/there/python"), tmp_path)
    assert result.stdout == "python3 -m mutirao.cli.main run recipe.yaml --workdir /a b/w\n"
    assert result.returncode == 3
    here = fake_python(tmp_path, "mine", has_ray=True)
    assert run_line(run_entrypoint("/w", here), tmp_path).stdout.startswith("mine -m mutirao")


def test_the_real_interpreter_passes_the_test_for_ray(tmp_path):
    line = run_entrypoint("/w").replace("mutirao.cli.main run recipe.yaml --workdir /w", "platform")
    assert run_line(line, tmp_path).returncode == 0


def test_no_interpreter_with_ray_is_an_environment_problem(tmp_path):
    fake_python(tmp_path, "python", has_ray=False)
    result = run_line(run_entrypoint("/w", here="/not/there/python"), tmp_path)
    assert result.returncode == 4
    assert "no Python with Ray" in result.stderr


def ended(status: str, code: int | None = None) -> JobDetails:
    return JobDetails(type=JobType.SUBMISSION, status=status, entrypoint="x", driver_exit_code=code)


def test_only_the_terminal_status_decides_the_exit_code():
    assert exit_code(ended("SUCCEEDED", 0)) == 0
    assert exit_code(ended("STOPPED")) == 75
    assert [exit_code(ended("FAILED", code)) for code in (1, 2, 3, 4, 75)] == [1, 2, 3, 4, 75]
    assert exit_code(ended("FAILED", -9)) == 1
    assert exit_code(ended("FAILED", None)) == 1


class FullCluster:
    """Knows some ended jobs and refuses new ones; enough of a client for the choice of an id."""

    def __init__(self, ids):
        self.ids = ids

    def list_jobs(self):
        return [
            JobDetails(type="SUBMISSION", status="FAILED", entrypoint="x", submission_id=i)
            for i in self.ids
        ]

    def submit_job(self, **job):
        raise RuntimeError(f"no room for {job['submission_id']}\nTraceback ...")


def test_a_refused_job_is_one_sentence_with_the_servers_reason():
    with pytest.raises(submit.EnvironmentProblem) as caught:
        submit.submit_entrypoint(FullCluster(["a", "a-2"]), "x", "a", {})
    assert "no room for a-3" in caught.value.problem
    assert "Traceback" not in str(caught.value)


def test_no_secret_of_this_machine_is_sent(package, recipe, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2")
    assert "hunter2" not in str(job_environment("/w", {}))
    assert "RAY_AUTH_TOKEN" in os.environ
