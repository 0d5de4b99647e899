"""Held-out documents: by cluster, fixed for ever; the kept text shards and their streams."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_jobs import kept_shards, split
from data_jobs.heldout import heldout_keys, heldout_rule, is_heldout
from data_jobs.pipeline import STAGES
from data_jobs.shards import write_table
from mutirao.core.errors import DataError
from mutirao.core.manifest import Manifest, commit
from mutirao.core.schemas import KEPT, LANGID, NEARDUP, read_ipc
from mutirao.run.assets import assets_of

CLEAN = {"boilerplate": False, "personal_data": "keep"}


def split_of(
    helpers, root: Path, sources: dict[str, list[dict]], clusters=None, cuts=None, **fields
) -> Manifest:
    """The split of these documents after `clean` and `exact`, and a `neardup` and `langid` made up
    from {name of a document: its cluster} and {stage: {name: spans}}."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in sources.items():
        (root / f"{name}.jsonl").write_bytes(helpers.jsonl(rows))
    fields.setdefault("clean", CLEAN)
    recipe = helpers.Recipe(sources=[{"path": f"{n}.jsonl", "name": n} for n in sources], **fields)
    done = helpers.run_stages(root, recipe, "exact", without=("langid", "filter"))
    made = {"neardup": NEARDUP} if clusters is not None else {}
    made |= {stage: {"langid": LANGID, "neardup": NEARDUP}[stage] for stage in cuts or {}}
    for stage, schema in made.items():
        done[stage] = decisions(root, done, stage, schema, clusters or {}, (cuts or {}).get(stage))
    result = STAGES["split"](helpers.make_job(root, "split", recipe, done))
    content = {"stage": "split", "parts": [vars(part) for part in result.parts]}
    content |= {"counts": result.counts, "info": result.info}
    return commit(root / "store/split/key", content, {})


def decisions(root, done, stage, schema, clusters, cuts) -> Manifest:
    folder = root / "store" / stage / "key"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for shard, path in enumerate(done["clean"].paths("text-")):
        names = read_ipc(path, "text").column("name").to_pylist()
        columns = {
            "cluster": pa.array([clusters.get(name) for name in names], pa.uint64()),
            "spans": pa.array([(cuts or {}).get(name) for name in names], pa.list_(pa.int32())),
        }
        arrays = [columns.get(f.name, pa.nulls(len(names), f.type)) for f in schema]
        table = pa.Table.from_arrays(arrays, schema=schema)
        parts.append(vars(write_table(folder, f"{stage}-{shard:05d}.arrow", table)))
    return commit(folder, {"stage": stage, "parts": parts, "counts": {}, "info": {}}, {})


def rows_of(done: Manifest, side: str) -> list[dict]:
    return [row for path in done.paths(f"{side}-") for row in read_ipc(path, "kept").to_pylist()]


def sides(done: Manifest) -> dict[str, set[str]]:
    """The texts of both sides: an exact duplicate from elsewhere is the same document."""
    return {side: {row["text"] for row in rows_of(done, side)} for side in ("train", "heldout")}


def documents(helpers, seed: int, count: int, first: int = 0) -> list[dict]:
    return [
        {"id": f"{seed}-{k}", "text": helpers.sentence(seed * 10_000 + k, 12)}
        for k in range(first, first + count)
    ]


def key_of(helpers, tmp_path: Path, rows: list[dict]) -> dict[str, int]:
    """{name: key} of documents, as `exact` hashes them."""
    files = tmp_path / "keys"
    files.mkdir()
    (files / "a.jsonl").write_bytes(helpers.jsonl(rows))
    done = helpers.run_stages(files, helpers.Recipe(sources=[{"path": "a.jsonl"}]), "exact")
    table = read_ipc(done["clean"].paths("text-")[0], "text")
    keys = heldout_keys(table, {"exact": str(done["exact"].paths("exact-")[0])})
    return dict(zip(table.column("name").to_pylist(), keys.tolist(), strict=True))


def test_held_out_are_the_keys_under_the_share_without_a_seed(helpers, tmp_path):
    rows = documents(helpers, 1, 300)
    keys = key_of(helpers, tmp_path, rows)
    texts = {row["id"]: row["text"] for row in rows}
    wanted = {texts[name] for name, key in keys.items() if key < 0.1 * 2**64}
    for seed in (1, 2):
        done = split_of(
            helpers, tmp_path / str(seed), {"a": rows}, split={"heldout": 0.1}, seed=seed
        )
        assert sides(done)["heldout"] == wanted
    assert 15 < len(wanted) < 50


@pytest.mark.parametrize("seed", range(4))
def test_more_documents_sources_and_edges_never_move_one_to_training(helpers, tmp_path, seed):
    """At a share that holds something out of each source; what grows is a source, their number, the
    order in which they stand, and the clusters."""
    chance = random.Random(seed)
    old = {"a": documents(helpers, 1, 80), "b": documents(helpers, 2, 60)}
    new = {
        "c": documents(helpers, 3, 40) + old["a"][:5],
        "b": old["b"] + documents(helpers, 2, 30, first=60),
        "a": documents(helpers, 4, 20) + old["a"],
    }
    names = [row["id"] for rows in new.values() for row in rows]
    keys = key_of(helpers, tmp_path, [row for rows in new.values() for row in rows])
    groups = {name: {name} for name in names}
    clusters = []
    known = [row["id"] for rows in old.values() for row in rows]
    for some in (known, names):  # the second 30 edges only join more
        for _ in range(30):
            one, other = chance.sample(some, 2)
            joined = groups[one] | groups[other]
            groups |= dict.fromkeys(joined, joined)
        joined_ones = {name: group for name, group in groups.items() if len(group) > 1}
        clusters.append({n: min(keys[m] for m in group) for n, group in joined_ones.items()})
    share = {"heldout": 0.1}
    first = sides(split_of(helpers, tmp_path / "one", old, clusters[0], split=share))
    second = sides(split_of(helpers, tmp_path / "two", new, clusters[1], split=share))
    assert first["heldout"] <= second["heldout"] and len(first["heldout"]) > 4
    assert second["train"] & first["heldout"] == set()


def test_a_forced_document_stays_held_out_when_other_sources_come(helpers, tmp_path):
    share = {"heldout": 1e-9}
    one = {"a": documents(helpers, 1, 25), "b": documents(helpers, 2, 19)}
    first = sides(split_of(helpers, tmp_path / "one", one, split=share))["heldout"]
    more = {"c": documents(helpers, 3, 30), "b": one["b"], "a": one["a"]}
    second = sides(split_of(helpers, tmp_path / "two", more, split=share))["heldout"]
    assert len(first) == 1 and first < second and len(second) == 2


def test_near_duplicates_lie_on_one_side(helpers, tmp_path):
    rows = documents(helpers, 1, 200)
    keys = key_of(helpers, tmp_path, rows)
    names = sorted(keys)
    cluster = {name: min(keys[n] for n in names[:40]) for name in names[:40]}
    done = split_of(helpers, tmp_path / "x", {"a": rows}, cluster, split={"heldout": 0.05})
    held = sides(done)["heldout"]
    texts = {row["text"] for row in rows if row["id"] in cluster}
    assert texts <= held or not texts & held


def test_every_source_of_twenty_documents_holds_one_out():
    def unit(source, count, least):
        kept = {source: {"documents": count, "text_bytes": 1}}
        info = {"smallest": {source: str(least)}, "kept_per_source": kept}
        return {"part": {"info": info}}

    high = 2**63
    rule = heldout_rule([unit("a", 20, high + 1), unit("b", 19, high), unit("c", 99, 5)], 0.01)
    assert rule["forced"] == [high + 1]
    assert heldout_rule([unit("b", 19, high)], 0.01)["forced"] == [high]
    keys = np.array([0, high, high + 1, 2**64 - 1], np.uint64)
    assert is_heldout(keys, rule).tolist() == [True, False, True, False]


def test_partitioning_and_order_of_sources_change_no_side(helpers, tmp_path, monkeypatch):
    files = {"a": documents(helpers, 1, 90), "b": documents(helpers, 2, 50)}
    one = sides(split_of(helpers, tmp_path / "one", files))
    monkeypatch.setattr(kept_shards, "SHARD_BYTES", 900)
    turned = dict(reversed(files.items()))
    two = split_of(helpers, tmp_path / "two", turned, clean={**CLEAN, "shard_bytes": 2_000})
    assert sides(two) == one and len(two.paths("train-")) > 5


def test_a_kept_document_knows_its_stream_its_place_and_its_columns(helpers, tmp_path):
    files = {"livros": documents(helpers, 1, 40), "web": documents(helpers, 2, 40)}
    for row in files["web"]:
        row |= {"url": f"http://exemplo/{row['id']}", "license": "CC0-1.0", "source": "jornal"}
    fields = {"clean": {**CLEAN, "shard_bytes": 1_500}, "split": {"heldout": 0.2}}
    done = split_of(helpers, tmp_path, files, **fields)
    texts = [read_ipc(p, "text") for p in sorted((tmp_path / "store/clean/key").glob("text-*"))
             if p.suffix == ".arrow"]  # fmt: skip
    rows = rows_of(done, "train") + rows_of(done, "heldout")
    assert len(rows) == 80
    for row in rows:
        (origin,) = texts[row["shard"]].slice(row["row"], 1).to_pylist()
        same = ("id", "text", "source", "license", "url", "kind", "genre", "messages")
        assert {name: row[name] for name in same} == {name: origin[name] for name in same}
        assert row["stream"] == ("livros" if origin["name"].startswith("1-") else "web")
    for side in ("train", "heldout"):
        places = [(row["shard"], row["row"]) for row in rows_of(done, side)]
        assert places == sorted(places), "runs of one stream, in the order of the text shards"
    assert read_ipc(done.paths("train-")[0], "kept").schema == KEPT


def test_a_source_without_a_name_is_a_stream_though_its_documents_name_others(helpers, tmp_path):
    rows = [{**row, "source": f"site {k % 3}"} for k, row in enumerate(documents(helpers, 1, 60))]
    (tmp_path / "crawl.jsonl").write_bytes(helpers.jsonl(rows))
    recipe = helpers.Recipe(sources=[{"path": "crawl.jsonl"}], clean=CLEAN)
    done = helpers.run_stages(tmp_path, recipe, "exact")
    result = STAGES["split"](helpers.make_job(tmp_path, "split", recipe, done))
    tables = [read_ipc(tmp_path / "store/split/key" / part.path, "kept") for part in result.parts]
    assert {s for t in tables for s in t.column("stream").to_pylist()} == {"crawl"}
    assert set(result.info["kept_per_source"]) == {"site 0", "site 1", "site 2"}


def test_what_langid_and_neardup_leave_is_intersected_in_the_kept_text(helpers, tmp_path):
    rows = [{"id": str(k), "text": f"ação {k}\n\nnão {k}\n\npão {k}"} for k in range(30)]
    size = len("ação 0\n\n".encode())
    end = len(rows[0]["text"].encode())
    cuts = {
        "langid": {"0": [0, end - 8], "1": [size, end]},
        "neardup": {"0": [size, end], "2": [0, size - 2]},
    }
    done = split_of(helpers, tmp_path, {"a": rows}, cuts=cuts, split={"heldout": 0.3})
    found = {
        row["row"]: row["text"] for side in ("train", "heldout") for row in rows_of(done, side)
    }
    assert found[0] == "não 0" and found[1] == "não 1\n\npão 1" and found[2] == "ação 2"
    assert found[3] == rows[3]["text"]
    kept = sum(len(text.encode()) for text in found.values())
    assert done.counts["text_bytes_out"] == kept < done.counts["text_bytes_in"]


def test_without_exact_the_key_is_that_of_the_text(helpers, tmp_path):
    rows = documents(helpers, 1, 30)
    keys = key_of(helpers, tmp_path, rows)
    (path,) = (
        p for p in (tmp_path / "keys/store/clean/key").glob("text-*") if p.suffix == ".arrow"
    )
    table = read_ipc(path, "text")
    assert heldout_keys(table, {}).tolist() == [keys[n] for n in table.column("name").to_pylist()]


@pytest.mark.parametrize("rows", [1, 5])
def test_one_document_in_total_is_one_sentence(helpers, tmp_path, rows):
    files = {"a": [{"text": helpers.sentence(1)}] * rows}
    with pytest.raises(DataError, match="Fewer than two documents are left") as caught:
        split_of(helpers, tmp_path, files)
    assert ("exact exact-duplicate 4" in str(caught.value)) == (rows == 5)


def test_one_cluster_in_total_is_one_sentence(helpers, tmp_path):
    rows = documents(helpers, 1, 30)
    with pytest.raises(DataError, match="All 30 documents that are left fall on one side"):
        split_of(helpers, tmp_path, {"a": rows}, {row["id"]: 7 for row in rows})


def test_counts_and_reasons_add_up(helpers, tmp_path):
    files = {"a": documents(helpers, 1, 40) * 2, "b": documents(helpers, 2, 20)}
    done = split_of(helpers, tmp_path, files, clean={**CLEAN, "shard_bytes": 3_000})
    info = done.content["info"]
    size = {row["id"]: len(row["text"].encode()) for rows in files.values() for row in rows}
    a, b = (sum(size[row["id"]] for row in rows) for rows in (files["a"][:40], files["b"]))
    assert info["dropped"] == {"exact": {"exact-duplicate": {"documents": 40, "text_bytes": a}}}
    assert info["kept_per_source"] == {
        "a": {"documents": 40, "text_bytes": a},
        "b": {"documents": 20, "text_bytes": b},
    }
    both = [info["train"], info["heldout"]]
    assert sum(side["documents"] for side in both) == 60 == done.counts["documents_out"]
    assert sum(side["text_bytes"] for side in both) == a + b == done.counts["text_bytes_out"]
    assert done.counts["documents_in"] == 100 and done.counts["text_bytes_in"] == 2 * a + b


def test_a_torn_mark_or_kept_file_is_made_again(helpers, tmp_path, monkeypatch):
    files = {"a": documents(helpers, 1, 60)}
    fields = {"clean": {**CLEAN, "shard_bytes": 2_000}}
    whole = split_of(helpers, tmp_path / "whole", files, **fields)
    write = split.write_unit

    def dies_at_heldout(item):
        if item["side"] == "heldout":
            raise KeyboardInterrupt
        return write(item)

    monkeypatch.setattr(split, "write_unit", dies_at_heldout)
    with pytest.raises(KeyboardInterrupt):
        split_of(helpers, tmp_path / "torn", files, **fields)
    monkeypatch.undo()
    folder = tmp_path / "torn/store/split/key"
    for name in ("marks-00001.npy", "train-00000.arrow"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    again = split_of(helpers, tmp_path / "torn", files, **fields)
    assert [p.sha256 for p in again.parts] == [p.sha256 for p in whole.parts]
    assert not list(folder.glob("marks-*")), "marks are given back"


def test_a_stream_named_after_its_path_is_part_of_the_key(helpers):
    """The name stands in the kept text, and `path` itself is not hashed."""

    def assets(stage, path, **fields):
        return assets_of(stage, helpers.Recipe(sources=[{"path": path}], **fields), Path())

    assert assets("split", "um/") != assets("split", "dois/")
    assert assets("split", "x/um/") == assets("split", "y/um/")
    assert assets("exact", "um/") == assets("exact", "dois/") == {}
    assert assets("exact", "um/", exact={"prefer": ["um"]})
