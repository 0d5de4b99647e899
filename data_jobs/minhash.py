"""MinHash parameters: permutations, and the numbers of bands and rows for a threshold and a recall.

A signature has one minimum of a 32-bit multiply-add permutation for each of bands x rows (Broder
1997, "On the resemblance and containment of documents"); each band of `rows` minima is hashed to a
key, and documents that share a key are candidates (Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", section 3.4). The kernels are in `near/sketch.py`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SEED = 1
STEPS = 2_000  # of the false-positive integral


def bands_and_rows(
    threshold: float, recall: float, permutations: int, bands: int, rows: int
) -> tuple[int, int]:
    """The recipe's numbers, else those that find a pair at the threshold with at least the
    probability `recall` and have the least area of false positives below it, with at most
    `permutations` (0.8, 0.999 and 112 give 18 bands of 5 rows).

    Where no numbers reach the recall, those that come nearest to it.
    """
    if bands and rows:
        return bands, rows
    if bands or rows:
        return (bands, permutations // bands) if bands else (permutations // rows, rows)
    layouts = [(b, r) for r in range(1, permutations + 1) for b in range(1, permutations // r + 1)]
    enough = [one for one in layouts if found(threshold, *one) >= recall]
    if not enough:
        return max(layouts, key=lambda one: found(threshold, *one))
    # of one `rows` fewer bands are better: no need to integrate the others
    fewest = {r: min(b for b, rows_ in enough if rows_ == r) for _, r in enough}
    return min(((b, r) for r, b in fewest.items()), key=lambda o: false_positives(threshold, *o))


def found(similarity: float, bands: int, rows: int) -> float:
    """Probability that a pair of this Jaccard similarity shares a band."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def false_positives(threshold: float, bands: int, rows: int) -> float:
    """Integral of `found` from 0 to the threshold (midpoint rule)."""
    middles = (np.arange(STEPS) + 0.5) * (threshold / STEPS)
    return float(np.sum(1.0 - (1.0 - middles**rows) ** bands) * (threshold / STEPS))


@cache
def permutation_parameters(permutations: int) -> tuple[np.ndarray, np.ndarray]:
    """(a odd, b) uint32[permutations] of the permutations x -> a x + b mod 2**32."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    pair = generator.integers(0, 1 << 32, (2, permutations), dtype=np.uint32)
    return pair[0] | np.uint32(1), pair[1]
