"""The stage neardup against brute force over Python sets, and the same result however it is cut."""

from __future__ import annotations

import itertools
import random
import re
from fractions import Fraction

import pytest

from data_jobs.pipeline import STAGES
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import commit
from mutirao.core.schemas import read_ipc

THRESHOLD = 0.8


def shingles(text: str, n: int = 5) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def corpus(count: int = 90, seed: int = 5) -> list[dict]:
    """Texts, and copies of copies of them with a few words changed: chains and clusters of which
    the ends resemble each other less than the threshold."""
    dice = random.Random(seed)
    words = [f"palavra{k}" for k in range(400)]
    rows: list[dict] = []
    for number in range(count):
        text = [dice.choice(words) for _ in range(dice.randrange(60, 120))]
        for copy in range(dice.choice((1, 1, 2, 3, 6))):
            rows.append({"id": f"{number}-{copy}", "text": " ".join(text)})
            text = list(text)
            for _ in range(dice.randrange(0, 3)):
                text[dice.randrange(len(text))] = dice.choice(words)
            if dice.random() < 0.3:
                text.append(dice.choice(words))
    dice.shuffle(rows)
    return rows


class Found:
    """The documents of a finished neardup with their decisions, by the source's id."""

    def __init__(self, done):
        self.rows, self.place, self.edges = {}, {}, {}
        texts, decisions = done["clean"].paths("text-"), done["neardup"].paths("neardup-")
        for shard, (text, near) in enumerate(zip(texts, decisions, strict=True)):
            hashes = read_ipc(done["exact"].paths("exact-")[shard])
            kept = [r is None for r in hashes["reason"].to_pylist()]
            columns = zip(
                read_ipc(text).to_pylist(), read_ipc(near).to_pylist(), hashes.to_pylist(), kept,
                strict=True,
            )  # fmt: skip
            for row, (document, decision, exact, alive) in enumerate(columns):
                name = document["name"]
                self.place[shard, row] = name
                if alive:
                    self.rows[name] = {**document, **decision, "hash": exact["hash"]}
        for path in done["neardup"].paths("edges-"):
            for e in read_ipc(path, "edges").to_pylist():
                first, second = (e["shard"], e["row"]), (e["other_shard"], e["other_row"])
                assert e["against"] >= 0 or first < second
                if e["against"] < 0:
                    pair = frozenset((self.place[first], self.place[second]))
                    assert pair not in self.edges, "each pair stands there once"
                    self.edges[pair] = e["jaccard"]

    def order(self, name):
        row = self.rows[name]
        return -len(row["text"].encode()), row["id"]

    def true_pairs(self, threshold=THRESHOLD):
        sets = {name: shingles(row["text"]) for name, row in self.rows.items()}
        found = {}
        for a, b in itertools.combinations(sorted(sets), 2):
            x, y = sets[a], sets[b]
            if x and y and Fraction(len(x & y), len(x | y)) >= Fraction(str(threshold)):
                found[frozenset((a, b))] = len(x & y) / len(x | y)
        return found

    def decisions(self):
        """{id of the source: (reason, the document that stays, jaccard, cluster, size)}"""
        by_id = {row["id"]: name for name, row in self.rows.items()}
        return {
            name: (
                row["reason"],
                by_id.get(row["duplicate_of_id"]),
                row["jaccard"],
                row["cluster"],
                row["cluster_size"],
            )
            for name, row in self.rows.items()
        }


ALL = ("ingest", "clean", "exact", "neardup")


def run(helpers, root, stages=ALL, **fields):
    """{stage: Manifest}: only these stages, so that no text is dropped for its language."""
    recipe, done = helpers.Recipe(**fields), {}
    for name in stages:
        result = STAGES[name](helpers.make_job(root, name, recipe, done))
        content = {
            "stage": name,
            "parts": [vars(part) for part in result.parts],
            "counts": result.counts,
            "info": result.info,
        }
        done[name] = commit(root / "store" / name / "key", content, {})
    return done


@pytest.fixture
def neardup(helpers, tmp_path):
    """neardup(rows or {file: rows}, stages, recipe fields) -> Found"""
    runs = itertools.count()

    def found(rows, stages=ALL, **fields):
        root = tmp_path / str(next(runs))
        root.mkdir()
        files = rows if isinstance(rows, dict) else {"a.jsonl": rows}
        for name, some in files.items():
            (root / name).write_bytes(helpers.jsonl(some))
        fields.setdefault("sources", [{"path": name} for name in files])
        return Found(run(helpers, root, stages, **fields))

    return found


def neighbours(pairs):
    found: dict[str, set[str]] = {}
    for a, b in map(tuple, pairs):
        found.setdefault(a, set()).add(b)
        found.setdefault(b, set()).add(a)
    return found


def star(found: Found, pairs) -> set[str]:
    near, stays = neighbours(pairs), set()
    for name in sorted(near, key=found.order):
        if not near[name] & stays:
            stays.add(name)
    return stays


def cluster_of(found: Found, near, name) -> set[str]:
    seen, open_ones = {name}, [name]
    while open_ones:
        more = near[open_ones.pop()] - seen
        seen |= more
        open_ones += more
    return seen


def test_edges_survivors_and_clusters_are_those_of_brute_force(neardup):
    found = neardup(corpus())
    pairs = found.true_pairs()
    assert len(pairs) > 100 and found.edges.keys() == pairs.keys()
    assert all(found.edges[p] == pytest.approx(value, abs=1e-6) for p, value in pairs.items())
    near, stays, decided = neighbours(pairs), star(found, pairs), found.decisions()
    assert len(near) > len(stays) + 50
    for name, (reason, other, jaccard, cluster, size) in decided.items():
        if name not in near:
            assert (reason, other, jaccard, cluster, size) == (None,) * 5
            continue
        group = cluster_of(found, near, name)
        hashes = {int.from_bytes(found.rows[one]["hash"][:8], "big") for one in group}
        assert (cluster, size) == (min(hashes), len(group))
        if name in stays:
            assert (reason, other, jaccard) == (None, None, None)
            continue
        best = min(near[name] & stays, key=lambda o: (-pairs[frozenset((name, o))], found.order(o)))
        assert (reason, other) == ("near-duplicate", best)
        assert jaccard == pytest.approx(pairs[frozenset((name, best))], abs=1e-6)


def test_closure_keeps_the_first_of_each_cluster_and_computes_true_jaccards(neardup):
    found = neardup(corpus(), neardup={"survivors": "closure"})
    near, decided = neighbours(found.true_pairs()), found.decisions()
    without_edge = 0
    for name, row in found.rows.items():
        reason, other, jaccard = decided[name][:3]
        head = min(cluster_of(found, near, name), key=found.order) if name in near else name
        if name == head:
            assert reason is None
            continue
        assert (reason, other) == ("near-duplicate", head)
        x, y = shingles(row["text"]), shingles(found.rows[head]["text"])
        assert jaccard == pytest.approx(len(x & y) / len(x | y), abs=1e-6)
        without_edge += head not in near[name]
    assert without_edge > 5


@pytest.mark.parametrize("survivors", ["star", "closure"])
def test_order_of_files_partitioning_and_ranges_change_nothing(
    helpers, tmp_path, monkeypatch, survivors
):
    rows = corpus(60)
    data = {f"{k}.jsonl": helpers.jsonl(rows[k::3]) for k in range(3)}
    results = []
    for names, shard_bytes, range_bytes, chunk_bytes in (
        ("012", 64_000_000, 32_000_000, 32_000_000),
        ("210", 12_000, 500_000, 4_000),
    ):
        monkeypatch.setattr("data_jobs.near.candidates.RANGE_BYTES", range_bytes)
        monkeypatch.setattr("data_jobs.near.verify.CHUNK_BYTES", chunk_bytes)
        folder = tmp_path / names
        folder.mkdir()
        for name, raw in data.items():
            (folder / name).write_bytes(raw)
        done = run(
            helpers,
            folder,
            sources=[{"path": f"{k}.jsonl", "name": f"s{k}"} for k in names],
            clean={"shard_bytes": shard_bytes},
            neardup={"survivors": survivors},
        )
        found = Found(done)
        results.append((found.decisions(), found.edges))
    assert results[0] == results[1] and len(results[0][1]) > 50


def test_a_preferred_source_stays_though_it_is_shorter(neardup, helpers):
    base = helpers.sentence(1, 200)
    files = {
        "plain.jsonl": [{"id": "long", "text": f"{base} mais um pouco de texto no fim"}],
        "best.jsonl": [{"id": "short", "text": base}],
    }
    both = [{"path": "plain.jsonl"}, {"path": "best.jsonl"}]
    alone = neardup(files, sources=both)
    assert alone.rows["short"]["reason"] and not alone.rows["long"]["reason"]
    found = neardup(files, sources=both, exact={"prefer": ["best"]})
    assert found.rows["long"]["reason"] and not found.rows["short"]["reason"]


WITH_FILTER = ("ingest", "clean", "exact", "filter", "neardup")


def test_the_higher_quality_stays_though_it_is_shorter(neardup, helpers):
    base = helpers.sentence(1, 200)
    rows = [{"id": "long", "text": f"{base} XYZ KWQ"}, {"id": "short", "text": base}]
    found = neardup(rows, WITH_FILTER, neardup={"quality": "uppercase"})
    assert found.rows["short"]["reason"] and not found.rows["long"]["reason"]
    found = neardup(rows, WITH_FILTER, neardup={"quality": "stop_words"})
    assert found.rows["long"]["reason"] and not found.rows["short"]["reason"]


def test_short_and_empty_documents_are_duplicates_of_nothing(neardup, helpers):
    rows = [{"id": k, "text": text} for k, text in enumerate(("", "um dois", "um dois.", "?"))]
    rows += [
        {"id": "a", "text": "um dois três quatro"},
        {"id": "b", "text": "um dois três quatro!"},
    ]
    found = neardup(rows)
    assert len(found.rows) == 5 and not found.edges
    assert all(row["reason"] is None and row["cluster"] is None for row in found.rows.values())


def test_documents_that_differ_in_their_marks_alone_leave_one(neardup, helpers):
    text = helpers.sentence(1, 100)
    rows = [{"id": str(k), "text": text + "!" * (k + 1)} for k in range(40)]
    found = neardup(rows)
    stays = [name for name, row in found.rows.items() if row["reason"] is None]
    assert stays == ["39"] and found.rows["0"]["jaccard"] == 1.0


def test_ten_thousand_near_copies_leave_one_and_make_few_pairs(neardup, helpers):
    """Their band keys are equal: each bucket has all of them."""
    text = helpers.sentence(1, 40)
    rows = [{"id": str(k), "text": f"{text} {k}"} for k in range(10_000)]
    found = neardup(rows)
    stays = [name for name, row in found.rows.items() if row["reason"] is None]
    assert len(found.rows) == 10_000 and len(stays) < 10
    assert len(found.edges) <= 2 * 18 * 16 * 10_000 // 10
    sizes = {row["cluster_size"] for row in found.rows.values()}
    assert sizes == {10_000}


def test_a_word_of_two_megabytes_is_one_word(neardup, helpers):
    rows = [
        {"id": "long", "text": "x" * 2_000_000 + " " + helpers.sentence(1)},
        {"id": "copy", "text": "x" * 2_000_000 + " " + helpers.sentence(1) + " e mais"},
        {"id": "plain", "text": helpers.sentence(1)},
    ]
    found = neardup(rows)
    assert found.rows["copy"]["reason"] is None and found.rows["long"]["reason"]


def test_letters_whose_lower_case_depends_on_the_text_are_compared_in_lower_case(neardup, helpers):
    text = helpers.sentence(1, 100)
    rows = [
        {"id": "upper", "text": f"{text} ΟΔΥΣΣΕΥΣ İSTANBUL ΣΊΣΥΦΟΣ mais uma casa"},
        {"id": "lower", "text": f"{text} οδυσσευς i̇stanbul σίσυφος mais uma casa!!!"},
    ]
    found = neardup(rows)
    assert list(found.edges.values()) == [1.0]


def test_an_unknown_quality_names_the_nearest(tmp_path, helpers):
    from data_jobs.neardup import neardup_assets

    recipe = helpers.Recipe(sources=[{"path": "x"}], neardup={"quality": "stop_word"})
    with pytest.raises(RecipeError, match="stop_words"):
        neardup_assets(recipe, tmp_path)
