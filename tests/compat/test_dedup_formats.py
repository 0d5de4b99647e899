"""Format 3 of the data files must stay readable: edges, index, streams, text of an earlier result.

`format-3/` is a workdir of two small runs on paragraphs of Machado de Assis (public domain). The
second was compared with the first (`neardup.against`) and packs token files beside its text; from
the first a document was forgotten afterwards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_jobs.near.index import read_bands, read_signatures
from data_jobs.results.explain import explain
from data_jobs.results.view import NOBODY, show
from mutirao.core import schemas
from mutirao.core.earlier import open_earlier
from mutirao.core.manifest import read_manifest, verify
from mutirao.core.runs import all_runs
from mutirao.core.takedown import Takedown
from mutirao.run.show import manifests

OLD = Path(__file__).parent / "format-3"


@pytest.fixture(scope="module")
def runs(old):
    """By name: the run and its results."""
    return {run.recipe().name: (run, manifests(old, run)) for run in all_runs(old)}


def test_every_part_is_intact_and_has_the_schema_of_its_kind(old):
    declared = [s for s in vars(schemas).values() if isinstance(s, schemas.pa.Schema)]
    by_kind = {s.metadata[b"mutirao.kind"]: s for s in declared if s is not schemas.TOKENS_32}
    found = set()
    for path in old.store.glob("*/*/manifest.json"):
        manifest = read_manifest(path.parent)
        assert manifest is not None and verify(manifest) == []
        for part in manifest.paths():
            if part.suffix != ".arrow":
                continue
            schema = schemas.read_ipc(part).schema
            kind = schema.metadata[b"mutirao.kind"]
            found.add(kind)
            if kind != b"signatures":  # as wide as its permutations
                assert schema.equals(by_kind[kind]), part
    assert found == set(by_kind) | {b"signatures"}


def test_a_duplicate_names_what_stays_here_and_in_an_earlier_result(old, runs):
    run, stages = runs["b"]
    (row,) = show(stages, dropped=True, against=run.recipe().neardup.against)
    assert row["name"] == "b-perto" and row["jaccard"] > 0.8
    other = row["duplicate_of"]
    first, _ = runs["a"]
    assert other["against"].endswith(first.id)
    earlier = open_earlier(first.directory)
    kept = {one["id"]: one for one in show(earlier)}
    assert (kept[other["id"]]["shard"], kept[other["id"]]["row"]) == (other["shard"], other["row"])
    dropped = {one["drop_reason"]: one for one in show(runs["a"][1], dropped=True)}
    assert set(dropped) == {"exact-duplicate", "near-duplicate", "evaluation-text", "takedown"}
    near = explain(runs["a"][1], dropped["near-duplicate"]["id"], first.recipe())
    stage = next(one for one in near["stages"] if one["stage"] == "neardup")
    assert stage["edges"] == 1 and stage["values"]["cluster_size"] == 2


def test_the_index_is_read_and_a_forgotten_document_is_not_in_it(old, runs):
    stages = runs["a"][1]
    (text,) = stages["clean"].paths("text-")
    (gone,) = [r for r, one in enumerate(schemas.read_ipc(text)["id"].to_pylist()) if one == NOBODY]
    keys, rows, offsets = read_bands(stages["neardup"].paths("bands-")[0])
    info = stages["neardup"].content["info"]
    assert set(keys[rows == gone].tolist()) <= {0} and len(keys) == offsets[-1]
    assert (keys != 0).sum() % info["bands"] == 0
    signatures = read_signatures(stages["neardup"].paths("signatures-")[0])
    assert signatures.shape[1] == info["bands"] * info["rows"] and not signatures[gone].any()
    assert Takedown.load(old.root).matches(url="https://exemplo.org/a6")


def test_a_repeated_paragraph_stands_once_and_texts_are_those_of_split(runs):
    texts = [row["text"] for row in show(runs["a"][1], whole=True)]
    assert sum("Este aviso de direitos" in text for text in texts) == 1
    without_split = {name: m for name, m in runs["a"][1].items() if name != "split"}
    assert texts == [row["text"] for row in show(without_split, whole=True)]


def test_token_streams_are_named_and_hold_what_the_manifest_says(runs):
    pack = runs["b"][1]["pack"]
    streams = pack.content["info"]["streams"]
    assert [one["name"] for one in streams] == ["b", "ids"]
    for number, stream in enumerate(streams):
        for side in ("train", "heldout"):
            paths = pack.paths(f"{side}-{number:03d}-")
            tokens = [schemas.read_ipc(p, "tokens") for p in paths if ".tokens." in p.name]
            documents = [schemas.read_ipc(p, "documents") for p in paths if ".doc" in p.name]
            assert sum(t.num_rows for t in tokens) == stream[side]["tokens"]
            assert sum(d.num_rows for d in documents) == stream[side]["documents"]
            ends = [np.asarray(t.column("token"))[-1] for t in tokens]
            assert set(ends) <= {pack.content["info"]["eos_id"]}
