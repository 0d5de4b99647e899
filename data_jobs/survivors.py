"""Who stays among near-duplicates: candidate pairs out of one bucket, and the star rule over edges.

Documents are ordered longest first, then by (shard, row). Star rule: in this order a document is
dropped only if it has a verified edge to one that stays. Transitive closure would also drop
documents that resemble nothing that stays; it costs 7 points of pair precision even on perfect
pairs.
"""

from __future__ import annotations

import numba
import numpy as np

ALL_PAIRS = 32  # buckets up to this size yield all pairs
ANCHORS = 8  # larger ones pair each document with the first 8
WINDOW = 8  # and with the 8 before it, so m documents have at most 16 m pairs


@numba.njit(cache=True, nogil=True)
def bucket_pairs(keys, documents):
    """uint64[pairs, 2] of document names; equal `keys` must be neighbours, in star order."""
    total = 0
    for fill in range(2):
        out = np.empty((total, 2), np.uint64)
        total = 0
        start = 0
        while start < keys.shape[0]:
            stop = start + 1
            while stop < keys.shape[0] and keys[stop] == keys[start]:
                stop += 1
            for j in range(start + 1, stop):
                large = stop - start > ALL_PAIRS
                i = start
                while i < j:
                    if large and i == start + ANCHORS and i < j - WINDOW:
                        i = j - WINDOW
                    if fill:
                        out[total, 0] = min(documents[i], documents[j])
                        out[total, 1] = max(documents[i], documents[j])
                    total += 1
                    i += 1
            start = stop
    return out


def star(
    first: np.ndarray, second: np.ndarray, jaccard: np.ndarray, length: dict[int, int]
) -> dict[int, tuple[int, float]]:
    """{dropped document: (the document that stays, jaccard)} of verified edges.

    Of several that stay, the most similar is named. Memory: about 200 bytes an edge.
    """
    neighbours: dict[int, list[tuple[int, float]]] = {}
    for a, b, value in zip(first.tolist(), second.tolist(), jaccard.tolist(), strict=True):
        neighbours.setdefault(a, []).append((b, value))
        neighbours.setdefault(b, []).append((a, value))
    place = {doc: i for i, doc in enumerate(sorted(neighbours, key=lambda d: (-length[d], d)))}
    dropped: dict[int, tuple[int, float]] = {}
    for document in place:
        stays = [
            (-value, place[other], other)
            for other, value in neighbours[document]
            if place[other] < place[document] and other not in dropped
        ]
        if stays:
            value, _, other = min(stays)
            dropped[document] = (other, -value)
    return dropped


def components(first: np.ndarray, second: np.ndarray) -> dict[int, int]:
    """{document: smallest document of its component} over undirected edges (union-find)."""
    parent: dict[int, int] = {}

    def root(document: int) -> int:
        while parent.setdefault(document, document) != document:
            parent[document] = parent[parent[document]]
            document = parent[document]
        return document

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        x, y = root(a), root(b)
        if x != y:
            parent[max(x, y)] = min(x, y)
    return {document: root(document) for document in parent}
