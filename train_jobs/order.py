"""A stream's training order as arithmetic: place in an epoch -> sequence number, in O(1) memory.

A keyed permutation in two levels: blocks of 65,536 sequences are permuted, then the sequences
inside a block, so reads stay within a window of the file (268 MB at 2,048 tokens of uint16) while
any place is found without walking to it. At 1T tokens (490 million sequences of 2,048) nothing
grows: a place costs two permutations.
"""

from __future__ import annotations

import hashlib

import numpy as np

BLOCK = 65_536  # sequences
ROUNDS = 4


def order(place: np.ndarray, count: int, key: str) -> np.ndarray:
    """Two-level keyed permutation of range(count): place in the epoch -> sequence number.

    The short block at the end of the range comes last; the range is rotated by a keyed amount, so
    it is another stretch of the data in each epoch.
    """
    place = np.asarray(place, dtype=np.int64)
    blocks, rest = divmod(count, BLOCK)
    block, inside = place // BLOCK, place % BLOCK
    found = np.empty_like(place)
    for number in np.unique(block):
        here = block == number
        full = number < blocks
        target = permute(np.array([number]), blocks, f"{key}/blocks")[0] if full else number
        size = BLOCK if full else rest
        found[here] = target * BLOCK + permute(inside[here], size, f"{key}/block/{target}")
    return (found + int(_keys(f"{key}/rotate")[0] % np.uint64(count))) % count


def permute(index: np.ndarray, count: int, key: str) -> np.ndarray:
    """A keyed bijection of range(count): balanced Feistel network, walked until inside the range.

    Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002), cycle walking; the
    round function is the finalizer of splitmix64. At most four times `count` is walked over.
    """
    half = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = _keys(key)
    value = np.asarray(index, dtype=np.uint64)
    outside = np.ones(value.shape, dtype=bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        value[outside] = (left << half) | right
        outside = value >= count
    return value.astype(np.int64)


def _keys(key: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u8")[:ROUNDS].copy()


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
