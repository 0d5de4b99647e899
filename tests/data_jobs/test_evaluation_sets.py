"""Evaluation sets as files: every form is read, hashes fit this version, packs bring their own."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_jobs import decontaminate
from data_jobs.evaluation import ngrams
from data_jobs.evaluation.ngrams import hashing, ngrams_of_texts, read_index, write_index
from data_jobs.evaluation.scan import ngrams_of
from data_jobs.evaluation.texts import evaluation_texts
from data_jobs.words import words_of
from evaluation_examples import SHIPPED, numbered
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.languages import load_pack
from mutirao.core.recipe import Recipe


def table_bytes(rows, **options) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue().encode()


@pytest.mark.parametrize(
    ("name", "data", "texts"),
    [
        ("a.csv", table_bytes([["text", "n"], ["um\ndois, três", "1"]]), "text|n|um\ndois, três|1"),
        ("a.tsv", table_bytes([["um", "do,is"]], delimiter="\t"), "um|do,is"),
        ("a.json", b'{"data": [{"q": "um", "a": ["dois", 3, null]}]}', "um|dois"),
        ("a.json", b'{"q": "um"}\n{"q": "dois"}\n', "um|dois"),
        ("a.jsonl", '{"q": "um\u2028x"}\n\n{"q": "dois"}'.encode(), "um\u2028x|dois"),
        ("a.conllu", b"# sent_id = 1\n# text = Um dois.\n1\tUm\t_\n\n# text = E.\n", "Um dois.|E."),
        ("a.txt", b"um\r\ndois\r\n\r\ntres\n", "um\r\ndois|tres\n"),
        ("a", b"\xef\xbb\xbfum", "um"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_of_evaluation_file_is_read(tmp_path, name, data, texts, packed):
    path = tmp_path / (name + ".gz" if packed and "." in name else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert "|".join(evaluation_texts(path)) == texts


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        (
            "exam.json.gz",
            gzip.compress(b'{"a": "um dois"}' * 99)[:40],
            "Cannot read the evaluation",
        ),
        ("exam.txt", b"\xff\xff\xff\xff", "Cannot read the evaluation"),
        ("exam.jsonl", b'{"a": "um"}\n{"a": "do\n', r"Not JSON[\s\S]*exam\.jsonl:2"),
        ("exam.csv", b'a,"b\n', "Cannot read the evaluation"),
        ("exam.json", b"[" * 100_000, "Cannot read the evaluation"),
        ("exam.txt", b"", "holds no text"),
        ("exam.json", b"[1, 2]", "holds no text"),
        ("exam.conllu", b"1\tUm\t_\n", "holds no text"),
        ("exam.txt", None, "No such file"),
    ],
    ids=[
        "torn-gzip",
        "bytes",
        "jsonl",
        "csv",
        "deep",
        "empty",
        "no-strings",
        "no-sentence",
        "missing",
    ],
)
def test_a_file_that_cannot_be_read_stops_before_any_work(tmp_path, name, data, problem):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    recipe = Recipe(sources=[{"path": "a.txt"}], decontaminate={"against": [name]})
    with pytest.raises(RecipeError, match=problem) as raised:
        decontaminate.check(recipe, tmp_path)
    assert name in raised.value.where and raised.value.hint


def test_a_file_named_twice_is_one_error(tmp_path):
    (tmp_path / "a.txt").write_text("um dois")
    recipe = Recipe(sources=[{"path": "a"}], decontaminate={"against": ["a.txt", "a.txt"]})
    with pytest.raises(RecipeError, match=r"Two evaluation sets are called a\.txt"):
        decontaminate.check(recipe, tmp_path)


def test_the_shipped_hashes_are_of_this_versions_words_and_hold_no_text():
    pack = load_pack("pt")
    folder = Path(str(pytest.importorskip("mutirao.languages").__path__[0])) / "por_Latn"
    sizes = {}
    for one in pack.evaluation:
        if one.ngrams:
            assert one.license and one.origin and one.title
            found = read_index(folder / one.ngrams, 8)
            assert len(np.unique(found.text)) == found.texts - found.short
            assert found.length.min() == 8 and found.length.max() == 13
            sizes[one.name] = (found.texts, found.short, len(found.hashes))
    assert sizes == {
        "faquad": (1_140, 256, 27_923),
        "told_br": (3_989, 1_022, 26_670),
        "ud_portuguese_bosque": (2_339, 412, 21_299),
    }


def test_hashes_by_other_rules_for_words_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.ngrams.arrow"
    found = ngrams_of_texts([numbered(0, 20), numbered(3, 9)], 13, 8)
    with path.open("wb") as stream:
        write_index(stream, "a", found, 13, 8)
    again = read_index(path, 8)
    for name in ("hashes", "text", "length", "texts", "short"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert read_index(path, 10).short == 1
    monkeypatch.setattr(ngrams, "words_of", lambda text: words_of(text, "'"))
    with pytest.raises(RecipeError, match="other rules for words"):
        read_index(path, 8)


def test_the_mark_of_the_rules_for_words_is_made_as_the_kernels_hash():
    from_kernels = sorted(ngrams_of(ngrams.PROBE, 3, 1)[0].tolist())
    assert hashing() == sha256_hex(canonical_json(from_kernels))[:16]


def test_a_damaged_file_of_hashes_is_one_error(tmp_path):
    path = tmp_path / "a.ngrams.arrow"
    stream = io.BytesIO()
    write_index(stream, "a", ngrams_of_texts([numbered(0, 20)], 13, 8), 13, 8)
    for data in (stream.getvalue()[:-30], b"", b"{}", stream.getvalue()[:200]):
        path.write_bytes(data)
        with pytest.raises(RecipeError, match="Cannot read the n-grams"):
            read_index(path, 8)


def own_pack(folder: Path, evaluation) -> None:
    content = {"name": "X", "evidence": "none", "stop_words": "", "thresholds": {}}
    folder.mkdir()
    (folder / "pack.yaml").write_text(yaml.dump({**content, "evaluation": evaluation}))


def test_a_pack_of_ones_own_brings_a_file_of_texts_and_finds_the_shipped_hashes(tmp_path):
    shipped = [one.as_json() for one in load_pack("pt").evaluation]
    own_pack(tmp_path / "p", [*shipped, {"name": "exam", "file": "exam.txt"}, "enem"])
    (tmp_path / "p" / "exam.txt").write_text(numbered(0, 20))
    recipe = Recipe(sources=[{"path": "a"}], language="pt", language_pack="p")
    assert decontaminate.evaluation_sets(recipe, tmp_path) == [*SHIPPED, "exam"]
    assets = decontaminate.decontaminate_assets(recipe, tmp_path)
    (tmp_path / "p" / "exam.txt").write_text(numbered(1, 20))
    changed = decontaminate.decontaminate_assets(recipe, tmp_path)
    assert {name for name in assets if assets[name] != changed[name]} == {"exam"}
    (tmp_path / "p" / "exam.txt").unlink()
    with pytest.raises(RecipeError, match="No such file"):
        decontaminate.check(recipe, tmp_path)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"name": "a", "ngram": "x"}, "Did you mean ngrams"),
        ({"title": "a"}, "has a name"),
        ({"name": "a", "file": "x", "ngrams": "y"}, "not both"),
        ({"name": 5}, "must be a text"),
        (5, "Damaged language pack"),
    ],
)
def test_a_wrong_entry_of_a_pack_is_one_error(tmp_path, entry, problem):
    own_pack(tmp_path / "p", [entry])
    with pytest.raises(RecipeError, match=problem):
        load_pack("pt", tmp_path / "p")


def test_without_sets_there_is_nothing_to_do(tmp_path):
    for language, sets in (("pt", False), ("tet", True), ("spa", True)):
        fields = {"language": language, "decontaminate": {"pack_sets": sets}}
        recipe = Recipe(sources=[{"path": "a"}], **fields)
        assert decontaminate.evaluation_sets(recipe, tmp_path) == []
