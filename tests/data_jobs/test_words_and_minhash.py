"""The kernels against plain Python and datasketch as oracles."""

from __future__ import annotations

import random
import re

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.minhash import (
    band_keys,
    bands_and_rows,
    jaccard,
    permutation_parameters,
    signature,
)
from data_jobs.survivors import bucket_pairs, components, star
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


def test_true_jaccard_equals_that_of_python_sets():
    for one, other in edited_pairs():
        x, y = shingle_set(one, 5), shingle_set(other, 5)
        a, b = shingles_of([one, other], 5)
        assert jaccard(a, b) == pytest.approx(len(x & y) / len(x | y), abs=1e-9)


def test_signatures_estimate_jaccard_as_well_as_datasketch():
    """The root mean square error of both over the same pairs, and that of theory."""
    from datasketch import MinHash

    a, b = permutation_parameters(128)
    ours, theirs, theory = [], [], []
    for one, other in edited_pairs():
        x, y = shingle_set(one, 5), shingle_set(other, 5)
        true = len(x & y) / len(x | y)
        sets = shingles_of([one, other], 5)
        first, second = (signature(s, a, b) for s in sets)
        ours.append((first == second).mean() - true)
        sketches = []
        for shingles in (x, y):
            sketch = MinHash(num_perm=128)
            sketch.update_batch([" ".join(s).encode() for s in sorted(shingles)])
            sketches.append(sketch)
        theirs.append(sketches[0].jaccard(sketches[1]) - true)
        theory.append(true * (1 - true) / 128)

    def error(values):
        return float(np.sqrt(np.mean(np.square(values))))

    assert error(ours) < 1.5 * np.sqrt(np.mean(theory))
    assert error(ours) < 1.5 * error(theirs)


def test_documents_share_a_band_key_exactly_where_a_band_is_equal():
    a, b = permutation_parameters(20)
    kinds, lower = tables()
    texts = [text for pair in edited_pairs(20) for text in pair]
    data, offsets = folded(pa.array(texts, pa.large_string()))
    rows = np.arange(len(texts))
    keys, has = band_keys(data, offsets, rows, 5, 4, 5, a, b, kinds, lower)
    signatures = np.array([signature(s, a, b) for s in shingles_of(texts, 5)]).reshape(-1, 4, 5)
    equal = (signatures[:, None] == signatures[None]).all(axis=3)
    assert has.all() and ((keys[:, None] == keys[None]) == equal).all()


def test_the_default_bands_find_pairs_at_the_threshold():
    assert bands_and_rows(0.8, 100, 0, 0) == (20, 5)
    for threshold in (0.5, 0.7, 0.8, 0.9):
        bands, rows = bands_and_rows(threshold, 100, 0, 0)
        assert bands * rows <= 100 and 1 - (1 - threshold**rows) ** bands > 0.99
    assert bands_and_rows(0.8, 128, 14, 8) == (14, 8)


def test_a_giant_bucket_yields_few_pairs_and_a_small_one_all():
    keys = np.array([1] * 1000 + [2] * 10, np.uint64)
    documents = np.arange(1010, dtype=np.uint64)
    pairs = bucket_pairs(keys, documents)
    small = pairs[pairs[:, 0] >= 1000]
    assert len(small) == 45 and len(pairs) <= 16 * 1000 + 45
    assert {int(b) for a, b in pairs if a == 0} == set(range(1, 1000))


def test_star_drops_only_what_resembles_something_that_stays():
    """b resembles a, c resembles b, c does not resemble a: b goes, c stays."""
    length = {1: 30, 2: 20, 3: 10}
    edges = np.array([[1, 2], [2, 3]], np.uint64)
    dropped = star(edges[:, 0], edges[:, 1], np.array([0.9, 0.85]), length)
    assert dropped == {2: (1, 0.9)}
    assert components(edges[:, 0], edges[:, 1]) == {1: 1, 2: 1, 3: 1}


def test_the_longest_document_stays():
    edges = np.array([[1, 2]], np.uint64)
    assert star(edges[:, 0], edges[:, 1], np.array([0.9]), {1: 5, 2: 6}) == {1: (2, 0.9)}
