"""A crash after any pass, torn files, other key ranges on resume, a full disk: the same result."""

from __future__ import annotations

import os
import resource
import signal
import subprocess

import pytest

from data_jobs import neardup
from data_jobs.near.graph import OPEN
from data_jobs.survivors import star
from mutirao.core.errors import UserError
from test_neardup import corpus, run

PASSES = ("sketch_unit", "candidate_unit", "verify_unit", "survivors_unit", "decide_unit")


@pytest.fixture
def job(helpers, tmp_path):
    """A job of neardup over committed inputs, in a folder of its own each time."""
    rows = corpus(25)
    for k in range(3):
        (tmp_path / f"{k}.jsonl").write_bytes(helpers.jsonl(rows[k::3]))
    fields = {"sources": [{"path": "*.jsonl"}], "clean": {"shard_bytes": 12_000}}
    done = run(helpers, tmp_path, ("ingest", "clean", "exact"), **fields)
    recipe = helpers.Recipe(**fields)

    def made(name):
        made_job = helpers.make_job(tmp_path, "neardup", recipe, done)
        folder = tmp_path / "store" / "neardup" / name
        folder.mkdir()
        return type(made_job)(**{**vars(made_job), "directory": folder})

    return made


def outcome(job):
    result = neardup.run(job)
    assert result.counts["edges"] > 20 and result.counts["dropped"] > 10
    return result.parts, result.counts, result.info


@pytest.fixture
def whole(job):
    return outcome(job("whole"))


@pytest.mark.parametrize("name", PASSES)
def test_a_crash_in_any_pass_is_continued_to_the_same_bytes(job, whole, monkeypatch, name):
    broken, real = job(name), getattr(neardup, name)

    def dies(item):
        real(item)
        raise KeyboardInterrupt

    monkeypatch.setattr(neardup, name, dies)
    with pytest.raises(KeyboardInterrupt):
        neardup.run(broken)
    monkeypatch.setattr(neardup, name, real)
    assert outcome(broken) == whole


def test_torn_files_of_an_interrupted_run_are_made_again(job, whole, monkeypatch):
    broken = job("torn")
    real = neardup.decide_unit
    monkeypatch.setattr(
        neardup, "decide_unit", lambda item: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        neardup.run(broken)
    monkeypatch.setattr(neardup, "decide_unit", real)
    torn = ["bands-00000.arrow", "signatures-00001.arrow", "edges-00000.arrow", "drops.npy"]
    torn += [path.name for path in broken.directory.glob("pairs-*.npy")]
    for name in torn:
        path = broken.directory / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert outcome(broken) == whole


def test_another_number_of_key_ranges_on_resume_gives_the_same_bytes(job, whole, monkeypatch):
    broken, real = job("ranges"), neardup.verify_unit
    monkeypatch.setattr(
        neardup, "verify_unit", lambda item: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        neardup.run(broken)
    monkeypatch.setattr(neardup, "verify_unit", real)
    monkeypatch.setattr("data_jobs.near.candidates.RANGE_BYTES", 60_000)
    assert outcome(broken) == whole
    left = {path.name for path in broken.directory.iterdir()}
    parts = {part.path for part in whole[0]}
    assert left == parts | {f"{name}.part.json" for name in parts}


@pytest.fixture
def full_disk():
    """full_disk(folder) -> a function that makes room: a file system of 300 kB, where one may be
    mounted."""
    mounted = []

    def made(folder):
        mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        again = ["mount", "-o", "remount,size=100m", str(folder)]
        return lambda: subprocess.run(again, check=True)

    yield made
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_names_the_folder_and_room_lets_it_go_on(job, whole, full_disk):
    full = job("full")
    make_room = full_disk(full.directory)
    with pytest.raises(UserError, match="The disk is full") as caught:
        neardup.run(full)
    assert caught.value.code == "disk-full" and "store gc" in caught.value.hint
    make_room()
    assert outcome(full) == whole


def test_a_file_that_cannot_grow_is_a_sentence_and_room_lets_it_go_on(job, whole):
    """A limit on the size of files, where no small file system can be had."""
    full = job("full")
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(UserError) as caught:
            neardup.run(full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.hint and str(full.directory) in caught.value.where
    assert outcome(full) == whole


def test_a_chain_of_many_near_copies_is_decided_from_its_beginning():
    """Each resembles the one before alone: every second one stays."""
    import numpy as np

    ends = np.stack([np.arange(2_000), np.arange(1, 2_001)], axis=1).astype(np.uint32)
    state = np.full(2_001, OPEN, np.uint8)
    star(state, ends[np.random.default_rng(1).permutation(2_000)])
    assert state.tolist() == [1 if k % 2 == 0 else 2 for k in range(2_001)]


def test_a_damaged_band_file_of_an_earlier_result_is_a_data_error(tmp_path):
    import numpy as np

    from data_jobs.near.index import read_bands, write_bands
    from mutirao.core.errors import DataError

    write_bands(tmp_path, "b", np.arange(40, dtype=np.uint64).reshape(20, 2), np.arange(20))
    assert len(read_bands(tmp_path / "b")[0]) == 40
    raw = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="Not a readable Arrow file"):
        read_bands(tmp_path / "b")
