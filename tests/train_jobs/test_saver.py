"""Saving beside the training: what is kept, what a fault leaves, what the next save waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from mutirao.core.errors import UserError
from mutirao.core.metrics import read_metrics
from mutirao.core.recipe import Train
from test_checkpoint import make_slices, save
from train_jobs import checkpoint, ranks, saver
from train_jobs.saver import Saver
from train_jobs.worker import prepare

SHAPES = {"w": [3, 4]}


@pytest.fixture
def slow(monkeypatch):
    """Writing waits until `slow.set()`."""
    go, real = threading.Event(), saver.write_safetensors

    def write(stream, entries):
        assert go.wait(30)
        return real(stream, entries)

    monkeypatch.setattr(saver, "write_safetensors", write)
    return go


def test_the_training_goes_on_while_the_copy_is_written(tmp_path, slow):
    one = Saver(tmp_path, Train())
    slices = make_slices(1.0)
    one.begin(5, slices, SHAPES, {"adam_step": 5})
    slices[0].master.fill_(-1.0)  # the next steps
    assert checkpoint.newest(tmp_path) is None and one.written() == []
    slow.set()
    one.finish()
    assert torch.equal(checkpoint.newest(tmp_path).full("w"), torch.arange(1.0, 13).view(3, 4))
    (row,) = one.written()
    assert row["step"] == 5 and row["write_s"] > 0 and row["bytes"] > 12 * 12
    assert one.written() == []


def test_the_next_save_waits_for_the_one_before(tmp_path, slow):
    one = Saver(tmp_path, Train())
    one.begin(1, make_slices(1.0), SHAPES, {"adam_step": 1})
    threading.Timer(0.3, slow.set).start()
    assert one.begin(2, make_slices(2.0), SHAPES, {"adam_step": 2}) > 0.1
    assert checkpoint.steps(tmp_path)[0] == 1
    one.finish()
    assert checkpoint.steps(tmp_path) == [1, 2]
    assert checkpoint.Checkpoint(tmp_path / "checkpoints/step-00000001").full("w")[0, 0] == 1.0


def test_without_async_a_checkpoint_is_whole_when_begin_returns(tmp_path):
    one = Saver(tmp_path, Train(async_checkpoint=False))
    one.begin(1, make_slices(1.0), SHAPES, {"adam_step": 1})
    assert checkpoint.newest(tmp_path).step == 1
    assert [row["step"] for row in one.written()] == [1]


def test_an_attempt_that_is_closed_leaves_no_half_checkpoint(tmp_path, slow):
    one = Saver(tmp_path, Train())
    one.begin(1, make_slices(1.0), SHAPES, {"adam_step": 1})
    threading.Timer(0.1, slow.set).start()
    one.close()
    assert checkpoint.newest(tmp_path) is None
    assert not list(tmp_path.glob("**/*.tmp"))


def test_the_last_ones_and_multiples_are_kept(tmp_path):
    for step in (3, 4, 6, 8, 9, 10):
        save(tmp_path, step, 1.0, keep_last=2, keep_every=4)
    assert checkpoint.steps(tmp_path) == [4, 8, 9, 10]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    save(tmp_path, 1, 1.0)
    save(tmp_path, 2, 2.0)
    folder = tmp_path / "checkpoints" / "step-00000002"
    (folder / "manifest.json").unlink()
    save(tmp_path, 2, 3.0)
    assert len(list(folder.iterdir())) == 2  # a manifest and one rank's file
    assert checkpoint.newest(tmp_path).full("w")[0, 0] == 3.0


def test_a_damaged_checkpoint_that_was_passed_over_does_not_come_back(tmp_path):
    save(tmp_path, 4, 4.0)
    save(tmp_path, 8, 8.0)
    os.truncate(next((tmp_path / "checkpoints" / "step-00000008").glob("*.safetensors")), 10)
    save(tmp_path, 6, 6.0)  # after a restart from 4
    assert checkpoint.steps(tmp_path) == [4, 6]


def test_a_folder_that_cannot_be_written_is_an_error_with_its_place(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match="Cannot write") as caught:
        save(tmp_path, 1, 1.0)
    assert "checkpoints" in caught.value.where


FULL = """
set -e
mount -t tmpfs -o size=200k none "$1"
exec "$2" -c "$3" "$1"
"""
FILL = """
import sys
from pathlib import Path
from mutirao.core.errors import UserError
from train_jobs import checkpoint
from test_saver import fill
print(fill(Path(sys.argv[1])))
"""


def fill(place: Path) -> str:
    """Save checkpoints of 60 kB, all of them kept, until the disk is full."""
    one = Saver(place, Train(keep_last=100))
    for step in range(1, 10):
        piece = checkpoint.Slice("w", 0, *(torch.full((5000,), float(step)) for _ in range(3)))
        try:
            one.begin(step, [piece], {"w": [5000]}, {"adam_step": step})
            one.finish()
        except UserError as error:
            newest = checkpoint.newest(place)
            left = len(list((place / "checkpoints").glob("*/.*.tmp")))
            return f"{error.code} | {error} | {newest.step} {newest.full('w')[0]} {left}"
    return "never full"


def test_a_full_disk_says_what_is_needed_and_leaves_the_one_before(tmp_path):
    """A real one: a file system of 200 kB in a name space of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(tmp_path), sys.executable, FILL]
    found = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    if found.returncode and "ermi" in found.stderr and "mount" in found.stderr + "unshare":
        pytest.skip("this machine lets nobody mount a file system")
    code, said, left = found.stdout.strip().split(" | ")
    assert code == "disk-full" and "a checkpoint takes 60,000 bytes" in said
    assert left == "3 3.0 0"


KILLED = """
import sys, time
from pathlib import Path
from mutirao.core.manifest import read_manifest
from tiny_train import make_plan, make_recipe
from train_jobs import loop, saver
real = saver.write_safetensors
def write(stream, entries):
    if Path(sys.argv[2], "checkpoints", "step-00000004", "manifest.json").exists():
        stream.write(b"half of it")
        stream.stream.flush()
        Path(sys.argv[2], "writing").touch()
        time.sleep(60)
    return real(stream, entries)
saver.write_safetensors = write
loop.train(make_plan(make_recipe(), read_manifest(Path(sys.argv[1])), Path(sys.argv[2])))
"""


def test_a_kill_during_the_write_costs_steps_and_not_the_result(tmp_path):
    from tiny_train import make_pack, make_plan, make_recipe
    from train_jobs import loop

    pack = make_pack(tmp_path / "pack")
    straight = make_plan(make_recipe(), pack, tmp_path / "straight")
    loop.train(straight)
    rows = read_metrics(straight.run_dir, "checkpoint")
    assert [row["step"] for row in rows] == [4, 8, 10]
    assert all(row["stall_s"] >= 0 and row["write_s"] > 0 and row["bytes"] > 0 for row in rows)
    run_dir = tmp_path / "killed"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    arguments = [sys.executable, "-c", KILLED, str(pack.directory), str(run_dir)]
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": path})
    while not (run_dir / "writing").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.steps(run_dir) == [4]
    assert loop.train(make_plan(make_recipe(), pack, run_dir)) == 10
    one, other = checkpoint.newest(straight.run_dir), checkpoint.newest(run_dir)
    for name in one.shapes:
        for kind in checkpoint.KINDS:
            assert torch.equal(one.full(name, kind), other.full(name, kind)), (name, kind)
    assert len(list(other.folder.iterdir())) == 2


def rank_main(number: int, world: int, rendezvous: str, root: Path) -> None:
    prepare(1)
    with ranks.group(number, world, rendezvous):
        one = Saver(root / "one", Train())
        half = (0, 6) if number == 0 else (6, 12)
        one.begin(1, make_slices(1.0, [half]), SHAPES, {"adam_step": 1})
        one.finish()
        real = saver.write_safetensors
        if number == 1:  # the other rank waits for its sidecar by then
            saver.write_safetensors = no_room
        one.begin(2, make_slices(2.0, [half]), SHAPES, {"adam_step": 2})
        try:
            one.finish()
        except UserError as error:
            (root / f"rank-{number}").write_text(f"{error.code} {one.failed}")
        saver.write_safetensors = real
        one.begin(3, make_slices(3.0, [half]), SHAPES, {"adam_step": 3})
        one.finish()


def no_room(stream, entries):
    raise OSError(28, "No space left on device")


def test_a_rank_that_cannot_write_is_heard_on_all_and_the_next_save_is_whole(tmp_path):
    mp.start_processes(
        rank_main, (2, str(tmp_path / "rendezvous"), tmp_path), nprocs=2, start_method="spawn"
    )
    assert (tmp_path / "rank-0").read_text() == (tmp_path / "rank-1").read_text()
    assert (tmp_path / "rank-0").read_text() == "disk-full False"
    saved = checkpoint.newest(tmp_path / "one")
    assert checkpoint.steps(tmp_path / "one") == [1, 3] and len(saved.record["files"]) == 2
    assert torch.equal(saved.full("w"), torch.arange(3.0, 15).view(3, 4))
