"""neardup with repeated paragraphs: what is left goes into the decision shards."""

from __future__ import annotations

import pytest

from data_jobs.language.spans import cut
from mutirao.core.schemas import read_ipc
from test_neardup import run


@pytest.fixture
def decided(helpers, tmp_path):
    def found(rows, **near):
        (tmp_path / "a.jsonl").write_bytes(helpers.jsonl(rows))
        done = run(helpers, tmp_path, sources=[{"path": "a.jsonl"}], neardup=near)
        texts = read_ipc(done["clean"].paths("text-")[0]).to_pylist()
        decisions = read_ipc(done["neardup"].paths("neardup-")[0]).to_pylist()
        found = {t["name"]: {**t, **d} for t, d in zip(texts, decisions, strict=True)}
        return found, done["neardup"]

    return found


def test_a_paragraph_that_stood_before_is_cut_and_an_emptied_document_dropped(decided, helpers):
    shared = helpers.sentence(1, 40)
    rows = [
        {"id": "a", "text": f"{helpers.sentence(2, 50)}\n\n{shared}"},
        {"id": "b", "text": f"{helpers.sentence(3, 50)}\n\n{shared}"},
        {"id": "c", "text": f"Sim.\n\n{shared}"},
    ]
    found, manifest = decided(rows, paragraphs="drop")
    first = min(found, key=lambda name: found[name]["id"])
    for name, row in found.items():
        if name == first:
            assert (row["spans"], row["reason"]) == (None, None)
        elif name == "c":
            assert row["reason"] == "repeated-paragraphs"
        else:
            left = cut(row["text"].encode(), row["spans"]).decode()
            assert left == row["text"].split("\n\n")[0]
    left = {path.name for path in manifest.directory.iterdir()} - {"manifest.json"}
    parts = {part.path for part in manifest.parts}
    assert left == parts | {f"{name}.part.json" for name in parts}


def test_paragraphs_of_near_duplicates_that_go_are_not_counted(decided, helpers):
    """The longer one stays whole; the near copy is dropped and cuts nothing."""
    first, second = helpers.sentence(4, 60), helpers.sentence(5, 60)
    rows = [
        {"id": "stays", "text": f"{first}\n\n{second} e mais um pouco no fim."},
        {"id": "goes", "text": f"{first}\n\n{second}"},
    ]
    found, _ = decided(rows, paragraphs="drop")
    assert found["goes"]["reason"] == "near-duplicate"
    assert found["stays"]["spans"] is None and found["stays"]["reason"] is None
