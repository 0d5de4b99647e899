"""Documents that share word n-grams with evaluation sets, and what is told about the sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_jobs import clean, decontaminate, exact, ingest
from data_jobs.evaluation import scan
from data_jobs.evaluation.hits import COMMON, HIT, VERDICT, counted, judged, per_row
from data_jobs.evaluation.ngrams import merged, ngrams_of_texts
from data_jobs.results.explain import explain
from data_jobs.words import tables, word_hashes, words_of
from evaluation_examples import SHIPPED, numbered
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest, commit
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

STAGES = {"ingest": ingest, "clean": clean, "exact": exact, "decontaminate": decontaminate}
# UD Portuguese-Bosque, dev: CF876-2 (CC-BY-SA-4.0).
BOSQUE = "Já não é correto pensar que o progresso técnico é um privilégio das grandes empresas"


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


def test_a_text_whose_texts_are_all_short_is_told_and_drops_nothing(decontaminated, helpers):
    documents = [helpers.sentence(1)]
    done = decontaminated(documents, {"exam.txt": b"sim\n\nnao\n\nSim"}, **own())
    (one,) = done["decontaminate"].content["info"]["sets"]
    assert (one["texts"], one["short_texts"], one["ngrams"]) == (2, 2, 0)
    assert rows_of(done)[0]["reason"] is None


# --- packs -------------------------------------------------------------------------------------
