"""All stages over the bundled sample: planted duplicates, languages, split, tokens, views."""

from __future__ import annotations

import gzip
import json
from importlib import resources

import numpy as np
import pytest

from data_jobs.results.explain import explain, find
from data_jobs.results.view import show, tally
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import verify
from mutirao.core.schemas import read_ipc
from mutirao.core.stages import DECISION_STAGES


def column(paths, kind: str, name: str) -> list:
    return [value for path in paths for value in read_ipc(path, kind).column(name).to_pylist()]


def decisions(done, stage: str) -> dict[str, dict]:
    """{name of the document: its row of the stage's decision shards}."""
    names = column(done["clean"].paths("text-"), "text", "name")
    rows = [
        row
        for path in done[stage].paths(f"{stage}-")
        for row in read_ipc(path, f"decision.{stage}").to_pylist()
    ]
    return dict(zip(names, rows, strict=True))


@pytest.fixture(scope="module")
def planted():
    with gzip.open(str(resources.files("mutirao.sample") / "docs.jsonl.gz")) as lines:
        return [row for row in map(json.loads, lines) if row.get("planted")]


def test_every_part_is_named_and_intact(sample_run):
    assert all(not verify(manifest) for manifest in sample_run.values())
    for manifest in sample_run.values():
        left = {p.name for p in manifest.directory.iterdir()} - {"manifest.json"}
        named = {part.path for part in manifest.parts}
        assert left == named | {f"{name}.part.json" for name in named}


def test_of_planted_exact_copies_the_first_id_stays(sample_run, planted):
    found = decisions(sample_run, "exact")
    texts = sample_run["clean"].paths("text-")
    ids = dict(zip(column(texts, "text", "name"), column(texts, "text", "id"), strict=True))
    pairs = [(row["id"], row["planted_of"]) for row in planted if row["planted"] == "exact"]
    for pair in pairs:
        first, second = sorted(pair, key=ids.__getitem__)
        assert found[first]["hash"] == found[second]["hash"]
        assert (found[first]["reason"], found[second]["reason"]) == (None, "exact-duplicate")
    assert len(pairs) >= 10


def test_planted_near_copies_are_found_with_their_true_jaccard(sample_run, planted):
    exact, found = decisions(sample_run, "exact"), decisions(sample_run, "neardup")
    others = [decisions(sample_run, stage) for stage in ("langid", "filter")]
    names = [column([p], "text", "name") for p in sample_run["clean"].paths("text-")]
    paths = sample_run["neardup"].paths("edges-")
    edges = [edge for path in paths for edge in read_ipc(path, "edges").to_pylist()]
    verified = {
        frozenset((names[e["shard"]][e["row"]], names[e["other_shard"]][e["other_row"]])): e
        for e in edges
    }
    checked = 0
    for row in planted:
        pair = (row["id"], row["planted_of"])
        dropped_before = any(d[name]["reason"] for name in pair for d in (exact, *others))
        if row["planted"] != "near" or dropped_before:
            continue
        checked += 1
        assert found[pair[0]]["reason"] or found[pair[1]]["reason"]
        edge = verified[frozenset(pair)]
        assert edge["jaccard"] == pytest.approx(row["jaccard"], abs=1e-3)
    assert checked >= 50


def test_a_dropped_near_duplicate_names_a_document_that_stays(sample_run):
    paths = sample_run["neardup"].paths("neardup-")
    tables = [read_ipc(path, "decision.neardup") for path in paths]
    for table in tables:
        for row in table.to_pylist():
            if row["reason"]:
                other = tables[row["duplicate_of_shard"]]
                assert not other.column("reason")[row["duplicate_of_row"]].is_valid
                assert row["jaccard"] >= 0.8 - 1e-6


def test_other_languages_are_dropped_and_portuguese_kept(sample_run):
    sources = column(sample_run["clean"].paths("text-"), "text", "source")
    reasons = column(sample_run["langid"].paths("langid-"), "decision.langid", "reason")
    by_source = list(zip(sources, reasons, strict=True))
    foreign = [r for s, r in by_source if s in ("tatoeba-laser", "udhr", "bible-corpus")]
    laws = [r for s, r in by_source if s == "leis-planalto"]
    assert sum(r is not None for r in foreign) / len(foreign) > 0.97
    assert sum(r is None for r in laws) / len(laws) > 0.98


def test_web_pages_become_their_main_text(sample_run):
    table = [read_ipc(p, "text") for p in sample_run["clean"].paths("text-")]
    pages = [r for t in table for r in t.to_pylist() if r["source"] == "web"]
    assert len(pages) == 5
    assert any("Example Domain" in page["text"] for page in pages)
    assert all(page["url"].startswith("http") and "<p" not in page["text"] for page in pages)


def test_train_and_heldout_are_disjoint_and_complete(sample_run):
    split = sample_run["split"]
    train = column(split.paths("train-"), "kept", "id")
    heldout = column(split.paths("heldout-"), "kept", "id")
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) == split.counts["documents_out"]
    info = split.content["info"]
    reasons = [n for stage in info["dropped"].values() for n in stage.values()]
    total = split.counts["documents_out"] + sum(n["documents"] for n in reasons)
    assert total == split.counts["documents_in"]
    kept = info["kept_per_source"]
    held = set(column(split.paths("heldout-"), "kept", "source"))
    assert {source for source, n in kept.items() if n["documents"] >= 20} <= held


def test_licences_are_accounted_for(sample_run):
    licenses = sample_run["split"].content["info"]["licenses"]
    assert (
        sum(n["documents"] for n in licenses.values())
        == sample_run["split"].counts["documents_out"]
    )
    assert "CC-BY-4.0" in licenses


def test_tokens_decode_to_the_kept_text(sample_run):
    from data_jobs.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(sample_run["tokenizer"].paths("tokenizer.json")[0])
    pack, split = sample_run["pack"], sample_run["split"]
    for side in ("train", "heldout"):
        texts = column(split.paths(f"{side}-"), "kept", "text")
        number = total = 0
        for part in [p.path for p in pack.parts if p.path.endswith(".tokens.arrow")]:
            if not part.startswith(side):
                continue
            table = read_ipc(pack.directory / part, "tokens")
            assert table.column("token").num_chunks == 1
            tokens = table.column("token").chunk(0).to_numpy(zero_copy_only=True)
            assert tokens.dtype == np.uint16
            name = part.replace(".tokens.", ".documents.")
            documents = read_ipc(pack.directory / name, "documents").to_pylist()
            for row in documents:
                ids = tokens[row["offset"] : row["offset"] + row["tokens"]]
                assert ids[-1] == 0 and 0 not in ids[:-1]
                if number % 20 == 0:
                    decoded = tokenizer.decode(ids[:-1].tolist(), skip_special_tokens=False)
                    assert decoded == texts[number]
                assert row["text_bytes"] == len(texts[number].encode())
                number += 1
            total += len(tokens)
        assert number == len(texts) and total == pack.content["info"]["tokens"][side]


def test_transformers_opens_the_tokenizer(sample_run):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sample_run["tokenizer"].directory)
    info = sample_run["tokenizer"].content["info"]
    assert len(tokenizer) == info["vocab_size"] == 1024
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 0)
    text = "Não é bom\n\n  que 'seja' assim?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_dropped_is_a_view_with_stage_reason_and_twin(sample_run):
    dropped = list(show(sample_run, dropped=True))
    split = sample_run["split"].counts
    documents = [row for row in dropped if row["stage"] != "clean"]
    assert len(documents) == split["documents_in"] - split["documents_out"]
    twins = [row for row in documents if row["stage"] in ("exact", "neardup")]
    assert twins and all(row["duplicate_of"]["snippet"] for row in twins)
    assert len(list(show(sample_run, limit=7))) == 7
    assert len(list(show(sample_run))) == split["documents_out"]


def test_counts_of_the_view_are_those_of_the_split(sample_run):
    counts = tally(sample_run)
    split = sample_run["split"]
    assert counts["kept"] == split.counts["documents_out"]
    joined = {
        stage: {why: n["documents"] for why, n in reasons.items()}
        for stage, reasons in split.content["info"]["dropped"].items()
    }
    assert {s: r for s, r in counts["dropped"].items() if s != "clean"} == joined
    after = tally(sample_run, before=("exact", "langid", "clean"))
    dropped = sum(sum(reasons.values()) for reasons in after["dropped"].values())
    assert after["documents_in"] == counts["kept"] + dropped


def test_explain_finds_a_document_by_id_place_and_name(sample_run, planted, helpers):
    recipe = helpers.sample_recipe()
    reasons = {n: row["reason"] for n, row in decisions(sample_run, "exact").items()}
    copies = [row for row in planted if row["planted"] == "exact"]
    names = [name for row in copies for name in (row["id"], row["planted_of"]) if reasons[name]]
    name = names[0]
    told = explain(sample_run, name, recipe)
    verdict = (told["kept"], told["stage"], told["drop_reason"])
    assert verdict == (False, "exact", "exact-duplicate")
    assert [s["stage"] for s in told["stages"]] == list(DECISION_STAGES)
    assert told["stages"][1]["values"]["words"] > 0
    assert explain(sample_run, told["id"], recipe) == told
    assert explain(sample_run, told["id"][:12], recipe) == told
    assert find(sample_run, f"{told['shard']}:{told['row']}") == (told["shard"], told["row"])
    json.dumps(told)
    with pytest.raises(RecipeError, match="No such document"):
        explain(sample_run, "nobody", recipe)


def test_explain_shows_the_same_rule_that_dropped_each_document(sample_run, helpers):
    recipe = helpers.sample_recipe()
    seen = set()
    for row in show(sample_run, dropped=True):
        if row["stage"] not in ("langid", "filter") or row["drop_reason"] in seen:
            continue
        seen.add(row["drop_reason"])
        told = explain(sample_run, row["id"], recipe)
        stage = next(s for s in told["stages"] if s["stage"] == row["stage"])
        first = next(check for check in stage["checks"] if check["drops"])
        assert (stage["drop_reason"], first["reason"]) == (row["drop_reason"],) * 2
        assert first["what"] and first["threshold"] is not None
    assert len(seen) >= 2
    kept = explain(sample_run, next(show(sample_run))["id"], recipe)
    assert not any(check["drops"] for s in kept["stages"] for check in s["checks"])
