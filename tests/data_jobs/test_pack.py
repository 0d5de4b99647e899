"""Kept text becomes flat token streams, one a source, and nothing is lost on the way."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from data_jobs.pack import plan, text_items
from data_jobs.token_shards import Shard
from made_up_pack import (
    EOS,
    documents_of,
    kept_text,
    made_tokenizer,
    recipe_of,
    run_pack,
    tokens_of,
)
from mutirao.core.errors import DataError
from mutirao.core.job import StageJob
from mutirao.core.manifest import read_manifest, verify
from mutirao.core.progress import Progress
from mutirao.core.schemas import read_ipc

TEXTS = [
    "a casa",
    "",
    "ação\n\nnão 日本",
    f"antes {EOS} depois",
    "é",
    "x" * 300,
    " ",
    "mato " * 40,
]


def long_corpus() -> dict[str, list[list[tuple[str, str]]]]:
    """Three shards; the second holds two streams in turn; one has more rows than a record batch."""
    many = [("um", f"{TEXTS[i % len(TEXTS)]}{i}") for i in range(2500)]
    turns = [("um" if i // 7 % 2 else "dois", f"{TEXTS[i % len(TEXTS)]} {i}") for i in range(50)]
    last = [("dois", text) for text in TEXTS]
    return {"train": [many, turns, last], "heldout": [[("dois", "fora"), ("um", "a casa")]]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    split = kept_text(root / "split", long_corpus())
    return {"split": split, "tokenizer": made_tokenizer(root / "tokenizer")}


RECIPE = recipe_of(["dois", "um"], pack={"stream_bytes": 10_000})


@pytest.fixture(scope="module")
def packed(inputs, tmp_path_factory):
    return run_pack(tmp_path_factory.mktemp("packed"), RECIPE, inputs)


def decoded(inputs, ids) -> str:
    tokenizer = Tokenizer.from_file(str(inputs["tokenizer"].directory / "tokenizer.json"))
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False)


@pytest.mark.parametrize(("number", "name"), [(0, "dois"), (1, "um")])
@pytest.mark.parametrize("side", ["train", "heldout"])
def test_a_stream_decodes_to_its_texts_with_an_end_after_each(inputs, packed, side, number, name):
    texts = [text for shard in long_corpus()[side] for stream, text in shard if stream == name]
    ids = tokens_of(packed, side, number)
    assert decoded(inputs, ids) == "".join(text + EOS for text in texts)
    assert int((ids == 0).sum()) == len(texts)  # an end written in a text is plain text
    documents = documents_of(packed, side, number)
    assert [decoded(inputs, one[:-1]) for one in documents] == texts
    assert all(one[-1] == 0 for one in documents)


def test_a_stream_is_cut_into_shards_of_about_the_size_asked_for(packed):
    sizes = [part.rows * 2 for part in packed.parts if part.path.startswith("train-001")
             and part.path.endswith("tokens.arrow")]  # fmt: skip
    assert len(sizes) > 10 and max(sizes[:-1]) < 10_000 * 1.5
    assert [p.path for p in packed.parts][:2] == [
        "train-000-00000.tokens.arrow",
        "train-000-00000.documents.arrow",
    ]


def test_the_numbers_of_each_stream_are_said(packed):
    info = packed.content["info"]
    assert info["dtype"] == "uint16"
    assert [stream["name"] for stream in info["streams"]] == ["dois", "um"]
    for number, stream in enumerate(info["streams"]):
        for side in ("train", "heldout"):
            rows = [(s, t) for shard in long_corpus()[side] for s, t in shard]
            mine = [text for name, text in rows if name == stream["name"]]
            assert stream[side] == {
                "documents": len(mine),
                "tokens": len(tokens_of(packed, side, number)),
                "text_bytes": sum(len(text.encode()) for text in mine),
            }
    assert info["tokens"]["train"] == sum(s["train"]["tokens"] for s in info["streams"])
    dois = info["streams"][0]
    assert info["sources"]["train"]["of dois"] == dois["train"]["tokens"]


def test_each_document_keeps_its_place_in_the_text_shards(packed):
    rows = []
    for path in packed.paths("train-001-"):
        if path.name.endswith(".documents.arrow"):
            rows += read_ipc(path, "documents").to_pylist()
    places = [(i, j) for i, shard in enumerate(long_corpus()["train"])
              for j, (stream, _) in enumerate(shard) if stream == "um"]  # fmt: skip
    assert [(row["shard"], row["row"]) for row in rows] == places


def test_an_interrupted_stage_goes_on_and_gives_the_same_bytes(inputs, packed, tmp_path):
    again = run_pack(tmp_path, RECIPE, inputs)
    assert again.content == packed.content and verify(again) == []
    torn = again.directory / "train-001-00002.tokens.arrow"
    torn.write_bytes(torn.read_bytes()[:100])
    (again.directory / "heldout-001-00000.documents.arrow.part.json").unlink()
    kept = (again.directory / "train-000-00000.tokens.arrow").stat().st_mtime_ns
    assert run_pack(tmp_path, RECIPE, inputs).content == packed.content
    assert verify(read_manifest(again.directory)) == []
    assert (again.directory / "train-000-00000.tokens.arrow").stat().st_mtime_ns == kept


def test_ids_past_65535_are_stored_in_32_bits(inputs, tmp_path):
    for size, dtype in ((65_536, "uint16"), (65_537, "uint32")):
        about = {**inputs["tokenizer"].content["info"], "vocab_size": size}
        tokenizer = replace(inputs["tokenizer"], content={"info": about})
        root = tmp_path / str(size)
        split = kept_text(
            root / "split", {"train": [[("um", "a casa")]], "heldout": [[("um", "b")]]}
        )
        made = run_pack(root, RECIPE, {"split": split, "tokenizer": tokenizer})
        assert made.content["info"]["dtype"] == str(tokens_of(made, "train", 1).dtype) == dtype
        assert decoded(inputs, tokens_of(made, "train", 1)) == f"a casa{EOS}"


def test_units_of_work_are_plain_json(inputs, packed, tmp_path):
    """Ray carries them as JSON text."""
    quiet = Progress(quiet=True)
    job = StageJob("pack", RECIPE, tmp_path, inputs, tmp_path, quiet, False, tmp_path)
    items = text_items(job, {"bytes_per_token": 1.1, "wide": False}, ["dois", "um"])
    assert json.loads(json.dumps(items)) == items
    names = [part.path.removesuffix(".tokens.arrow") for part in packed.parts[::2]]
    assert sorted(item["name"] for item in items) == sorted(names)


def test_text_of_an_older_format_becomes_the_first_stream(inputs, tmp_path):
    split = kept_text(
        tmp_path / "split", {"train": [[(None, "a casa")]], "heldout": [[(None, "b")]]}
    )
    made = run_pack(tmp_path, RECIPE, {**inputs, "split": split})
    assert made.content["info"]["streams"][0]["train"]["documents"] == 1


def test_a_corpus_with_nothing_held_out_is_refused(inputs, tmp_path):
    split = kept_text(tmp_path / "split", {"train": [[("um", "a casa")]]})
    with pytest.raises(DataError, match="No document for the heldout side") as caught:
        run_pack(tmp_path, RECIPE, {**inputs, "split": split})
    assert caught.value.code == "no-heldout"


@pytest.mark.parametrize("budget", [1, 10, 1000, 10**9])
def test_the_plan_covers_every_row_once_in_order(inputs, budget):
    paths = inputs["split"].paths("train-")
    rows: dict[int, list] = {0: [], 1: []}
    for stream, segments in plan(paths, budget, ["dois", "um"]):
        taken = [(path, row) for path, first, last in segments for row in range(first, last)]
        size = (
            sum(len(read_ipc(p)["text"][r].as_py().encode()) for p, r in taken)
            if budget < 99
            else 0
        )
        assert taken and (size <= budget or len(taken) == 1)
        rows[stream] += taken
    for stream, name in enumerate(["dois", "um"]):
        wanted = [(str(path), row) for path in paths
                  for row, one in enumerate(read_ipc(path)["stream"].to_pylist())
                  if one == name]  # fmt: skip
        assert rows[stream] == wanted


def test_a_shard_grows_past_the_room_that_was_guessed():
    shard = Shard(wide=False, eos=7, room=3)
    for first in range(0, 100, 10):
        ids = np.arange(first, first + 10, dtype=np.uint16)
        zeros = np.zeros(2, np.int64)
        shard.add(ids, np.array([0, 4, 10]), zeros, (zeros, zeros), pa.array(["a", "b"]))
    expected = [x for f in range(0, 100, 10)
                for x in [*range(f, f + 4), 7, *range(f + 4, f + 10), 7]]  # fmt: skip
    assert shard.tokens.tolist() == expected
    assert shard.sources == {"a": 50, "b": 70}
    assert shard.documents()["offset"].to_pylist()[:3] == [0, 5, 12]
