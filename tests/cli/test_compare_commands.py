"""`mutirao runs compare` and `run --sweep` as one meets them at the keyboard."""

from __future__ import annotations

import json

import pytest

from compared_runs import begin, whole
from mutirao.core.workdir import Workdir


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two finished runs of one recipe in ./mutirao-work, which is the current folder's."""
    monkeypatch.chdir(tmp_path)
    workdir = Workdir(tmp_path / "mutirao-work")
    return [whole(workdir, 1.5), whole(workdir, 1.25, train={"lr": 0.5})]


def test_two_runs_are_compared_by_their_ids(command, runs):
    done = command("runs", "compare", runs[0].id, runs[1].id)
    assert done.code == 0 and done.err == ""
    assert max(map(len, done.out.splitlines())) <= 79
    assert all(word in done.out for word in ("train.lr", "1.2500", "tokens/s", "kWh", "at 2.56k"))


def test_json_and_a_page_come_from_the_same_comparison(command, runs, tmp_path):
    ids = [run.id for run in runs]
    done = command("runs", "compare", *ids, "--json", "--html", str(tmp_path / "page.html"))
    assert [run["id"] for run in json.loads(done.out)["runs"]] == ids
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(identifier in page for identifier in ids)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "A B..."),
        (["tiny"], "nothing to compare it with"),
        (["tiny", "tiny"], "The same run twice: tiny is tiny-"),
        (["tiny", "tyni"], "no run 'tyni'"),
        (["tiny-", "tiny"], "could be several runs"),
    ],
)
def test_wrong_words_get_one_sentence_and_exit_code_2(command, runs, words, problem):
    done = command("runs", "compare", *words)
    assert done.code == 2 and problem in done.err
    assert done.out == "" and "Traceback" not in done.err


def test_a_page_over_a_folder_is_refused(command, runs, tmp_path):
    done = command("runs", "compare", *[run.id for run in runs], "--html", str(tmp_path))
    assert done.code == 2 and "path of a file" in done.err


def test_a_run_of_which_nothing_is_done_takes_part(command, runs, tmp_path):
    new = begin(Workdir(tmp_path / "mutirao-work"), seed=5)
    done = command("runs", "compare", runs[0].id, new.id)
    assert done.code == 0 and "new" in done.out and "–" in done.out


def test_help_says_how_lists_are_written(command):
    done = command("run", "--help")
    assert "[0.9,0.95],[0.9,0.98]" in done.out and "--sweep" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
