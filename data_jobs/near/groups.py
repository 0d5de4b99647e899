"""Documents that share a band key, and the pairs among them that are worth a comparison.

Keys are grouped in hash tables that fit the processor's second-level cache, after one scatter by
their low bits: 4 to 6 times as fast as a sort of the same rows (benchmarks/band_rows.py,
`grouping`), and only buckets of two or more documents go on. A bucket of up to ALL_PAIRS documents
yields all its pairs; in a larger one each document meets the first ANCHORS in star order and the
WINDOW before it, so that m documents have at most 16 m pairs. A chain alone would not do: one
failed comparison would split a true cluster.
"""

from __future__ import annotations

import numpy as np

from data_jobs.kernels import numba
from data_jobs.near.drops import ROW_BITS

ALL_PAIRS = 32
ANCHORS = 8
WINDOW = 8
EARLIER = 32  # documents of earlier results that a bucket compares each new one with
BUCKET_ROWS = 4_096  # rows a hash table: 100 kB of keys, documents and slots
SPREAD = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True, nogil=True, inline="always")
def table_bits(count, least):
    """b of the hash table with 2**b slots, at least twice `count`; b is `least` or more."""
    bits = least
    while (1 << bits) < 2 * count:
        bits += 1
    return bits


@numba.njit(cache=True, nogil=True)
def scattered(keys, documents, bits):
    """(keys, documents, offsets) grouped by the low `bits` bits of the key, else in order."""
    mask = np.uint64((1 << bits) - 1)
    offsets = np.zeros((1 << bits) + 1, np.int64)
    for k in range(keys.shape[0]):
        offsets[np.int64(keys[k] & mask) + 1] += 1
    for k in range(1 << bits):
        offsets[k + 1] += offsets[k]
    at = offsets.copy()
    out, names = np.empty_like(keys), np.empty_like(documents)
    for k in range(keys.shape[0]):
        part = np.int64(keys[k] & mask)
        out[at[part]] = keys[k]
        names[at[part]] = documents[k]
        at[part] += 1
    return out, names, offsets


@numba.njit(cache=True, nogil=True)
def equal_keys(keys, documents, offsets):
    """(members, starts): the documents of each key that two or more have, in the order given.

    keys and documents: as `scattered` gives them.
    """
    largest = 0
    for part in range(offsets.shape[0] - 1):
        largest = max(largest, offsets[part + 1] - offsets[part])
    bits = table_bits(largest, 4)
    slots = np.empty(1 << bits, np.int32)
    head, size = np.empty(largest, np.int32), np.empty(largest, np.int32)
    place = np.empty(largest, np.int64)
    members = np.empty_like(documents)
    starts = np.empty(documents.shape[0] // 2 + 2, np.int64)
    starts[0] = 0
    groups = filled = 0
    for part in range(offsets.shape[0] - 1):
        first, count = offsets[part], offsets[part + 1] - offsets[part]
        bits = table_bits(count, 4)
        shift, mask = np.uint64(64 - bits), (1 << bits) - 1
        for k in range(1 << bits):
            slots[k] = -1
        for k in range(count):
            slot = np.int64((keys[first + k] * SPREAD) >> shift)
            while slots[slot] >= 0 and keys[first + slots[slot]] != keys[first + k]:
                slot = (slot + 1) & mask
            if slots[slot] < 0:
                slots[slot] = k
                size[k] = 0
            head[k] = slots[slot]
            size[slots[slot]] += 1
        for k in range(count):
            if head[k] == k and size[k] > 1:
                place[k] = filled - first
                filled += size[k]
                groups += 1
                starts[groups] = filled
            if size[head[k]] > 1:
                members[first + place[head[k]]] = documents[first + k]
                place[head[k]] += 1
    return members[:filled], starts[: groups + 1]


@numba.njit(cache=True, nogil=True)
def bucket_pairs(members, starts, shards):
    """uint64[2, pairs]: first and second documents, first < second, of each bucket, grouped by the
    text shard of the first.

    Members of large buckets must be in star order, and documents of earlier results (of a shard
    from `shards` on) the last of each bucket; no two of those make a pair.
    """
    own = np.uint64(shards) << np.uint64(ROW_BITS)
    at = np.zeros(shards + 1, np.int64)
    pairs = np.empty((2, 0), np.uint64)
    for fill in range(2):
        for group in range(starts.shape[0] - 1):
            start, stop = starts[group], starts[group + 1]
            new = start
            while new < stop and members[new] < own:
                new += 1
            large = stop - start > ALL_PAIRS
            last = min(stop, new + EARLIER)
            for j in range(start, new):
                i = start
                while i < last:
                    if i == j:  # go on with the earlier ones
                        i = new
                        continue
                    if i < j and large and i == start + ANCHORS and i < j - WINDOW:
                        i = j - WINDOW
                    low, high = min(members[i], members[j]), max(members[i], members[j])
                    i += 1
                    if low == high:  # two equal band keys of one document
                        continue
                    shard = np.int64(low >> np.uint64(ROW_BITS))
                    if fill:
                        pairs[0, at[shard]], pairs[1, at[shard]] = low, high
                        at[shard] += 1
                    else:
                        at[shard + 1] += 1
        if not fill:
            for k in range(shards):
                at[k + 1] += at[k]
            pairs = np.empty((2, at[shards]), np.uint64)
    return pairs


@numba.njit(cache=True, nogil=True)
def distinct_pairs(first, second, rows):
    """(row int64, second uint64) of the pairs of one shard, each once, by rising row."""
    at = np.zeros(rows + 1, np.int64)
    row_mask = np.uint64((1 << ROW_BITS) - 1)
    for k in range(first.shape[0]):
        at[np.int64(first[k] & row_mask) + 1] += 1
    widest = 0
    for row in range(rows):
        widest = max(widest, at[row + 1])
        at[row + 1] += at[row]
    starts = at.copy()
    grouped = np.empty_like(second)
    for k in range(first.shape[0]):
        home = np.int64(first[k] & row_mask)
        grouped[at[home]] = second[k]
        at[home] += 1
    bits = table_bits(widest, 2)
    slots = np.empty(1 << bits, np.uint64)
    out_rows = np.empty(first.shape[0], np.int64)
    filled = 0
    for row in range(rows):
        count = starts[row + 1] - starts[row]
        bits = table_bits(count, 2)
        shift, mask = np.uint64(64 - bits), (1 << bits) - 1
        for k in range(1 << bits if count else 0):
            slots[k] = 0  # no second document has the name 0
        for k in range(starts[row], starts[row + 1]):
            other = grouped[k]
            slot = np.int64((other * SPREAD) >> shift)
            while slots[slot] != 0 and slots[slot] != other:
                slot = (slot + 1) & mask
            if slots[slot] == 0:
                slots[slot] = other
                grouped[filled], out_rows[filled] = other, row
                filled += 1
    return out_rows[:filled], grouped[:filled]
