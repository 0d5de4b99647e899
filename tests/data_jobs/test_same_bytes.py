"""The same input and config give the same bytes, whatever the kills, retries and workers."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mutirao.core.stages import BY_NAME

GOLDEN = Path(__file__).with_name("golden.json")
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import run_stages, Recipe
import json
run_stages(Path(sys.argv[1]), Recipe(**json.loads(sys.argv[3])), sys.argv[4])
"""


def part_hashes(done) -> dict[str, str]:
    """Every part of every stage by hash, and the hashed counts and info."""
    return {stage: manifest.content_hash for stage, manifest in done.items()}


def corpus(helpers, tmp_path, count=180) -> dict:
    """Recipe fields of a corpus of six files with duplicates and near-duplicates in it. Each file
    is large beside a shard; the plain ones are read in two or three pieces, one is compressed."""
    for number in range(6):
        rows = [{"id": k, "text": helpers.sentence(k, 400)} for k in range(number, count, 6)]
        rows += [{"id": "copy", "text": helpers.sentence(number + 30, 400) + " E mais isto."}]
        rows += [{"id": "same", "text": helpers.sentence(number + 60, 400)}]
        data = helpers.jsonl(rows)
        if number == 5:
            (tmp_path / "part5.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (tmp_path / f"part{number}.jsonl").write_bytes(data)
    return {
        "sources": [{"path": str(tmp_path / "part*")}],
        "ingest": {"piece_bytes": 60_000},
        "clean": {"shard_bytes": 20_000},
        "langid": {"keep": ["por", "glg"], "min_confidence": 0.0},
        "tokenizer": {"vocab_size": 400},
        "pack": {"stream_bytes": 20_000},
    }


def test_golden_hashes_change_only_with_output_version(stages, helpers, tmp_path):
    """If this fails on purpose: raise the stage's output_version in core/stages.py, then run with
    MUTIRAO_WRITE_GOLDEN=1. The hash covers every part's bytes, the counts and the info."""
    done = stages(**corpus(helpers, tmp_path, 300))
    found = {
        stage: {"output_version": BY_NAME[stage].output_version, "content_hash": value}
        for stage, value in part_hashes(done).items()
    }
    if os.environ.get("MUTIRAO_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_kill_9_at_random_moments_leaves_the_same_bytes(helpers, tmp_path):
    """A child is killed again and again; in the end its bytes are those of an undisturbed run."""
    fields = corpus(helpers, tmp_path)
    (tmp_path / "calm").mkdir()
    calm = helpers.run_stages(tmp_path / "calm", helpers.Recipe(**fields), "split")
    dice, kills = random.Random(7), 0
    arguments = [str(tmp_path / "stormy"), str(Path(__file__).parent), json.dumps(fields)]
    command = [sys.executable, "-c", CHILD, *arguments, "split"]
    while kills < 4:
        child = subprocess.Popen(command)
        time.sleep(0.8 + dice.random() * 1.6)
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    assert kills >= 1
    subprocess.run(command, check=True, timeout=120)
    stormy = helpers.run_stages(tmp_path / "stormy", helpers.Recipe(**fields), "split")
    assert part_hashes(stormy) == part_hashes(calm)


def test_a_restart_does_no_finished_unit_again(helpers, tmp_path, monkeypatch):
    fields = corpus(helpers, tmp_path)
    recipe = helpers.Recipe(**fields)
    first = helpers.run_stages(tmp_path, recipe, "langid")
    before = {p: p.stat().st_mtime_ns for p in first["langid"].paths()}

    def must_not_run(*arguments):
        raise AssertionError("a finished unit ran again")

    monkeypatch.setattr("data_jobs.langid.identify_views", must_not_run)
    monkeypatch.setattr("data_jobs.cleaning.clean_unit.read", must_not_run)
    second = helpers.run_stages(tmp_path, recipe, "langid")
    assert {p: p.stat().st_mtime_ns for p in second["langid"].paths()} == before


def test_a_damaged_part_is_written_again(helpers, tmp_path):
    recipe = helpers.Recipe(**corpus(helpers, tmp_path))
    first = helpers.run_stages(tmp_path, recipe, "exact")
    first["clean"].paths("text-")[1].write_bytes(b"torn")
    second = helpers.run_stages(tmp_path, recipe, "exact")
    assert part_hashes(second) == part_hashes(first)


def test_shard_size_does_not_change_what_is_kept(helpers, tmp_path):
    fields = corpus(helpers, tmp_path)
    kept = []
    for size in (20_000, 10_000_000):
        recipe = helpers.Recipe(**{**fields, "clean": {"shard_bytes": size}})
        done = helpers.run_stages(tmp_path / str(size), recipe, "split")
        kept.append(done["split"].content["info"]["dropped"])
    assert kept[0] == kept[1] and kept[0]["neardup"] and kept[0]["exact"]


def test_more_key_ranges_give_the_same_decisions(helpers, tmp_path, monkeypatch):
    recipe = helpers.Recipe(**corpus(helpers, tmp_path))
    one = helpers.run_stages(tmp_path / "one", recipe, "neardup")
    monkeypatch.setattr("data_jobs.keyed.RANGE_BYTES", 3_000)
    monkeypatch.setattr("data_jobs.near.candidates.RANGE_BYTES", 50_000)
    many = helpers.run_stages(tmp_path / "many", recipe, "neardup")
    assert part_hashes(many) == part_hashes(one)


@pytest.mark.ray
def test_ray_and_no_ray_give_the_same_bytes(helpers, tmp_path, ray_session):
    recipe = helpers.Recipe(**corpus(helpers, tmp_path))
    plain = helpers.run_stages(tmp_path / "plain", recipe)
    on_ray = helpers.run_stages(tmp_path / "ray", recipe, use_ray=True)
    assert part_hashes(on_ray) == part_hashes(plain)


@pytest.mark.ray
def test_an_error_in_a_ray_task_is_the_same_user_error(helpers, tmp_path, ray_session):
    from mutirao.core.errors import DataError

    fields = corpus(helpers, tmp_path)
    helpers.run_stages(tmp_path, helpers.Recipe(**fields), "ingest")
    recipe = helpers.Recipe(**fields)
    done = helpers.run_stages(tmp_path, recipe, "ingest", use_ray=True)
    (tmp_path / "part0.jsonl").write_bytes(b"another size")
    from data_jobs.clean import run

    with pytest.raises(DataError, match="has changed since"):
        run(helpers.make_job(tmp_path, "clean", recipe, done, use_ray=True))
