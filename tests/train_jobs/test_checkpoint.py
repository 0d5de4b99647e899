"""The checkpoint layout: what is damaged is passed over, any slicing reads any other."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from mutirao.core.errors import DataError, UserError
from mutirao.core.recipe import Train
from train_jobs import checkpoint
from train_jobs.checkpoint import Slice
from train_jobs.saver import Saver
from train_jobs.skips import newest_state


def make_slices(value: float, cuts=((0, 12),)) -> list[Slice]:
    full = torch.arange(12, dtype=torch.float32) + value
    return [Slice("w", a, *(full[a:b] * k for k in (1, 2, 3))) for a, b in cuts]


def save(run_dir, step, value, cuts=((0, 12),), **train):
    saver = Saver(run_dir, Train(**train))
    saver.begin(step, make_slices(value, cuts), {"w": [3, 4]}, {"adam_step": step})
    saver.finish()


def test_whole_parameters_come_back_with_their_shape(tmp_path):
    save(tmp_path, 5, 1.0)
    saved = checkpoint.newest(tmp_path)
    assert saved.step == 5 and saved.state["adam_step"] == 5
    assert torch.equal(saved.full("w"), torch.arange(1.0, 13).view(3, 4))
    assert torch.equal(saved.full("w", "exp_avg_sq"), 3 * torch.arange(1.0, 13).view(3, 4))


@pytest.mark.parametrize("cuts", [[(0, 12)], [(0, 5), (5, 12)], [(3, 4)], [(0, 1), (11, 12)]])
def test_any_slice_can_be_filled(tmp_path, cuts):
    save(tmp_path, 5, 1.0)
    slices = make_slices(100.0, cuts)
    checkpoint.newest(tmp_path).fill(slices)
    for piece, wanted in zip(slices, make_slices(1.0, cuts), strict=True):
        assert torch.equal(piece.master, wanted.master)
        assert torch.equal(piece.exp_avg, wanted.exp_avg)


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_newest_gives_the_one_before_and_says_so(tmp_path, damage):
    save(tmp_path, 1, 1.0)
    save(tmp_path, 2, 2.0)
    path = next((tmp_path / "checkpoints" / "step-00000002").glob("*.safetensors"))
    if damage == "truncated":
        os.truncate(path, path.stat().st_size - 8)
    elif damage == "altered":
        with open(path, "r+b") as stream:
            stream.seek(-4, os.SEEK_END)
            stream.write(b"\x01\x02\x03\x04")
    else:
        path.unlink()
    lines = []
    assert checkpoint.newest(tmp_path, lines.append).step == 1
    assert "step-00000002 is damaged" in lines[0]


@pytest.mark.parametrize("torn", [b"", b'{"format": 2, "kind": "check', b"\0" * 64, b"null"])
def test_a_torn_manifest_gives_the_one_before_and_says_so(tmp_path, torn):
    save(tmp_path, 1, 1.0)
    save(tmp_path, 2, 2.0)
    newest = tmp_path / "checkpoints" / "step-00000002"
    (newest / "manifest.json").write_bytes(torn)
    lines = []
    assert checkpoint.newest(tmp_path, lines.append).step == 1
    (line,) = lines
    assert "step-00000002 is damaged (manifest.json cannot be read)" in line
    assert newest_state(tmp_path)["adam_step"] == 1
    with pytest.raises(DataError, match=r"manifest\.json cannot be read") as caught:
        checkpoint.hold(newest)
    assert caught.value.code == "damaged-checkpoint" and "1, 2" in caught.value.hint


def test_files_without_a_manifest_are_no_checkpoint(tmp_path):
    save(tmp_path, 1, 1.0)
    save(tmp_path, 2, 2.0)
    (tmp_path / "checkpoints" / "step-00000002" / "manifest.json").unlink()
    assert checkpoint.newest(tmp_path).step == 1
    assert checkpoint.steps(tmp_path) == [1]


def test_a_slice_that_nobody_wrote_is_an_error(tmp_path):
    save(tmp_path, 1, 1.0, [(0, 5)])
    with pytest.raises(DataError, match="5 of 12"):
        checkpoint.newest(tmp_path).full("w")


def test_a_newer_format_names_the_cure(tmp_path):
    save(tmp_path, 1, 1.0)
    path = tmp_path / "checkpoints" / "step-00000001" / "manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(UserError, match="newer mutirao"):
        checkpoint.newest(tmp_path)


def test_the_files_are_plain_safetensors(tmp_path):
    save(tmp_path, 1, 1.0)
    path = next((tmp_path / "checkpoints" / "step-00000001").glob("*.safetensors"))
    assert sorted(load_file(path)) == ["w/exp_avg", "w/exp_avg_sq", "w/master"]
