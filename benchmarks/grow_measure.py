"""What a grown corpus is like: how many of its documents repeat another one, by true Jaccard.

`grow_corpus.py --measure N` calls it: N documents are chosen by the hash of their id and compared
with every document of the corpus. Shingles are the sets of 5 words (`\\w+`, lower case), counted in
plain Python and numpy, apart from the kernels that the measurements are about. A document becomes a
candidate where a quarter of the shingles (those with a hash divisible by 4) overlaps by half; then
the whole sets are compared.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

WORD = re.compile(r"\w+")
NGRAM = 5
THRESHOLDS = (0.8, 0.7, 0.5)
ODD = np.uint64(0x9E3779B97F4A7C15)


def measure(corpus: Path, wanted: int) -> dict[str, Any]:
    """Shares of documents with a near-duplicate, and of those that deduplication would drop."""
    numbers: dict[str, int] = {}
    total = sum(1 for _ in documents(corpus))
    queries = [
        (record["id"], record["text"], shingles(record["text"], numbers))
        for record in documents(corpus)
        if zlib.crc32(record["id"].encode()) % total < wanted
    ]
    near, equal = compare(corpus, queries, numbers)
    found: dict[str, Any] = {"documents": total, "looked_at": len(queries)}
    for threshold in THRESHOLDS:
        sizes = Counter(q for q, value in near if value >= threshold)
        found[f"with_a_duplicate_{threshold}"] = round(len(sizes) / len(queries), 4)
        repeated = sum(size / (size + 1) for size in sizes.values())
        found[f"redundant_{threshold}"] = round(repeated / len(queries), 4)
    found["redundant_exact"] = round(sum(n / (n + 1) for n in equal.values()) / len(queries), 4)
    found["largest_cluster_0.8"] = 1 + max(
        Counter(q for q, value in near if value >= 0.8).values(), default=0
    )
    return found


def compare(
    corpus: Path, queries: list[tuple[str, str, np.ndarray]], numbers: dict[str, int]
) -> tuple[list[tuple[int, float]], Counter]:
    """[(query, Jaccard)] of all pairs with another document, and exact repetitions by query."""
    some = [quarter(sets) for _, _, sets in queries]
    hashes = np.concatenate(some)
    owner = np.repeat(np.arange(len(queries)), [len(one) for one in some])
    order = np.argsort(hashes, kind="stable")
    hashes, owner = hashes[order], owner[order]
    near, equal = [], Counter()
    for record in documents(corpus):
        mine = shingles(record["text"], numbers)
        sketch = quarter(mine)
        low, high = np.searchsorted(hashes, sketch), np.searchsorted(hashes, sketch, "right")
        hits = Counter(int(o) for a, b in zip(low, high, strict=True) for o in owner[a:b])
        for query, shared in hits.items():
            name, text, theirs = queries[query]
            if name == record["id"] or 3 * shared < len(sketch) + len(some[query]) - shared:
                continue
            both = len(np.intersect1d(mine, theirs, assume_unique=True))
            near.append((query, both / (len(mine) + len(theirs) - both)))
            equal[query] += text == record["text"]
    return near, equal


def documents(corpus: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(corpus.glob("*.jsonl.gz")):
        with gzip.open(path, "rb") as lines:
            yield from map(orjson.loads, lines)


def shingles(text: str, numbers: dict[str, int]) -> np.ndarray:
    """Sorted distinct uint64 hashes of the runs of NGRAM words (all words, where there are fewer).

    numbers: a number for each word that was met so far."""
    words = WORD.findall(text.lower())
    named = np.array([numbers.setdefault(w, len(numbers) + 1) for w in words], np.uint64)
    runs = max(1, len(named) - NGRAM + 1)
    found = np.zeros(runs, np.uint64)
    for offset in range(min(NGRAM, len(named))):
        found = (found ^ (found >> np.uint64(29))) * ODD + named[offset : offset + runs] * ODD
    return np.unique(found ^ (found >> np.uint64(32)))


def quarter(hashes: np.ndarray) -> np.ndarray:
    return hashes[hashes % np.uint64(4) == 0]
