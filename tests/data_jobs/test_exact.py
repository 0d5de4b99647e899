"""Equal documents: what counts as equal, which one stays, and the same answer however it is cut."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from data_jobs import exact, keyed
from data_jobs.firsts import LATER, RECORD, sorted_records
from data_jobs.normal_text import normalized, text_hashes
from mutirao.core.errors import RecipeError
from mutirao.core.schemas import read_ipc

CLEAN = {"boilerplate": False, "personal_data": "keep"}


def decided(done) -> list[dict]:
    """Every document with its text and its decision; duplicate_of: the id of the one that stays."""
    texts = [read_ipc(p, "text").to_pylist() for p in done["clean"].paths("text-")]
    found = [read_ipc(p, "decision.exact").to_pylist() for p in done["exact"].paths("exact-")]
    rows = []
    for some, decisions in zip(texts, found, strict=True):
        for document, one in zip(some, decisions, strict=True):
            place = (one["duplicate_of_shard"], one["duplicate_of_row"])
            assert (place == (None, None)) == (one["reason"] is None)
            of = None if place[0] is None else texts[place[0]][place[1]]["id"]
            rows.append({**document, **one, "duplicate_of": of})
    return rows


def run(helpers, root: Path, files: dict[str, list[dict]], until: str = "exact", **fields):
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (root / f"{name}.jsonl").write_bytes(helpers.jsonl(rows))
    sources = [{"path": f"{name}.jsonl", "name": name} for name in files]
    fields.setdefault("clean", CLEAN)
    recipe = helpers.Recipe(sources=sources, **fields)
    return helpers.run_stages(root, recipe, until, without=("langid", "filter"))


def test_normalisation_decides_what_is_equal():
    assert normalized(" A\n b ", "casefold") == "a b"
    assert normalized(" A\n b ", "whitespace") == "A b"
    assert normalized(" A\n b ", "none") == " A\n b "


@pytest.mark.parametrize("how", ["casefold", "whitespace", "none"])
def test_hashes_are_those_of_the_normalised_text_for_every_character(how):
    points = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    lines = ["".join(points[k : k + 50]) for k in range(0, len(points), 50)]
    spaces = [c for c in points if c.isspace()]
    texts = [*lines, *spaces, *(f"{s}A{s}{s}b\0ß{s}" for s in spaces), "", "\0", "ΑΣ ﬃ ŉ İI"]
    found = text_hashes(pa.array(texts, pa.large_string()), how)
    wanted = [xxhash.xxh3_128_digest(normalized(text, how).encode()) for text in texts]
    assert found.astype(">u8").tobytes() == b"".join(wanted)


def test_a_slice_and_nulls_hash_like_their_texts():
    column = pa.array(["um", None, "Dois  dias", "três"], pa.large_string())
    whole = text_hashes(column, "casefold")
    assert (text_hashes(column.slice(1, 2), "casefold") == whole[1:3]).all()
    assert (whole[1] == text_hashes(pa.array([""], pa.large_string()), "casefold")[0]).all()


def test_of_equal_documents_the_first_id_stays(helpers, tmp_path):
    one, two = helpers.sentence(1), helpers.sentence(2)
    rows = [{"text": text} for text in (one, two, one.upper(), two + " ", one)]
    found = decided(run(helpers, tmp_path, {"a": rows}))
    for group in ([0, 2, 4], [1, 3]):
        first, *rest = sorted((found[k] for k in group), key=lambda row: row["id"])
        assert first["reason"] is None
        assert all(row["reason"] == "exact-duplicate" for row in rest)
        assert {row["duplicate_of"] for row in rest} == {first["id"]}
        assert len({row["hash"] for row in (first, *rest)}) == 1
    assert found[0]["hash"] != found[1]["hash"]


def corpus(helpers, seed: int) -> dict[str, list[dict]]:
    """Three sources that share most of their texts, some inside one source too."""
    chance = random.Random(seed)
    texts = [helpers.sentence(k, 20) for k in range(25)]
    return {
        name: [{"id": k, "text": chance.choice(texts)} for k in range(30)]
        for name in ("livros", "web", "leis")
    }


@pytest.mark.parametrize("prefer", [[], ["web"], ["leis", "web"]])
def test_the_first_in_prefer_and_id_order_stays_however_it_is_cut(
    helpers, tmp_path, monkeypatch, prefer
):
    files = corpus(helpers, 1)
    fields = {"exact": {"prefer": prefer}}
    found = decided(run(helpers, tmp_path / "one", files, **fields))
    wanted: dict[str, tuple] = {}
    for row in found:
        rank = prefer.index(row["source"]) if row["source"] in prefer else len(prefer)
        wanted[row["text"]] = min((rank, row["id"]), wanted.get(row["text"], (9, b"")))
    for row in found:
        stays = wanted[row["text"]][1]
        assert row["duplicate_of"] == (None if row["id"] == stays else stays)
    assert sum(row["reason"] is None for row in found) == len(wanted)

    answer = {row["id"]: row["duplicate_of"] for row in found}
    monkeypatch.setattr(keyed, "RANGE_BYTES", 1_000)
    turned = dict(reversed(files.items()))
    small = {**CLEAN, "shard_bytes": 1_000}
    other = run(helpers, tmp_path / "two", turned, **fields, clean=small)
    assert len(other["exact"].paths("exact-")) > 8
    assert {row["id"]: row["duplicate_of"] for row in decided(other)} == answer


def test_an_unknown_preferred_source_is_one_sentence_with_the_nearest_name(helpers, tmp_path):
    files = {"livros": [{"text": helpers.sentence(1)}], "web": [{"text": helpers.sentence(2)}]}
    with pytest.raises(RecipeError, match=r"no source 'livro'[\s\S]*Did you mean livros\?"):
        run(helpers, tmp_path, files, exact={"prefer": ["livro"]})
    with pytest.raises(RecipeError, match="'web' is there twice"):
        run(helpers, tmp_path, files, exact={"prefer": ["web", "web"]})


def test_an_all_equal_corpus_leaves_one_and_its_key_range_stays_small(helpers, tmp_path):
    files = {"a": [{"text": helpers.sentence(1)}] * 400, "b": [{"text": helpers.sentence(1)}] * 3}
    done = run(helpers, tmp_path, files, clean={**CLEAN, "shard_bytes": 5_000})
    found = decided(done)
    first = min(row["id"] for row in found)
    assert [row["id"] for row in found if row["reason"] is None] == [first]
    assert {row["duplicate_of"] for row in found if row["reason"]} == {first}
    shards = len(done["clean"].paths("text-"))
    job = helpers.make_job(tmp_path / "again", "exact", helpers.Recipe(sources=[{"path": "x"}]), {})
    item = {"directory": str(job.directory), "normalize": "casefold"}
    for shard, path in enumerate(done["clean"].paths("text-")):
        exact.hash_unit({**item, "shard": shard, "text": str(path), "decisions": {}})
    task = {**item, "range": 0, "ranges": 1, "ranks": [[0, shards]]}
    assert shards > 5 and exact.group_unit(task)["part"]["rows"] == shards - 1


def test_ids_of_the_source_missing_doubled_or_of_mixed_type_change_nothing(helpers, tmp_path):
    ids = [1, "1", 1, None, "", 2.5, [1], True]
    rows = [{"id": one, "text": helpers.sentence(k)} for k, one in enumerate(ids)]
    rows += [{"text": helpers.sentence(90)}, {"text": helpers.sentence(0)}]
    found = decided(run(helpers, tmp_path, {"a": rows}))
    assert len(found) == len({row["id"] for row in found}) == len(rows)
    assert sum(row["reason"] is not None for row in found) == 1, "only the text that is there twice"


def test_the_same_file_given_twice_leaves_each_document_once(helpers, tmp_path):
    rows = [{"text": helpers.sentence(k)} for k in range(6)]
    (tmp_path / "a.jsonl").write_bytes(helpers.jsonl(rows))
    sources = [{"path": "a.jsonl", "name": name} for name in ("a", "b")]
    recipe = helpers.Recipe(sources=sources, clean=CLEAN)
    found = decided(helpers.run_stages(tmp_path, recipe, "exact"))
    assert sum(row["reason"] is None for row in found) == 6


def test_empty_documents_and_null_bytes_are_texts_like_any_other(tmp_path):
    """`clean` lets none through; results of others may hold them."""
    texts = ["", "a\0b", "  \n", "a\0B", "a"]
    ids = np.arange(len(texts), dtype=np.uint64)
    hashes = text_hashes(pa.array(texts, pa.large_string()), "casefold")
    records = sorted_records(hashes, ids, np.arange(len(texts)))
    table = exact.decisions(hashes, records, np.zeros(0, LATER), 0)
    assert table.column("duplicate_of_row").to_pylist() == [None, None, 0, 1, None]


def test_a_copy_that_another_stage_drops_does_not_stay_in_the_place_of_a_good_one(stages, helpers):
    """Whichever of the two ids is the first: one text stands in capitals, which filter drops."""
    texts = [helpers.sentence(k, 80) for k in range(12)]
    rows = [
        {"id": f"{case}{k}", "text": text if case == "plain" else text.upper()}
        for k, text in enumerate(texts)
        for case in (("plain", "loud") if k % 2 else ("loud", "plain"))
    ]
    sources = [{"path": "a.jsonl"}]
    limits = {"langid": {"min_confidence": 0.0}, "filter": {"thresholds": {"max_uppercase": 0.5}}}
    done = stages({"a.jsonl": helpers.jsonl(rows)}, until="split", sources=sources, **limits)
    kept = [
        row["text"]
        for side in ("train-", "heldout-")
        for path in done["split"].paths(side)
        for row in read_ipc(path, "kept").to_pylist()
    ]
    assert sorted(kept) == sorted(texts)
    assert done["exact"].counts["dropped"] == 0


def test_records_are_sorted_by_all_fields():
    chance = np.random.default_rng(1)
    hashes = chance.integers(0, 4, (500, 2)).astype(np.uint64)
    ids, rows = chance.integers(0, 3, 500).astype(np.uint64), np.arange(500)[::-1]
    found = sorted_records(hashes, ids, rows, chance.integers(0, 9, 500))
    assert (found == np.sort(found, order=list(RECORD.names))).all()


def test_a_torn_hash_file_is_made_again(helpers, tmp_path, monkeypatch):
    files = corpus(helpers, 2)
    whole = run(helpers, tmp_path / "whole", files)

    def dies(item):
        raise KeyboardInterrupt

    monkeypatch.setattr(exact, "decide_unit", dies)
    with pytest.raises(KeyboardInterrupt):
        run(helpers, tmp_path / "torn", files)
    monkeypatch.undo()
    folder = tmp_path / "torn/store/exact/key"
    hashes = sorted(folder.glob("hashes-*.npy"))
    hashes[0].write_bytes(hashes[0].read_bytes()[:-7])
    hashes[1].unlink()
    monkeypatch.setattr(keyed, "RANGE_BYTES", 2_000)  # another number of ranges on resume
    again = run(helpers, tmp_path / "torn", files)
    assert [p.sha256 for p in again["exact"].parts] == [p.sha256 for p in whole["exact"].parts]
    left = {path.name.split("-")[0] for path in folder.iterdir()}
    assert left == {"exact", "manifest.json"}, "the disk of both attempts is given back"
