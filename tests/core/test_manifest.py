"""Commits: a manifest is the last thing written; damage and newer formats are seen."""

from __future__ import annotations

import json

import pytest

from mutirao.core.errors import DataError, UserError
from mutirao.core.files import write_atomic
from mutirao.core.manifest import (
    MANIFEST,
    commit,
    content_hash,
    finished_part,
    read_manifest,
    verify,
    write_part,
)


def write(data: bytes):
    return lambda stream: (stream.write(data), 3)[1]


def make(directory):
    part = write_part(directory, "a.bin", write(b"abc"), {"x": 1})
    return commit(directory, {"parts": [vars(part)], "counts": {"n": 3}}, {"host": "here"})


def test_nothing_is_committed_before_the_manifest(tmp_path):
    write_part(tmp_path, "a.bin", write(b"abc"))
    assert read_manifest(tmp_path) is None
    manifest = make(tmp_path)
    assert read_manifest(tmp_path).content == manifest.content
    assert manifest.paths("a") == [tmp_path / "a.bin"]


def test_provenance_does_not_change_the_content_hash(tmp_path):
    first = make(tmp_path / "1")
    second = make(tmp_path / "2")
    assert first.content_hash == second.content_hash == content_hash(first.content)


def test_a_restarted_stage_takes_a_finished_part_but_not_a_damaged_one(tmp_path):
    part = write_part(tmp_path, "a.bin", write(b"abc"))
    assert finished_part(tmp_path, "a.bin") == part
    (tmp_path / "a.bin").write_bytes(b"abd")
    assert finished_part(tmp_path, "a.bin") is None
    assert finished_part(tmp_path, "b.bin") is None


def test_verify_names_missing_short_and_changed_files(tmp_path):
    for name, damage in (("1", None), ("2", b"ab"), ("3", b"xyz")):
        manifest = make(tmp_path / name)
        assert verify(manifest) == []
        path = tmp_path / name / "a.bin"
        path.unlink() if damage is None else path.write_bytes(damage)
        problems = verify(manifest)
        assert len(problems) == 1 and str(path) in problems[0]


def test_a_changed_manifest_is_refused(tmp_path):
    make(tmp_path)
    record = json.loads((tmp_path / MANIFEST).read_text())
    record["content"]["counts"]["n"] = 4
    (tmp_path / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(DataError, match="does not match its hash"):
        read_manifest(tmp_path)


def test_a_newer_format_is_refused_with_the_cure(tmp_path):
    make(tmp_path)
    record = json.loads((tmp_path / MANIFEST).read_text())
    record["format"] = 2
    (tmp_path / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(UserError, match="newer mutirao") as caught:
        read_manifest(tmp_path)
    assert "Upgrade" in caught.value.hint


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fails(stream):
        stream.write(b"half")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="middle"):
        write_atomic(path, fails)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence(tmp_path):
    def full(stream):
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x" * 10)

    with pytest.raises(UserError, match="disk is full") as caught:
        write_atomic(tmp_path / "file", full)
    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []
