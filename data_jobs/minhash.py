"""MinHash signatures and band keys from UTF-8 text, and the numbers of bands and rows.

A signature has one minimum of a 32-bit multiply-add permutation for each of `permutations` (Broder
1997, "On the resemblance and containment of documents"); `bands` groups of `rows` of them are
hashed to band keys, and documents that share a key are candidates (Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", section 3.4). Texts under `ngram` words have no signature.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np

from data_jobs.words import document_shingles, mix

SEED = 1
MARGIN = 0.1  # bands are laid out for a similarity this much below the threshold
WEIGHTS = (0.02, 0.98)  # of false positives, false negatives: candidates are verified anyway


def bands_and_rows(threshold: float, permutations: int, bands: int, rows: int) -> tuple[int, int]:
    """The recipe's numbers, else datasketch's optimum (0.8 and 100 give 20 bands of 5 rows, which
    find a pair of Jaccard 0.8 with probability 0.9996). Needs bands * rows <= permutations."""
    if bands and rows:
        return bands, rows
    if bands or rows:
        return (bands, permutations // bands) if bands else (permutations // rows, rows)
    from datasketch.lsh import _optimal_param

    best = _optimal_param(max(threshold - MARGIN, 0.05), permutations, *WEIGHTS)
    return int(best[0]), int(best[1])


@cache
def permutation_parameters(permutations: int) -> tuple[np.ndarray, np.ndarray]:
    """(a odd, b) uint32[permutations] of the permutations x -> a x + b mod 2**32."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    pair = generator.integers(0, 1 << 32, (2, permutations), dtype=np.uint32)
    return pair[0] | np.uint32(1), pair[1]


@numba.njit(cache=True, nogil=True)
def signature(shingles, a, b):
    """uint32[permutations] of the distinct shingle hashes (uint64) of one document."""
    values = np.empty(shingles.shape[0], np.uint32)
    for i in range(shingles.shape[0]):
        values[i] = np.uint32(shingles[i] >> np.uint64(32))
    out = np.empty(a.shape[0], np.uint32)
    for j in range(a.shape[0]):
        factor, shift, least = a[j], b[j], np.uint32(0xFFFFFFFF)
        for i in range(values.shape[0]):
            least = min(least, np.uint32(values[i] * factor + shift))
        out[j] = least
    return out


@numba.njit(cache=True, nogil=True)
def band_keys(data, offsets, chosen, n, bands, rows, a, b, kinds, lower):
    """(keys uint64[chosen, bands], has_signature bool[chosen]) of the rows in `chosen`."""
    keys = np.zeros((chosen.shape[0], bands), np.uint64)
    has = np.zeros(chosen.shape[0], np.bool_)
    for k in range(chosen.shape[0]):
        shingles = document_shingles(data, offsets, chosen[k], n, kinds, lower)
        if shingles.shape[0] == 0:
            continue
        has[k] = True
        least = signature(shingles, a, b)
        for band in range(bands):
            h = np.uint64(band + 1)
            for j in range(band * rows, band * rows + rows):
                h = mix(h ^ np.uint64(least[j])) + np.uint64(0x9E3779B97F4A7C15)
            keys[k, band] = h
    return keys, has


@numba.njit(cache=True, nogil=True)
def jaccard(x, y):
    """|x & y| / |x | y| of two sorted arrays of distinct values."""
    i = j = common = 0
    while i < x.shape[0] and j < y.shape[0]:
        if x[i] == y[j]:
            common += 1
            i += 1
            j += 1
        elif x[i] < y[j]:
            i += 1
        else:
            j += 1
    union = x.shape[0] + y.shape[0] - common
    return common / union if union else 0.0
