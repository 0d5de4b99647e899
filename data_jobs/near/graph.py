"""The graph of verified edges in few bytes a document: numbering, components, the star rule.

Documents with an edge are numbered by a bitmap with counts (0.2 bytes a document of the corpus);
components are a union-find of 4 bytes, the star rule a byte, for each document that has an edge.
Star rule: in star order a document is dropped if it has an edge to one that stays. That is the
lexicographically first maximal independent set; the rounds here find it by passes over the edges in
any order (Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and matching are
parallel on average", SPAA 2012).
"""

from __future__ import annotations

import numpy as np

from data_jobs.kernels import numba

OPEN, KEPT, DROPPED, EARLIER = 0, 1, 2, 3  # EARLIER: dropped for a document of an earlier result
BLOCKED = 4  # this round: an earlier neighbour is still open
NONE = 0xFFFFFFFF


@numba.njit(cache=True, nogil=True)
def mark(bits, index):
    """Set the bits of `index` (int64) in the bitmap uint64[]."""
    for k in range(index.shape[0]):
        bits[index[k] >> 6] |= np.uint64(1) << np.uint64(index[k] & 63)


@numba.njit(cache=True, nogil=True, inline="always")
def ones(word):
    """The number of bits that are set in a uint64."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(cache=True, nogil=True)
def counted(bits):
    """uint32[words + 1]: how many bits are set before each word of the bitmap."""
    before = np.zeros(bits.shape[0] + 1, np.uint32)
    total = 0
    for k in range(bits.shape[0]):
        total += ones(bits[k])
        before[k + 1] = total
    return before


@numba.njit(cache=True, nogil=True)
def numbers(bits, before, index):
    """uint32[]: the number of each set bit of `index`."""
    out = np.empty(index.shape[0], np.uint32)
    for k in range(index.shape[0]):
        word = index[k] >> 6
        below = bits[word] & ((np.uint64(1) << np.uint64(index[k] & 63)) - np.uint64(1))
        out[k] = before[word] + ones(below)
    return out


@numba.njit(cache=True, nogil=True)
def places(bits, before, wanted):
    """int64[]: the bit that has each number of `wanted` (uint32)."""
    out = np.empty(wanted.shape[0], np.int64)
    for k in range(wanted.shape[0]):
        low, high = 0, bits.shape[0]
        while high - low > 1:
            middle = (low + high) >> 1
            if before[middle] <= wanted[k]:
                low = middle
            else:
                high = middle
        word, left = bits[low], np.int64(wanted[k]) - np.int64(before[low])
        for _ in range(left):
            word &= word - np.uint64(1)
        lowest = word & (~word + np.uint64(1))
        out[k] = (low << 6) + ones(lowest - np.uint64(1))
    return out


@numba.njit(cache=True, nogil=True)
def join(parent, ends):
    """Union-find over edges uint32[edges, 2]; a root is the smallest number of its component."""
    for k in range(ends.shape[0]):
        x, y = ends[k, 0], ends[k, 1]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        else:
            parent[x] = y


@numba.njit(cache=True, nogil=True)
def label(parent):
    """Turn parents into component numbers 0, 1, ... in place; returns how many there are."""
    components = 0
    for k in range(parent.shape[0]):
        if parent[k] == k:
            parent[k] = components
            components += 1
        else:
            parent[k] = parent[parent[k]]  # a parent is smaller: it is a number already
    return components


@numba.njit(cache=True, nogil=True)
def measure(component, hashes, start, least, size):
    """Take documents start, start + 1, ... with their hashes into their components' measures."""
    for k in range(hashes.shape[0]):
        c = component[start + k]
        least[c] = min(least[c], hashes[k])
        size[c] += 1


@numba.njit(cache=True, nogil=True)
def star_round(state, ends):
    """One pass of the star rule over edges (earlier, later); returns how many edges still matter:
    they are moved to the front."""
    for k in range(ends.shape[0]):
        early, late = state[ends[k, 0]], state[ends[k, 1]]
        if late & 3 == OPEN:
            if early == KEPT:
                state[ends[k, 1]] = DROPPED
            elif early & 3 == OPEN:
                state[ends[k, 1]] = BLOCKED
    for v in range(state.shape[0]):
        if state[v] == OPEN:
            state[v] = KEPT
        elif state[v] == BLOCKED:
            state[v] = OPEN
    left = 0
    for k in range(ends.shape[0]):
        early, late = state[ends[k, 0]], state[ends[k, 1]]
        if late == OPEN and early <= KEPT:
            ends[left, 0], ends[left, 1] = ends[k, 0], ends[k, 1]
            left += 1
    return left


@numba.njit(cache=True, nogil=True)
def nearest(state, one, other, jaccard, best):
    """For each dropped document the highest Jaccard of its edges to documents that stay."""
    for k in range(one.shape[0]):
        a, b = one[k], other[k]
        if state[a] == KEPT and state[b] == DROPPED:
            best[b] = max(best[b], jaccard[k])
        elif state[b] == KEPT and state[a] == DROPPED:
            best[a] = max(best[a], jaccard[k])


@numba.njit(cache=True, nogil=True)
def name_nearest(state, one, other, jaccard, best, chosen):
    """Note in `chosen` a kept document at the highest Jaccard; returns (dropped, kept) of the
    further ones that are as near."""
    again = np.empty((2, one.shape[0]), np.uint32)
    ties = 0
    for k in range(one.shape[0]):
        a, b = one[k], other[k]
        if state[a] == KEPT:
            a, b = b, a
        if state[a] == DROPPED and state[b] == KEPT and jaccard[k] == best[a]:
            if chosen[a] == NONE:
                chosen[a] = b
            else:
                again[0, ties], again[1, ties] = a, b
                ties += 1
    return again[0, :ties], again[1, :ties]


@numba.njit(cache=True, nogil=True)
def behind(state, ends, late):
    """Mark in `late` the documents with an edge to an earlier one of this corpus that may stay."""
    for k in range(ends.shape[0]):
        if state[ends[k, 0]] != EARLIER:
            late[ends[k, 1]] = 1


@numba.njit(cache=True, nogil=True)
def known(state, one, other, jaccard, chosen, best):
    """Note the Jaccard of edges that lead to the document chosen for the other end."""
    for k in range(one.shape[0]):
        a, b = one[k], other[k]
        if state[a] == DROPPED and chosen[a] == b:
            best[a] = jaccard[k]
        elif state[b] == DROPPED and chosen[b] == a:
            best[b] = jaccard[k]
