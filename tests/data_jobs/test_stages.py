"""Single stages on small made-up text."""

from __future__ import annotations

import json

import pytest

from data_jobs.near.groups import ALL_PAIRS
from data_jobs.read.fingerprints import source_fingerprints
from data_jobs.read.sources import file_format
from data_jobs.tokenizer import train_bpe
from mutirao.core.errors import RecipeError
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc


def test_formats_follow_the_suffix():
    names = [
        "a.jsonl.gz",
        "A.JSON",
        "b.txt.zst",
        "c.warc.gz",
        "d.parquet",
        "e.csv",
        "noext",
        "x.gz",
    ]
    found = [file_format(name) for name in names]
    assert found == ["jsonl", "jsonl", "text", "warc", "parquet", "csv", None, None]


def test_fingerprints_do_not_depend_on_the_folder(helpers, tmp_path):
    def without_path(root):
        recipe = Recipe(sources=[{"path": "in/*.txt"}])
        found = source_fingerprints(recipe, root, root / "cache")
        return [{k: v for k, v in entry.items() if k != "path"} for entry in found]

    for root in (tmp_path / "x", tmp_path / "y"):
        (root / "in").mkdir(parents=True)
        (root / "in" / "a.txt").write_text("texto")
    first = without_path(tmp_path / "x")
    assert first == without_path(tmp_path / "y")
    assert first[0]["file"] == "a.txt" and str(tmp_path) not in json.dumps(first)


def test_a_known_fingerprint_is_not_read_again(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("texto")
    recipe = Recipe(sources=[{"path": "a.txt"}])
    first = source_fingerprints(recipe, tmp_path, tmp_path / "cache")
    monkeypatch.setattr("data_jobs.read.fingerprints.sha256_of", lambda path: 1 / 0)
    assert source_fingerprints(recipe, tmp_path, tmp_path / "cache") == first
    (tmp_path / "a.txt").write_text("outro texto")
    with pytest.raises(ZeroDivisionError):
        source_fingerprints(recipe, tmp_path, tmp_path / "cache")


def test_a_long_text_file_is_cut_at_blank_lines(stages, helpers):
    paragraphs = [helpers.sentence(k, 400) for k in range(200)]
    done = stages({"book.txt": "\n\n".join(paragraphs).encode()}, until="clean")
    tables = [read_ipc(p, "text") for p in done["clean"].paths("text-")]
    pieces = [text for t in tables for text in t.column("text").to_pylist()]
    assert len(pieces) > 3 and "\n\n".join(pieces) == "\n\n".join(paragraphs)


def test_a_documents_own_source_counts_where_the_recipe_names_none(stages, helpers):
    rows = [{"text": helpers.sentence(1), "source": "jornal", "extra": 1}]
    files = {"a.jsonl": helpers.jsonl(rows)}
    found = {}
    for name in ("", "minha"):
        done = stages(files, sources=[{"path": "a.jsonl", "name": name}], until="clean")
        (row,) = read_ipc(done["clean"].paths("text-")[0], "text").to_pylist()
        found[name] = row
        for path in done["clean"].directory.iterdir():
            path.unlink()
    assert [found[name]["source"] for name in ("", "minha")] == ["jornal", "minha"]
    assert json.loads(found[""]["meta"]) == {"extra": 1, "source": "jornal"}


@pytest.mark.parametrize("form", ["file", "stream", "parquet"])
def test_arrow_and_parquet_sources_are_read(stages, helpers, tmp_path, form):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": [1, 2], "text": [helpers.sentence(1), None]})
    name = "a.parquet" if form == "parquet" else "a.arrow"
    if form == "parquet":
        pq.write_table(table, tmp_path / name)
    else:
        new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with new(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    done = stages(sources=[{"path": name}], ingest={"max_quarantined": 1}, until="clean")
    (row,) = read_ipc(done["clean"].paths("text-")[0], "text").to_pylist()
    assert (row["name"], row["text"]) == ("1", helpers.sentence(1))
    assert done["clean"].counts["rejected"] == {"not-text": 1}


def test_languages_besides_the_recipes_can_be_kept(stages, helpers):
    english = "The fisherman left the house early in the morning and came back home at night."
    rows = helpers.jsonl([{"text": english}, {"text": "12 34 !!"}])
    done = stages({"a.jsonl": rows}, langid={"keep": ["eng"]}, until="langid")
    found = read_ipc(done["langid"].paths("langid-")[0], "decision.langid").to_pylist()
    assert (found[0]["reason"], found[0]["lang"]) == (None, "eng")
    assert (found[1]["reason"], found[1]["lang"]) == ("language", "und")


def test_a_language_the_model_does_not_know_is_one_error(stages, helpers):
    data = helpers.jsonl([{"text": helpers.sentence(1)}])
    with pytest.raises(RecipeError, match=r"does not know qqq"):
        stages({"a.jsonl": data}, langid={"keep": ["qqq"]}, until="langid")


def test_a_cluster_larger_than_a_bucket_leaves_one_document(stages, helpers):
    base = helpers.sentence(1, 400)
    rows = [{"text": f"{base} fim{k}"} for k in range(4 * ALL_PAIRS)]
    done = stages({"a.jsonl": helpers.jsonl(rows)}, filter={"thresholds": {}}, until="neardup")
    assert done["neardup"].counts["dropped"] == 4 * ALL_PAIRS - 1
    all_pairs = 4 * ALL_PAIRS * (4 * ALL_PAIRS - 1) // 2
    assert done["neardup"].counts["candidates"] < all_pairs / 3


def test_bands_that_need_more_permutations_are_refused(stages, helpers):
    data = helpers.jsonl([{"text": helpers.sentence(1)}])
    with pytest.raises(RecipeError, match="30 bands of 5 rows need 150 permutations"):
        stages({"a.jsonl": data}, neardup={"bands": 30, "rows": 5}, until="neardup")


def test_a_tokenizer_is_the_same_each_time_and_knows_every_byte():
    texts = ["o rato roeu a roupa do rei de roma", "ção não é à toa"] * 50
    one, two = (train_bpe(iter(texts), 400, 8) for _ in range(2))
    assert one.to_str() == two.to_str()
    one.encode_special_tokens = True
    odd = "日本 🙂 <|endoftext|> <|spare_1|> \x01\n\n  x"
    ids = one.encode(odd).ids
    assert one.decode(ids, skip_special_tokens=False) == odd
    assert min(ids) > 8, "special tokens written in a text stay text"
    assert one.token_to_id("<|endoftext|>") == 0 and one.token_to_id("<|spare_7|>") == 8


def test_a_tiny_text_gives_a_smaller_vocabulary_and_says_so(stages, helpers):
    rows = helpers.jsonl({"text": helpers.sentence(k, 100)} for k in range(30))
    done = stages({"a.jsonl": rows}, tokenizer={"vocab_size": 50_000}, until="tokenizer")
    info = done["tokenizer"].content["info"]
    assert info["asked_vocab_size"] == 50_000 and 320 < info["vocab_size"] < 5_000


def test_token_shards_take_about_as_many_bytes_as_asked_for(stages, helpers):
    rows = helpers.jsonl({"text": helpers.sentence(k, 100)} for k in range(30))
    done = stages({"a.jsonl": rows}, tokenizer={"vocab_size": 400}, pack={"stream_bytes": 2_000})
    tokens = [p for p in done["pack"].parts if p.path.endswith("tokens.arrow")]
    assert len(tokens) > 3 and all(part.rows <= 1_600 for part in tokens)
