"""A sweep runs each combination once over the same shards, goes on after a stop and a failure, and
ends with one table."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess

import pytest

from in_process import here
from mutirao.cli.common import run_guarded
from mutirao.cli.main import cli
from mutirao.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, RecipeError
from mutirao.core.runs import all_runs
from mutirao.core.stages import DATA_STAGES
from mutirao.core.workdir import Workdir
from mutirao.run import sweep as sweeps
from mutirao.run.execute import Options
from mutirao.run.sweep import read_trials, run_sweep, values_of

TEXT = "a casa de que o barco e menina da chuva do rio na noite os um janela em"
RECIPE = """
name: small
sources: [{path: texts.jsonl}]
langid: {min_confidence: 0.0}
filter: {thresholds: {max_duplicate_5grams: 1, max_top_bigram: 1, max_top_trigram: 1,
  max_top_4gram: 1, max_duplicate_6grams: 1, max_duplicate_7grams: 1, max_duplicate_8grams: 1,
  max_duplicate_9grams: 1, max_duplicate_10grams: 1, min_terminal_lines: 0}}
clean: {boilerplate: false}
tokenizer: {vocab_size: 330}
split: {heldout: 0.1}
model: {hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, kv_heads: 1, context: 32}
train: {tokens: 20_480, global_batch: 16, lr: 2e-2, warmup_steps: 2, workers: 1, engine: torch,
  eval_every: 8, log_every: 4}
evaluate: {samples: 0, min_gain_bits: 0}
"""
SWEEP = ("--sweep", "train.lr=2e-2,1e-9,3e-2")  # the second learns nothing, which fails the run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recipe and its text."""
    dice, place = random.Random(5), tmp_path_factory.mktemp("sweep")
    rows = [
        {"id": str(n), "text": " ".join(dice.choice(TEXT.split()) for _ in range(80)) + "."}
        for n in range(60)
    ]
    (place / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "r.yaml").write_text(RECIPE)
    return place


class Interrupting(io.StringIO):
    """Sends Ctrl-C to this process as soon as `words` are said."""

    def __init__(self, words: str):
        super().__init__()
        self.words = words

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.words and self.words in self.getvalue():
            self.words = ""
            os.kill(os.getpid(), signal.SIGINT)
        return written


@pytest.fixture(scope="module")
def swept(folder):
    """The sweep, stopped by Ctrl-C when its second run begins, and given again."""
    command = ("run", "r.yaml", "--no-ray", *SWEEP)
    err = Interrupting("2 of 3")
    # A shell without job control starts what runs behind it with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stderr(err):
            code = run_guarded(lambda: cli.main(list(command), "mutirao", standalone_mode=False))
    finally:
        signal.signal(signal.SIGINT, before)
    return subprocess.CompletedProcess(command, code, "", err.getvalue()), here(
        *command, cwd=folder
    )


def test_ctrl_c_ends_the_sweep_and_says_how_to_go_on(swept):
    stopped, _ = swept
    assert stopped.returncode == EXIT_INTERRUPTED
    assert "Continue with: mutirao" in stopped.stderr and "3 of 3" not in stopped.stderr


def test_the_same_command_reuses_what_is_finished_and_does_the_rest(swept, folder):
    _, again = swept
    first, second = again.stderr.split("Sweep, 2 of 3")
    assert "pretrain" not in first and "bits per byte" in first
    assert second.count("pretrain the model") == 2


def test_data_stages_run_once_for_all_trials(swept, folder):
    store = Workdir(folder / "mutirao-work").store
    made = {stage.name: len(list(stage.glob("*/manifest.json"))) for stage in store.iterdir()}
    assert {made[stage] for stage in DATA_STAGES if stage in made} == {1}
    assert made["train"] == 3 and made["export"] == 2


def test_a_failed_trial_is_said_and_the_others_go_on(swept):
    _, again = swept
    assert again.returncode == EXIT_FAILED
    assert "train.lr=1e-9 failed: The model has not learned" in again.stderr
    assert "1 of 3 runs of the sweep failed" in again.stderr
    assert "Traceback" not in again.stderr


def test_one_table_shows_all_trials_the_best_first(swept, folder):
    _, again = swept
    lines = again.stdout.splitlines()
    assert max(map(len, lines)) <= 79
    begin = next(i for i, line in enumerate(lines) if line.startswith("Result"))
    bits = [line.split()[2] for line in lines[begin + 1 : begin + 4]]
    assert bits[2] == "–" and float(bits[0]) <= float(bits[1])
    assert "train.lr" in again.stdout and "failed" in again.stdout


def test_a_longer_list_of_values_makes_only_the_new_run(swept, folder):
    done = here("run", "r.yaml", "--no-ray", "--sweep", "train.lr=3e-2,2e-2", "--json", cwd=folder)
    assert done.returncode == 0 and "pretrain" not in done.stderr
    value = json.loads(done.stdout)
    assert [one["values"] for one in value["trials"]] == [
        {"train.lr": "3e-2"},
        {"train.lr": "2e-2"},
    ]
    assert {one["run"] for one in value["trials"]} == {run["id"] for run in value["runs"]}
    assert len(all_runs(Workdir(folder / "mutirao-work"))) == 3


def test_a_trial_is_the_run_that_set_makes(swept, folder):
    done = here("run", "r.yaml", "--set", "train.lr=3e-2", "--dry-run", "--json", cwd=folder)
    assert {stage["state"] for stage in json.loads(done.stdout)["stages"]} == {"done"}


def test_dry_run_shows_a_plan_for_each_trial_and_starts_nothing(swept, folder):
    words = ("--sweep", "train.lr=2e-2,4e-2", "--dry-run")
    done = here("run", "r.yaml", *words, cwd=folder)
    first, second = done.stdout.split("Sweep, 2 of 2")
    assert "train         done" in first and "train         to do" in second
    assert "parameters" in first and "parameters" not in second
    assert len(all_runs(Workdir(folder / "mutirao-work"))) == 3


def test_runs_of_a_sweep_compare_with_a_page(swept, folder):
    runs = [run.id for run in all_runs(Workdir(folder / "mutirao-work"))]
    done = here("runs", "compare", *runs, "--html", "page.html", cwd=folder)
    assert done.returncode == 0 and "tokens/s" in done.stdout
    assert (folder / "page.html").read_text(encoding="utf-8").count("<svg") == 2


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("train.lr=1e-4,3e-4", ["1e-4", "3e-4"]),
        ("train.warmup_steps=10,20", [10, 20]),
        ("train.betas=[0.9,0.95],[0.9,0.99]", [[0.9, 0.95], [0.9, 0.99]]),
        ("model.layers=null,4", [None, 4]),
        ('name="a,b",c', ["a,b", "c"]),
    ],
)
def test_values_are_read_as_yaml(text, values):
    assert values_of(text) == values


def test_several_keys_make_all_combinations(folder):
    keys = ("train.lr=1e-3,2e-3", "train.betas=[0.9,0.95],[0.8,0.9]")
    trials = read_trials(str(folder / "r.yaml"), (), keys)
    made = [(t.loaded.recipe.train.lr, t.loaded.recipe.train.betas) for t in trials]
    assert made == [
        (1e-3, (0.9, 0.95)),
        (1e-3, (0.8, 0.9)),
        (2e-3, (0.9, 0.95)),
        (2e-3, (0.8, 0.9)),
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--sweep", "train.lrr=1,2"), "Did you mean lr"),
        (("--sweep", "train.lr"), "KEY=V1,V2"),
        (("--sweep", "train.lr="), "KEY=V1,V2"),
        (("--sweep", "train.lr=1e-3,,2e-3"), "KEY=V1,V2"),
        (("--sweep", "train.lr=1e-3,fast"), "valid number"),
        (("--sweep", "train.lr=1e-3", "--sweep", "train.lr=2e-3"), "--sweep gives it too"),
        (("--sweep", "train.lr=1e-3", "--set", "train.lr=2e-3"), "--set gives it too"),
        (("--sweep", "train.lr=1e-3,0.001"), "are the same run"),
        (("--sweep", "train.workers=1,2"), "are the same run"),
        (("--sweep", "train.workers=1,2", "--dry-run"), "are the same run"),
        (("--sweep", "train.lr=1e-3", "--new"), "one run, not a sweep"),
        (("--sweep", "train.lr=1e-3", "--until", "traim"), "no such stage"),
        (("--sweep", "langid.keep=[por],[xyz]"), "xyz"),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_runs(words, problem, folder, tmp_path):
    done = here("run", str(folder / "r.yaml"), "--no-ray", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert problem in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "mutirao-work" / "runs").exists()


def test_an_error_of_our_own_fails_one_trial_alone(folder, workdir, monkeypatch):
    """execute breaks for one value; what it breaks with does not matter."""
    ran = []

    def execute(loaded, *arguments):
        ran.append(loaded.recipe.train.lr)
        if loaded.recipe.train.lr == 1e-3:
            raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(sweeps, "execute", execute)
    trials = read_trials(str(folder / "r.yaml"), (), ("train.lr=1e-3,2e-3",))
    ended = run_sweep(trials, workdir, Options(use_ray=False), quiet=True)
    assert ran == [1e-3, 2e-3]
    assert [bool(one.problem) for one in ended] == [True, False]


def test_an_unknown_key_is_refused_as_set_refuses_it(folder):
    with pytest.raises(RecipeError, match=r"Unknown key 'train\.lrr'"):
        read_trials(str(folder / "r.yaml"), (), ("train.lrr=1,2",))
