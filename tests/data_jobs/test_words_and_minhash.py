"""The kernels against plain Python and datasketch as oracles."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.minhash import bands_and_rows, false_positives, found, permutation_parameters
from data_jobs.near.drops import ROW_BITS
from data_jobs.near.graph import KEPT, counted, join, label, mark, numbers, places
from data_jobs.near.groups import bucket_pairs, distinct_pairs, equal_keys, scattered
from data_jobs.near.order import falling
from data_jobs.near.sets import jaccards, shingle_sets
from data_jobs.near.shingles import raw_words, word_points
from data_jobs.near.sketch import minima, padded, sketches
from data_jobs.near.verify import CHANCE, equal_bytes
from data_jobs.survivors import star
from data_jobs.words import document_shingles, folded, tables, word_hashes

ODD = [
    "",
    "a",
    "Ação, coração e São João_2 — 3ª edição… fim",
    "İSTANBUL'da İyi ΟΔΥΣΣΕΥΣ Σίσυφος ΟΔΟΣ",
    "日本語 テキスト ١٢٣ e\u0301 \u00a0 x\u200dy 𝒳𝒴 ß ﬁ ǅ",
    "a\nb\tc\r\nd",
]


def shingle_set(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}


def shingles_of(texts: list[str], n: int) -> list[np.ndarray]:
    data, offsets = folded(pa.array(texts, pa.large_string()))
    kinds, lower = tables()
    return [document_shingles(data, offsets, k, n, kinds, lower) for k in range(len(texts))]


def edited_pairs(count: int = 60) -> list[tuple[str, str]]:
    dice = random.Random(3)
    words = [f"palavra{k}" for k in range(500)]
    pairs = []
    for _ in range(count):
        text = [dice.choice(words) for _ in range(300)]
        rate = dice.random() * 0.1
        copy = [dice.choice(words) if dice.random() < rate else word for word in text]
        pairs.append((" ".join(text), " ".join(copy)))
    return pairs


def test_words_are_those_of_the_regular_expression():
    data, offsets = folded(pa.array(ODD, pa.large_string()))
    kinds, lower = tables()
    out, known = np.zeros(200, np.uint64), {}
    for k, text in enumerate(ODD):
        words = re.findall(r"\w+", text.lower())
        count = word_hashes(data, offsets[k], offsets[k + 1], kinds, lower, out)
        assert count == len(words)
        for word, value in zip(words, out[:count].tolist(), strict=True):
            assert known.setdefault(word, value) == value
    assert len(set(known.values())) == len(known)


def test_broken_utf8_is_read_to_the_end_without_an_error():
    data = np.frombuffer(b"bom \xc3 dia \xe2\x82 fim \xf0\x9f", np.uint8)
    kinds, lower = tables()
    out = np.zeros(50, np.uint64)
    assert word_hashes(data, 0, len(data), kinds, lower, out) >= 3


def test_a_text_under_n_words_has_no_shingles():
    assert [len(s) for s in shingles_of(["um dois três quatro", "a b c d e"], 5)] == [0, 1]


def text_table(texts: list[str]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def sets_of(texts: list[str], n: int = 5) -> list[set[int]]:
    sets = shingle_sets([pa.array(texts, pa.large_string())], n)
    parts = zip(sets.starts[:-1], sets.starts[1:], strict=True)
    return [set(sets.values[a:b].tolist()) for a, b in parts]


def test_shingle_words_are_those_of_the_regular_expression_too():
    data, offsets = folded(pa.array(ODD, pa.large_string()))
    out = np.zeros(2_000, np.uint64)
    for k, text in enumerate(ODD):
        count, odd = raw_words(data, offsets[k], offsets[k + 1], word_points(), out)
        words = re.findall(r"\w+", text.lower())
        assert (count, bool(odd)) == (len(words), False)
        assert len(set(out[:count].tolist())) == len(set(words))


def test_sets_have_as_many_shingles_as_those_of_python():
    dice = random.Random(1)
    words = ["a", "b", "c", "d", "É", "ß"]
    texts = [*ODD, *(" ".join(dice.choices(words, k=n)) for n in range(0, 90, 7))]
    for n in (1, 2, 5):
        ours, theirs = sets_of(texts, n), [shingle_set(text, n) for text in texts]
        assert [len(s) for s in ours] == [len(s) for s in theirs]
        for a in range(len(texts)):
            for b in range(a):
                assert len(ours[a] & ours[b]) == len(theirs[a] & theirs[b])


def test_true_jaccard_equals_that_of_python_sets():
    pairs = edited_pairs()
    one = shingle_sets([pa.array([a for a, _ in pairs], pa.large_string())], 5)
    other = shingle_sets([pa.array([b for _, b in pairs], pa.large_string())], 5)
    at = np.arange(len(pairs))
    ours = jaccards(one.values, one.starts, at, other.values, other.starts, at)
    for (a, b), value in zip(pairs, ours.tolist(), strict=True):
        x, y = shingle_set(a, 5), shingle_set(b, 5)
        assert value == len(x & y) / len(x | y)


def test_empty_sets_resemble_nothing():
    sets = shingle_sets([pa.array(["", "um dois", "a b c d e"], pa.large_string())], 5)
    one, other = np.array([0, 0, 2]), np.array([0, 1, 1])
    found = jaccards(sets.values, sets.starts, one, sets.values, sets.starts, other)
    assert found.tolist() == [0, 0, 0]


def signature_of(shingles: np.ndarray, permutations: int) -> np.ndarray:
    a, b = padded(*permutation_parameters(permutations))
    least = np.zeros(len(a), np.uint32)
    values = (shingles >> np.uint64(32)).astype(np.uint32)
    minima(values, len(values), a, b, least)
    return least[:permutations]


def test_minima_are_the_least_values_of_each_permutation():
    a, b = permutation_parameters(10)
    values = np.random.default_rng(2).integers(0, 1 << 32, 50, np.uint32)
    with np.errstate(over="ignore"):
        expected = (values[:, None] * a + b).min(axis=0)
    assert (signature_of(values.astype(np.uint64) << np.uint64(32), 10) == expected).all()


def test_signatures_estimate_jaccard_as_well_as_datasketch():
    """The root mean square error of both over the same pairs, and that of theory."""
    from datasketch import MinHash

    pairs = edited_pairs()
    texts = [text for pair in pairs for text in pair]
    _, signatures, has = sketches(text_table(texts), np.ones(len(texts), bool), 32, 4, 5)
    assert has.all()
    rows = np.arange(len(pairs)) * 2
    share = equal_bytes(signatures, rows, signatures, rows + 1) / 128
    estimate = (share - CHANCE) / (1 - CHANCE)
    ours, theirs, theory = [], [], []
    for k, (one, other) in enumerate(pairs):
        x, y = shingle_set(one, 5), shingle_set(other, 5)
        true = len(x & y) / len(x | y)
        ours.append(estimate[k] - true)
        minhashes = []
        for shingles in (x, y):
            sketch = MinHash(num_perm=128)
            sketch.update_batch([" ".join(s).encode() for s in sorted(shingles)])
            minhashes.append(sketch)
        theirs.append(minhashes[0].jaccard(minhashes[1]) - true)
        theory.append(true * (1 - true) / 128)

    def error(values):
        return float(np.sqrt(np.mean(np.square(values))))

    assert error(ours) < 1.5 * np.sqrt(np.mean(theory))
    assert error(ours) < 1.5 * error(theirs)


def test_documents_share_a_band_key_exactly_where_a_band_is_equal():
    texts = [text for pair in edited_pairs(20) for text in pair]
    keys, _, has = sketches(text_table(texts), np.ones(len(texts), bool), 4, 5, 5)
    sets = shingle_sets([pa.array(texts, pa.large_string())], 5)
    parts = zip(sets.starts[:-1], sets.starts[1:], strict=True)
    minima_of = [signature_of(sets.values[a:b], 20) for a, b in parts]
    signatures = np.array(minima_of).reshape(-1, 4, 5)
    equal = (signatures[:, None] == signatures[None]).all(axis=3)
    assert has.all() and ((keys[:, None] == keys[None]) == equal).all()


def test_rows_that_are_not_kept_and_short_texts_have_no_signature():
    texts = ["a b c d e f", "a b c d e f", "a b c d", ""]
    keys, signatures, has = sketches(text_table(texts), np.array([1, 0, 1, 1], bool), 2, 3, 5)
    assert has.tolist() == [True, False, False, False]
    assert keys[0].all() and not keys[1:].any() and not signatures[1:].any()


def test_bands_and_rows_reach_the_recall_with_the_least_false_positives():
    from datasketch.lsh import _false_positive_probability

    for threshold in (0.5, 0.7, 0.8, 0.9):
        bands, rows = bands_and_rows(threshold, 0.999, 112, 0, 0)
        assert bands * rows <= 112 and found(threshold, bands, rows) >= 0.999
        area = _false_positive_probability(threshold, bands, rows)
        assert false_positives(threshold, bands, rows) == pytest.approx(area, rel=0.01, abs=1e-4)
        for r in range(1, 40):
            for b in range(1, 112 // r + 1):
                if found(threshold, b, r) >= 0.999:
                    assert false_positives(threshold, b, r) >= area * 0.99 - 1e-4
    assert bands_and_rows(0.8, 0.999, 112, 0, 0) == (18, 5)
    assert bands_and_rows(0.8, 0.999, 128, 14, 8) == (14, 8)
    assert bands_and_rows(0.8, 0.999, 100, 0, 5) == (20, 5)


def test_equal_keys_are_those_of_a_dictionary():
    dice = np.random.default_rng(3)
    keys = dice.integers(0, 1 << 64, 9_000, np.uint64)
    keys[dice.random(9_000) < 0.5] = dice.choice(keys[:300], 1)[0]
    keys[:4_000] = dice.choice(keys[:1_500], 4_000)
    documents = np.arange(9_000, dtype=np.uint64)
    expected: dict[int, list[int]] = {}
    for key, document in zip(keys.tolist(), documents.tolist(), strict=True):
        expected.setdefault(key, []).append(document)
    members, starts = equal_keys(*scattered(keys, documents, 4))
    groups = [members[a:b].tolist() for a, b in itertools.pairwise(starts)]
    assert sorted(groups) == sorted(g for g in expected.values() if len(g) > 1)


def test_a_giant_bucket_yields_few_pairs_and_a_small_one_all():
    members, starts = np.arange(1010, dtype=np.uint64), np.array([0, 1000, 1010])
    first, second = bucket_pairs(members, starts, 1)
    assert (first < second).all()
    assert (first >= 1000).sum() == 45 and len(first) <= 16 * 1000 + 45
    assert set(second[first == 0].tolist()) == set(range(1, 1000))


def test_documents_of_earlier_results_make_no_pairs_among_themselves():
    own = np.uint64(2 << ROW_BITS)
    members = np.array([1, 2, own + np.uint64(5), own + np.uint64(6)], np.uint64)
    first, second = bucket_pairs(members, np.array([0, 4]), 2)
    expected = [(1, 2)] + [(a, int(own) + b) for a in (1, 2) for b in (5, 6)]
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == sorted(expected)


def test_pairs_of_a_shard_are_counted_once():
    first = np.array([3, 1, 3, 3, 1], np.uint64) | np.uint64(4 << ROW_BITS)
    second = np.array([9, 8, 9, 7, 8], np.uint64) | np.uint64(5 << ROW_BITS)
    rows, others = distinct_pairs(first, second, 6)
    low = (others & np.uint64((1 << ROW_BITS) - 1)).tolist()
    assert sorted(zip(rows.tolist(), low, strict=True)) == [(1, 8), (3, 7), (3, 9)]


def test_bitmap_numbers_and_places_are_inverse():
    index = np.unique(np.random.default_rng(4).integers(0, 5_000, 700))
    bits = np.zeros(80, np.uint64)
    mark(bits, index)
    before = counted(bits)
    assert before[-1] == len(index)
    found_numbers = numbers(bits, before, index)
    assert found_numbers.tolist() == list(range(len(index)))
    assert (places(bits, before, found_numbers) == index).all()


def test_components_have_one_number_each():
    parent = np.arange(7, dtype=np.uint32)
    join(parent, np.array([[5, 2], [2, 6], [1, 3]], np.uint32))
    assert label(parent) == 4
    assert parent.tolist() == [0, 1, 2, 1, 3, 2, 2]


def test_star_keeps_the_lexicographically_first_independent_set():
    dice = np.random.default_rng(6)
    for _ in range(20):
        ends = np.sort(dice.integers(0, 60, (90, 2)), axis=1)
        ends = ends[ends[:, 0] != ends[:, 1]].astype(np.uint32)
        expected: set[int] = set()
        for v in range(60):
            if not any(b == v and a in expected for a, b in ends.tolist()):
                expected.add(v)
        state = np.zeros(60, np.uint8)
        star(state, ends)
        assert set(np.flatnonzero(state == KEPT).tolist()) == expected


def test_higher_qualities_come_first_and_missing_ones_last():
    values = np.array([0.5, np.nan, -1.0, 2.0, 0.0, -0.0, 1e-30], np.float32)
    ranks = falling(values)
    assert np.argsort(ranks, kind="stable").tolist() == [3, 0, 6, 4, 5, 2, 1]
    assert ranks[4] == ranks[5] and ranks.max() < 2**32
