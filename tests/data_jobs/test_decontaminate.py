"""Documents that share word n-grams with evaluation sets, and what is told about the sets."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from data_jobs import clean, decontaminate, exact, ingest
from data_jobs.evaluation import ngrams, scan
from data_jobs.evaluation.hits import COMMON, HIT, VERDICT, counted, judged, per_row
from data_jobs.evaluation.ngrams import hashing, merged, ngrams_of_texts, read_index, write_index
from data_jobs.evaluation.scan import ngrams_of
from data_jobs.evaluation.texts import evaluation_texts
from data_jobs.results.explain import explain
from data_jobs.words import tables, word_hashes, words_of
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.languages import load_pack
from mutirao.core.manifest import Manifest, commit
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

STAGES = {"ingest": ingest, "clean": clean, "exact": exact, "decontaminate": decontaminate}
SHIPPED = ("faquad", "told_br", "ud_portuguese_bosque")
# UD Portuguese-Bosque, dev: CF876-2 (CC-BY-SA-4.0).
BOSQUE = "Já não é correto pensar que o progresso técnico é um privilégio das grandes empresas"


def numbered(first: int, count: int) -> str:
    return " ".join(f"palavra{k}" for k in range(first, first + count))


@pytest.fixture
def decontaminated(tmp_path, helpers):
    """decontaminated(documents, files, **recipe fields) -> {stage: Manifest}; the decision stages
    between are left out unless `before` names some."""

    def run(documents, files=None, before=(), folder="run", **fields):
        root = tmp_path / folder
        root.mkdir()
        (root / "a.jsonl").write_bytes(helpers.jsonl({"text": text} for text in documents))
        for name, data in (files or {}).items():
            (root / name).write_bytes(data)
        fields.setdefault("clean", {"boilerplate": False})
        recipe = Recipe(sources=[{"path": "a.jsonl"}], **fields)
        done: dict[str, Manifest] = {}
        for stage in ("ingest", "clean", *before, "decontaminate"):
            result = STAGES[stage].run(helpers.make_job(root, stage, recipe, done))
            parts = [vars(part) for part in result.parts]
            content = {"stage": stage, "parts": parts, "counts": result.counts}
            content["info"] = result.info
            done[stage] = commit(root / "store" / stage / "key", content, {})
        return done

    return run


def rows_of(done):
    paths = done["decontaminate"].paths("decontaminate-")
    return [row for path in paths for row in read_ipc(path, "decision.decontaminate").to_pylist()]


def found_of(done):
    return json.loads(done["decontaminate"].paths("found.json")[0].read_bytes())


def own(**fields):
    return {"decontaminate": {"pack_sets": False, "against": ["exam.txt"], **fields}}


def test_a_document_that_holds_a_text_of_a_shipped_set_is_dropped(decontaminated, helpers):
    documents = [helpers.sentence(k, 200) for k in range(4)]
    documents[2] += f"\n{BOSQUE.upper()}\nE mais."
    done = decontaminated(documents)
    rows = rows_of(done)
    assert [row["reason"] for row in rows] == [None, None, "evaluation-text", None]
    assert rows[2]["matched"] == "ud_portuguese_bosque"
    words = len(words_of(documents[2]))
    copied = len(words_of(BOSQUE)) - 12
    assert rows[2]["ngrams"] == copied
    assert rows[2]["overlap"] == pytest.approx(copied / (words - 12))
    at = rows[2]["offset"]
    assert documents[2].encode()[at:].decode().startswith(BOSQUE.upper())
    assert done["decontaminate"].counts["reasons"] == {"evaluation-text": 1}
    sets = {one["name"]: one for one in done["decontaminate"].content["info"]["sets"]}
    assert tuple(sets) == SHIPPED
    assert [sets[name]["texts_found"] for name in SHIPPED] == [0, 0, 1]
    assert sets["ud_portuguese_bosque"]["documents_dropped"] == 1
    assert sets["ud_portuguese_bosque"]["license"] == "CC-BY-SA-4.0"
    (item,) = found_of(done)["items"]["ud_portuguese_bosque"]
    assert (item["found"], item["ngrams"], item["row"]) == (copied, copied, 2)


def test_sets_that_the_pack_only_names_are_told_once(decontaminated, helpers, monkeypatch):
    said = []
    monkeypatch.setattr("mutirao.core.progress.Progress.say", lambda self, line: said.append(line))
    files = {"flores-plus.jsonl": helpers.jsonl([{"text": numbered(0, 20)}])}
    against = {"against": ["flores-plus.jsonl"]}
    done = decontaminated([helpers.sentence(1)], files, decontaminate=against)
    (line,) = [line for line in said if "not looked for" in line]
    assert line.endswith(": assin2, belebele")
    assert "decontaminate.against" in said[said.index(line) + 1]
    assert done["decontaminate"].content["info"]["not_looked_for"] == ["assin2", "belebele"]


def test_short_texts_are_looked_for_as_a_whole_down_to_min_words(decontaminated, helpers):
    exam = "\n\n".join(numbered(100 * n, n) for n in (7, 8, 12, 13))
    texts = [f"{helpers.sentence(n, 50)} {numbered(100 * n, n)}" for n in (7, 8, 12, 13)]
    partly = [f"{helpers.sentence(n, 50)} {numbered(1200, 11)}" for n in (1,)]
    done = decontaminated([*texts, *partly], {"exam.txt": exam.encode()}, **own())
    dropped = [row["reason"] is not None for row in rows_of(done)]
    assert dropped == [False, True, True, True, False]
    (one,) = done["decontaminate"].content["info"]["sets"]
    assert (one["texts"], one["short_texts"], one["texts_found"]) == (4, 1, 3)
    assert one["share_found"] == 1


def test_max_overlap_keeps_a_long_document_with_one_quotation(decontaminated, helpers):
    texts = [helpers.sentence(1, 400) + numbered(0, 20), "x " + numbered(0, 20)]
    done = decontaminated(texts, {"exam.txt": numbered(0, 20).encode()}, **own(max_overlap=0.1))
    first, second = rows_of(done)
    assert first["reason"] is None and 0 < first["overlap"] < 0.1
    assert second["reason"] == "evaluation-text" and second["overlap"] > 0.7
    assert done["decontaminate"].content["info"]["sets"][0]["documents_dropped"] == 1


def test_only_rows_that_are_still_kept_are_looked_at(decontaminated, helpers):
    text = helpers.sentence(1, 100) + " " + numbered(0, 20)
    files = {"exam.txt": numbered(0, 20).encode()}
    done = decontaminated([text, text], files, before=("exact",), **own())
    assert [row["ngrams"] for row in rows_of(done)] == [8, 0]
    assert done["decontaminate"].content["info"]["documents"] == 1


def formula_and_copies(helpers, copies):
    """A formula of 14 words that stands in many documents, and one text that is copied once."""
    formula = (
        "esta lei entra em vigor na data de sua publicação revogadas as disposições anteriores"
    )
    documents = [f"{helpers.sentence(k, 40)} {formula}" for k in range(copies)]
    documents.append(f"{helpers.sentence(99, 40)} {numbered(0, 20)} {formula}")
    return documents, f"{formula}\n\n{numbered(0, 20)} fim".encode()


def test_common_language_of_an_evaluation_text_drops_nothing_and_is_told(decontaminated, helpers):
    documents, exam = formula_and_copies(helpers, COMMON)
    done = decontaminated(documents, {"exam.txt": exam}, **own())
    reasons = [row["reason"] for row in rows_of(done)]
    assert reasons == [None] * COMMON + ["evaluation-text"]
    found = found_of(done)
    assert found["sets"][0]["common_ngrams"] == 2
    assert {one["documents"] for one in found["common"]} == {COMMON + 1}
    assert any(one["words"].startswith("esta lei entra em vigor") for one in found["common"])
    assert [item["text"] for item in found["items"]["exam.txt"]] == [1]


def test_what_ten_documents_hold_still_drops_them(decontaminated, helpers):
    documents, exam = formula_and_copies(helpers, COMMON - 1)
    done = decontaminated(documents, {"exam.txt": exam}, **own())
    assert [row["reason"] for row in rows_of(done)] == ["evaluation-text"] * COMMON


def test_a_paragraph_that_many_documents_copy_whole_drops_them_all(decontaminated, helpers):
    paragraph = numbered(0, 40)
    documents = [f"Pergunta {k}: {helpers.sentence(k, 30)} {paragraph}" for k in range(COMMON + 5)]
    done = decontaminated(documents, {"exam.txt": paragraph.encode()}, **own())
    assert {row["reason"] for row in rows_of(done)} == {"evaluation-text"}


def test_the_bound_for_common_language_grows_with_the_corpus():
    first_set, documents = np.zeros(3, np.int32), np.array([10, 11, 2_401])
    for looked_at, expected in ((1, [0, 1, 1]), (10**7, [0, 1, 1]), (2_400_000_000, [0, 0, 1])):
        assert judged(first_set, documents, looked_at)["common"].tolist() == expected


def test_partitioning_changes_no_decision(decontaminated, helpers):
    documents, exam = formula_and_copies(helpers, 30)
    documents = [f"{text} {helpers.sentence(k, 300)}" for k, text in enumerate(documents)]

    def decided(shard_bytes):
        fields = {"clean": {"boilerplate": False, "shard_bytes": shard_bytes}, **own()}
        done = decontaminated(documents, {"exam.txt": exam}, folder=str(shard_bytes), **fields)
        found = found_of(done)
        common = sorted((one["documents"], one["words"]) for one in found["common"])
        return len(done["clean"].paths("text-")), rows_of(done), found["sets"], common

    one, many = decided(10**7), decided(5_000)
    assert one[0] == 1 and many[0] > 5
    assert one[1:] == many[1:]


def test_a_stage_that_was_stopped_gives_the_same_bytes(decontaminated, helpers, monkeypatch):
    documents, exam = formula_and_copies(helpers, 5)
    fields = {"clean": {"boilerplate": False, "shard_bytes": 500}, **own()}
    whole = decontaminated(documents, {"exam.txt": exam}, folder="whole", **fields)
    real, calls = decontaminate.decide_unit, []

    def breaks(item):
        calls.append(item)
        if len(calls) == 2:
            raise RecipeError("killed")
        return real(item)

    monkeypatch.setattr(decontaminate, "decide_unit", breaks)
    with pytest.raises(RecipeError, match="killed"):
        decontaminated(documents, {"exam.txt": exam}, folder="again", **fields)
    monkeypatch.undo()
    root = Path(whole["clean"].directory).parents[3] / "again"
    recipe = Recipe(sources=[{"path": "a.jsonl"}], **fields)
    kept = root / "store" / "decontaminate" / "key" / "decontaminate-00000.arrow"
    before = kept.stat().st_mtime_ns
    torn = kept.parent / "hits-00001.npy"
    torn.write_bytes(torn.read_bytes()[:-5])
    result = decontaminate.run(
        helpers.make_job(root, "decontaminate", recipe, {"clean": whole["clean"]})
    )
    assert kept.stat().st_mtime_ns == before
    assert [vars(part) for part in result.parts] == whole["decontaminate"].content["parts"]
    names = {path.name for path in kept.parent.iterdir() if ".part.json" not in path.name}
    assert names == {part.path for part in result.parts}


def test_explain_names_the_set_and_the_words_that_match(decontaminated, helpers):
    documents = [helpers.sentence(1, 60) + ". " + numbered(0, 15)]
    fields = own()
    done = decontaminated(documents, {"exam.txt": numbered(0, 15).encode()}, **fields)
    told = explain(done, "0:0", Recipe(sources=[{"path": "a.jsonl"}], **fields))
    assert told["drop_reason"] == "evaluation-text"
    (check,) = told["stages"][-1]["checks"]
    assert check["drops"] and "3 n-grams of exam.txt, the first: palavra0 palavra1" in check["what"]


def test_characters_whose_lower_case_is_longer_do_not_shift_the_offset(decontaminated, helpers):
    text = f"İİİ ΣΑΣ Ⱥ {helpers.sentence(1, 30)} İ {numbered(0, 15).upper()}"
    done = decontaminated([text], {"exam.txt": numbered(0, 15).encode()}, **own())
    (row,) = rows_of(done)
    assert text.encode()[row["offset"] :].decode().startswith("PALAVRA0 ")


# --- the kernels -------------------------------------------------------------------------------


def test_words_are_those_of_the_other_stages():
    texts = [
        "Ação nº 5, d'água: ÓRGÃO_x 中文 हिन्दी e\u0301",
        "",
        "!",
        "a",
        "x" * 300,
        "ΣΊΣΥΦΟΣ İ \0 y",
    ]
    data, offsets = scan.read_only(pa.array(texts, pa.large_string()))
    kinds, lower = tables()
    for row in range(len(texts)):
        ours, theirs = np.zeros(200, np.uint64), np.zeros(200, np.uint64)
        starts = np.zeros(200, np.int64)
        bounds = (data, offsets[row], offsets[row + 1])
        count = scan.words_and_starts(*bounds, scan.word_table(), ours, starts)
        assert count == word_hashes(*bounds, kinds, lower, theirs)
        assert (ours == theirs).all()


def test_every_ngram_of_a_text_is_found_where_it_stands_and_no_other():
    rng = np.random.default_rng(5)
    words = np.array([f"w{k}" for k in range(3_000)])
    texts = [" ".join(rng.choice(words, n)) for n in (40, 9, 13, 400, 8)]
    index = merged([ngrams_of_texts(texts, 13, 8)])
    asked = scan.lookup(index.ngrams["hash"], index.ngrams["words"])
    assert asked.sizes.tolist() == [8, 9, 13]
    corpus = [f"{texts[0]} e {texts[1]}", texts[3], " ".join(rng.choice(words, 5_000)), texts[4]]
    data, offsets = scan.read_only(pa.array(corpus, pa.large_string()))
    looked_at = np.array([True, True, True, False])
    hits = scan.batch_hits(data, offsets, looked_at, scan.word_table(), *asked)
    expected = {(0, k) for k in range(28)} | {(0, 41)} | {(1, k) for k in range(388)}
    assert {(row, word) for row, _, word, _, _ in hits.tolist()} == expected
    assert len(hits) == len(expected)
    for row, count, word, offset, _ in hits.tolist():
        assert corpus[row][offset:].split()[0] == corpus[row].split()[word]
        assert count == len(corpus[row].split())


def test_a_word_of_two_megabytes_is_one_word():
    data, offsets = scan.read_only(
        pa.array([f"{'a' * 2_000_000} {numbered(0, 13)}"], pa.large_string())
    )
    index = merged([ngrams_of_texts([numbered(0, 13)], 13, 8)])
    asked = scan.lookup(index.ngrams["hash"], index.ngrams["words"])
    hits = scan.batch_hits(data, offsets, np.ones(1, bool), scan.word_table(), *asked)
    assert hits.tolist() == [[0, 14, 1, 2_000_001, 0]]


def test_ngrams_that_begin_at_one_word_count_once():
    hits = np.zeros(3, HIT)
    hits["words"], hits["word"], hits["gram"], hits["offset"] = 32, [5, 5, 6], [1, 0, 1], [9, 9, 15]
    verdicts = np.zeros(2, VERDICT)
    verdicts["set"] = [3, 1]
    assert counted(hits, verdicts, 13).all()
    (row,) = per_row(hits, verdicts, 13)
    assert (row["ngrams"], row["set"], row["offset"]) == (2, 3, 9)
    assert row["overlap"] == pytest.approx(0.1)


# --- files -------------------------------------------------------------------------------------


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


def test_a_text_whose_texts_are_all_short_is_told_and_drops_nothing(decontaminated, helpers):
    documents = [helpers.sentence(1)]
    done = decontaminated(documents, {"exam.txt": b"sim\n\nnao\n\nSim"}, **own())
    (one,) = done["decontaminate"].content["info"]["sets"]
    assert (one["texts"], one["short_texts"], one["ngrams"]) == (2, 2, 0)
    assert rows_of(done)[0]["reason"] is None


# --- packs -------------------------------------------------------------------------------------


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
