"""A new crawl against the results of earlier ones: what is matched, and what is refused."""

from __future__ import annotations

import pytest

from data_jobs.neardup import neardup_assets
from mutirao.core.earlier import open_earlier
from mutirao.core.errors import RecipeError
from mutirao.core.files import write_json
from mutirao.core.schemas import read_ipc
from test_neardup import Found, corpus, run, shingles

ALL = ("ingest", "clean", "exact", "neardup")


def as_run(root, name="old-1"):
    """The record that makes the results under `root` a run; returns the run's folder."""
    stages = {stage: {"key": "key", "status": "done"} for stage in ALL}
    record = {"format": 1, "kind": "run", "id": name, "status": "done", "stages": stages}
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    write_json(folder / "run.json", record)
    return folder


@pytest.fixture
def crawl(helpers, tmp_path):
    """crawl(name, rows, recipe fields) -> (folder of its run, its manifests)"""

    def made(name, rows, **fields):
        root = tmp_path / name
        root.mkdir()
        (root / "a.jsonl").write_bytes(helpers.jsonl(rows))
        done = run(helpers, root, sources=[{"path": "a.jsonl"}], **fields)
        return as_run(root), done

    return made


def test_documents_near_to_a_kept_earlier_one_are_dropped_for_the_nearest_of_those(crawl):
    rows = corpus(80)
    old, older = crawl("old", rows[::3]), crawl("older", rows[1::3])
    against = [str(old[0]), str(older[0])]
    _, done = crawl("new", rows[2::3], neardup={"against": against}, clean={"shard_bytes": 8_000})
    new, earlier = Found(done), [Found(old[1]), Found(older[1])]
    matched = 0
    for row in new.rows.values():
        mine = shingles(row["text"])
        near = {
            (number, other["id"]): len(mine & theirs) / len(mine | theirs)
            for number, one in enumerate(earlier)
            for other in one.rows.values()
            if other["reason"] is None
            and (theirs := shingles(other["text"]))
            and 5 * len(mine & theirs) >= 4 * len(mine | theirs)
        }
        if not near:
            assert row["against"] is None
            continue
        matched += 1
        assert row["reason"] == "near-duplicate" and row["duplicate_of_shard"] is None
        assert near[row["against"], row["duplicate_of_id"]] == pytest.approx(max(near.values()))
        assert row["jaccard"] == pytest.approx(max(near.values()), abs=1e-6)
    assert matched > 20
    inside = [row for row in new.rows.values() if row["reason"] and row["against"] is None]
    assert inside and all(row["jaccard"] >= 0.8 for row in inside)


def test_edges_name_the_result_shard_and_row_of_the_earlier_document(crawl):
    rows = corpus(30)
    folder, old = crawl("old", rows, clean={"shard_bytes": 8_000})
    _, done = crawl("new", rows[:10], neardup={"against": [str(folder)]})
    ids = [read_ipc(path)["id"].to_pylist() for path in old["clean"].paths("text-")]
    earlier = Found(old)
    edges = [e for path in done["neardup"].paths("edges-") for e in read_ipc(path).to_pylist()]
    across = [e for e in edges if e["against"] == 0]
    assert len(across) >= 8
    kept = {row["id"] for row in earlier.rows.values() if row["reason"] is None}
    assert all(ids[e["other_shard"]][e["other_row"]] in kept for e in across)


def test_an_earlier_result_is_not_changed_and_its_texts_are_not_signed_again(crawl, monkeypatch):
    rows = corpus(20)
    folder, _ = crawl("old", rows)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.parent.parent.rglob("*")}
    signed = []
    from data_jobs.near import sketch

    real = sketch.sketches
    monkeypatch.setattr(
        sketch, "sketches", lambda t, *rest: signed.append(t.num_rows) or real(t, *rest)
    )
    crawl("new", rows[:5], neardup={"against": [str(folder)]})
    assert sum(signed) == 5
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.parent.parent.rglob("*")}
    assert before == after


def test_an_earlier_result_may_have_moved_and_is_part_of_the_key(crawl, helpers, tmp_path):
    rows = corpus(10)
    crawl("old", rows)
    recipe = helpers.Recipe(sources=[{"path": "x"}], neardup={"against": ["old/runs/old-1"]})
    assets = neardup_assets(recipe, tmp_path)
    (tmp_path / "old").rename(tmp_path / "moved")
    moved = helpers.Recipe(sources=[{"path": "x"}], neardup={"against": ["moved/runs/old-1"]})
    assert neardup_assets(moved, tmp_path) == assets
    other, _ = crawl("other", rows[1:])
    changed = helpers.Recipe(sources=[{"path": "x"}], neardup={"against": [str(other)]})
    assert neardup_assets(changed, tmp_path) != assets


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ({"threshold": 0.7}, "bands 18 there, 26 here; rows 5 there, 4 here"),
        ({"ngram": 4}, "ngram"),
    ],
)
def test_another_layout_of_the_index_is_refused_with_the_cure(
    crawl, helpers, tmp_path, layout, told
):
    folder, _ = crawl("old", corpus(5))
    fields = {"against": [str(folder)], **layout}
    recipe = helpers.Recipe(sources=[{"path": "x"}], neardup=fields)
    with pytest.raises(RecipeError, match=told) as caught:
        neardup_assets(recipe, tmp_path)
    assert "neardup.bands=18, neardup.rows=5, neardup.ngram=5" in caught.value.hint


def test_a_folder_without_a_result_is_refused(tmp_path, helpers):
    for folder, told in ((tmp_path, "is not the result"), (tmp_path / "none", "does not exist")):
        with pytest.raises(RecipeError, match=told):
            open_earlier(folder)


def test_a_run_whose_neardup_has_not_finished_is_refused(crawl):
    folder, done = crawl("old", corpus(5))
    (done["neardup"].directory / "manifest.json").unlink()
    with pytest.raises(RecipeError, match="no finished stage neardup"):
        open_earlier(folder)
