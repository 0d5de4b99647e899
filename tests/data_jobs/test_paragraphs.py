"""Repeated paragraphs across documents, against a plain Python reading of the same rule."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_jobs import keyed
from data_jobs.language.spans import cut, intersection, row_spans
from data_jobs.near.drops import DROP
from data_jobs.normal_text import normalized
from data_jobs.paragraph_ranges import paragraphs_of
from data_jobs.paragraphs import LEAST_WORDS, paragraph_spans, shard_cuts
from data_jobs.shards import shard_items, utf8_buffers, write_table
from mutirao.core.schemas import LANGID, read_ipc

CLEAN = {"boilerplate": False, "personal_data": "keep", "html": "keep", "shard_bytes": 5_000}
BREAK = re.compile(r"\n(?:[^\S\n]*\n)+")


def paragraphs_in(text: str) -> list[str]:
    return [one for one in BREAK.split(text) if one.strip()]


def cut_corpus(helpers, root: Path, sources: dict[str, list[dict]], dropped=(), **fields):
    """{name of a document: its text afterwards, None where nothing is left} and the texts before,
    in the order (prefer, id). dropped: names that neardup drops."""
    for name, rows in sources.items():
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.jsonl").write_bytes(helpers.jsonl(rows))
    fields.setdefault("clean", CLEAN)
    recipe = helpers.Recipe(sources=[{"path": f"{n}.jsonl", "name": n} for n in sources], **fields)
    done = helpers.run_stages(root, recipe, "exact")
    job = helpers.make_job(root, "neardup", recipe, done)
    items = shard_items(job.inputs, ("exact",))
    tables = [read_ipc(Path(item["text"]), "text") for item in items]
    names = [t.column("name").to_pylist() for t in tables]
    gone = [
        (s << 32 | r) for s, some in enumerate(names) for r, n in enumerate(some) if n in dropped
    ]
    drops = np.zeros(len(gone), DROP)
    drops["document"] = gone
    keyed.write_records(job.directory, "drops.npy", drops)
    items = [{**item, "drops": str(job.directory / "drops.npy")} for item in items]
    results = paragraph_spans(job, items)
    after, before = {}, []
    for item, result, table in zip(items, results, tables, strict=True):
        spans, lost = shard_cuts(result, job.directory, table.num_rows)
        assert spans.type == pa.list_(pa.int32())
        kept = read_ipc(Path(item["decisions"]["exact"])).column("reason").to_pylist()
        for row, one in enumerate(table.to_pylist()):
            if kept[row] is None and one["name"] not in dropped:
                text, span = one["text"], spans[row].as_py()
                ranks = recipe.exact.prefer
                rank = ranks.index(one["source"]) if one["source"] in ranks else len(ranks)
                before.append((rank, one["id"], one["name"], text))
                left = text if span is None else cut(text.encode(), span).decode()
                after[one["name"]] = None if lost[row] else left
    return after, [(name, text) for *_, name, text in sorted(before)]


def expected(before: list[tuple[str, str]], least: int, how: str = "casefold"):
    """{name: paragraphs that stay, None where nothing does}, by the rule as it is written."""
    seen: set[str] = set()
    found: dict[str, list[str] | None] = {}
    for name, text in before:
        stay, long, went = [], False, False
        for one in paragraphs_in(text):
            key = normalized(one.rstrip(), how)
            if len(re.findall(r"\w+", one)) < least:
                stay.append(one)
            elif key in seen:
                went = True
            else:
                seen.add(key)
                stay.append(one)
                long = True
        words = len(re.findall(r"\w+", " ".join(stay)))
        found[name] = None if went and not long and words < LEAST_WORDS else stay
    return found


def made_up(seed: int, count: int) -> list[dict]:
    """Documents of a few paragraphs out of a small stock, in several spellings and spacings."""
    chance = random.Random(seed)
    words = ["ação", "já", "não", "é", "o", "fim", "da", "rua"]
    stock = [" ".join(chance.choices(words, k=k)) for k in range(2, 30)]
    stock += [one + "\n" + other for one, other in zip(stock[10:], stock[5:], strict=False)]
    rows = []
    for k in range(count):
        picked = [chance.choice([str, str.upper])(chance.choice(stock)) for _ in range(1 + k % 7)]
        gaps = [chance.choice(["\n\n", "\n\n", "\n\n\n"]) for _ in picked]
        text = "".join(one + gap for one, gap in zip(picked, gaps, strict=True))
        rows.append({"id": f"{seed}-{k}", "text": text + (f"só {k}" if k % 3 else "")})
    return rows


@pytest.mark.parametrize("how", ["casefold", "whitespace", "none"])
def test_what_stood_before_is_cut_as_the_rule_says(helpers, tmp_path, how):
    sources = {"um": made_up(1, 60), "dois": made_up(2, 60)}
    fields = {"neardup": {"paragraph_words": 6}, "exact": {"normalize": how, "prefer": ["dois"]}}
    after, before = cut_corpus(helpers, tmp_path, sources, **fields)
    wanted = expected(before, 6, how)
    found = {n: None if text is None else paragraphs_in(text) for n, text in after.items()}
    assert found == wanted
    assert sum(one is None for one in wanted.values()) > 3
    assert sum(len(paragraphs_in(t)) > len(wanted[n] or ()) for n, t in before) > 30
    assert all(text == text.strip() for text in after.values() if text)


def test_partitioning_ranges_and_order_of_sources_change_nothing(helpers, tmp_path, monkeypatch):
    sources = {"um": made_up(1, 40), "dois": made_up(2, 40), "mais": made_up(3, 20)}
    fields = {"neardup": {"paragraph_words": 6}}
    one, _ = cut_corpus(helpers, tmp_path / "one", sources, **fields)
    monkeypatch.setattr(keyed, "RANGE_BYTES", 4_000)
    turned = dict(reversed(sources.items()))
    wide = {**CLEAN, "shard_bytes": 1_000_000}
    for name, clean in (("many", CLEAN), ("wide", wide)):
        other, _ = cut_corpus(helpers, tmp_path / name, turned, clean=clean, **fields)
        assert other == one


def test_only_kept_documents_count(helpers, tmp_path):
    long = helpers.sentence(1, 30)
    rows = [{"id": k, "text": f"{long}\n\n{helpers.sentence(k, 30)}"} for k in range(2, 8)]
    after, before = cut_corpus(helpers, tmp_path / "all", {"um": rows})
    (first, text), *rest = before
    assert after[first] == text, "the first in the order of the ids is whole"
    assert all(long not in after[name] for name, _ in rest)
    after, before = cut_corpus(helpers, tmp_path / "less", {"um": rows}, dropped=(first,))
    assert first not in after and after[before[0][0]] == before[0][1]


def test_an_instruction_is_neither_cut_nor_counted(helpers, tmp_path):
    long = helpers.sentence(1, 30)
    rows = [{"id": k, "prompt": long, "completion": f"resposta {k}"} for k in range(3)]
    (tmp_path / "i.jsonl").write_bytes(helpers.jsonl(rows))
    (tmp_path / "t.jsonl").write_bytes(helpers.jsonl([{"id": 9, "text": f"{long}\n\nfim"}]))
    sources = [{"path": "i.jsonl", "kind": "instruction"}, {"path": "t.jsonl"}]
    recipe = helpers.Recipe(sources=sources, clean={"boilerplate": False})
    done = helpers.run_stages(tmp_path, recipe, "exact")
    job = helpers.make_job(tmp_path, "neardup", recipe, done)
    keyed.write_records(job.directory, "drops.npy", np.zeros(0, DROP))
    drops = {"drops": str(job.directory / "drops.npy")}
    results = paragraph_spans(job, [{**i, **drops} for i in shard_items(job.inputs, ("exact",))])
    assert [result["part"]["rows"] for result in results] == [0, 0]


def test_paragraphs_that_langid_left_out_do_not_count_and_both_cuts_hold(helpers, tmp_path):
    long, other, third = (helpers.sentence(k, 30) for k in (1, 2, 3))
    texts = ["\n\n".join(some) for some in ([long, other], [long, third], [other, long])]
    rows = [{"id": k, "text": text} for k, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_bytes(helpers.jsonl(rows))
    recipe = helpers.Recipe(sources=[{"path": "a.jsonl"}], clean={"boilerplate": False})
    done = helpers.run_stages(tmp_path, recipe, "exact")
    job = helpers.make_job(tmp_path, "neardup", recipe, done)
    ids = read_ipc(done["clean"].paths("text-")[0]).column("id").to_pylist()
    first, second, last = np.argsort(np.array(ids, object)).tolist()
    spans: list = [None] * 3
    left = texts[first].encode()
    at = texts[first].index(long)
    spans[first] = [0, at] if at else [len(f"{long}\n\n".encode()), len(left)]
    columns = {"spans": pa.array(spans, pa.list_(pa.int32()))}
    arrays = [columns.get(f.name, pa.nulls(3, f.type)) for f in LANGID]
    write_table(tmp_path, "langid-00000.arrow", pa.Table.from_arrays(arrays, schema=LANGID))
    keyed.write_records(job.directory, "drops.npy", np.zeros(0, DROP))
    (item,) = shard_items(job.inputs, ("exact",))
    item["decisions"]["langid"] = str(tmp_path / "langid-00000.arrow")
    item["drops"] = str(job.directory / "drops.npy")
    (result,) = paragraph_spans(job, [item])
    ours, gone = shard_cuts(result, job.directory, 3)
    texts_after = []
    for row in (first, second, last):
        both = intersection(spans[row], ours[row].as_py())
        whole = texts[row].encode()
        texts_after.append(None if gone[row] else (whole if both is None else cut(whole, both)))
    assert long not in texts_after[0].decode()
    assert long in texts_after[1].decode(), "it was left out of the first, so here it stands first"
    assert texts_after[2] is None or long not in texts_after[2].decode()


def test_a_finished_result_is_not_made_again_and_a_torn_one_is(helpers, tmp_path, monkeypatch):
    sources = {"um": made_up(1, 40)}
    one, _ = cut_corpus(helpers, tmp_path, sources, neardup={"paragraph_words": 6})
    folder = tmp_path / "store/neardup/key"
    before = {path.name: path.read_bytes() for path in folder.glob("cuts-*.npy")}
    assert len(before) > 1 and not list(folder.glob("paragraphs-*")), "the hashes are given back"
    torn = folder / "cuts-00001.npy"
    torn.write_bytes(torn.read_bytes()[:-1])
    again, _ = cut_corpus(helpers, tmp_path, sources, neardup={"paragraph_words": 6})
    assert again == one
    assert {path.name: path.read_bytes() for path in folder.glob("cuts-*.npy")} == before


def test_ranges_begin_and_end_at_characters_and_lines():
    text = "  Olá, mundo \t\n segunda\u3000\n\u2003\n\n\nação\x00 é 🙂\n\n"
    data, offsets = utf8_buffers(pa.array([text, "", "\n \n", "x"], pa.large_string()))
    (found,) = paragraphs_of(data, offsets, np.array([0, 1, 2, 3]))
    raw = [bytes(data[a:b]).decode() for a, b in zip(found.start, found.end, strict=True)]
    assert raw == ["  Olá, mundo \t\n segunda", "ação\x00 é 🙂", "x"]
    assert found.row.tolist() == [0, 0, 3] and found.words.tolist() == [3, 2, 1]


def test_spans_of_two_stages_are_intersected(tmp_path):
    assert intersection([0, 10, 20, 30], [5, 25]) == [5, 10, 20, 25]
    assert intersection(None, [5, 25]) == intersection([5, 25], None) == [5, 25]
    assert intersection([0, 5], [5, 9]) == [] and intersection(None, None) is None
    assert row_spans({}, 3) is None
