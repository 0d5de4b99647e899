"""A range of band keys -> pairs of documents that share a key.

In: the slices of all band files in the range, of this corpus and of earlier results (of those only
documents that they kept). Out: `pairs-00000-of-00004.npy`, uint64[2, pairs] of first and second
documents, grouped by text shard of the first; the name holds the number of ranges, so that another
number on resume reads nothing of the old.
Memory: about 60 bytes a band row of the range, RANGE_BYTES of band files (12 bytes a row) at most
while there are no more ranges than the 4,096 parts of an index, and 16 bytes a pair; at 1T tokens
(43 billion band rows) a range has 10 million rows, 1 GB with its pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_jobs.keyed import finished_records, read_records, write_records
from data_jobs.near.drops import ROW_BITS
from data_jobs.near.groups import (
    ALL_PAIRS,
    BUCKET_ROWS,
    bucket_pairs,
    equal_keys,
    scattered,
)
from data_jobs.near.index import PARTS, bands_name, read_bands
from data_jobs.near.order import orders_of, sorting
from data_jobs.near.plan import Plan, Shard, read_plan
from data_jobs.shards import kept_rows
from data_jobs.units import Item

RANGE_BYTES = 32_000_000


def range_count(band_bytes: int) -> int:
    return max(1, min(PARTS, -(-band_bytes // RANGE_BYTES)))


def pairs_name(number: int, ranges: int) -> str:
    return f"pairs-{number:05d}-of-{ranges:05d}.npy"


def earlier_name(number: int) -> str:
    return f"earlier-{number:05d}.npy"


def earlier_unit(item: Item) -> Item:
    """Which rows of one text shard of an earlier result were kept there, as bool[rows]."""
    plan, number = read_plan(item), item["shard"]
    directory, name = Path(plan.directory), earlier_name(number)
    if (finished := finished_records(directory, name)) is not None:
        return finished
    place = plan.shard(number)
    return {"part": vars(write_records(directory, name, kept_rows(place.rows, place.decisions)))}


def candidate_unit(item: Item) -> Item:
    """The pairs of one key range. A pair that shares several keys stands there several times."""
    plan, number, ranges = read_plan(item), item["range"], item["ranges"]
    directory, name = Path(plan.directory), pairs_name(number, ranges)
    if (finished := finished_records(directory, name)) is not None:
        return finished
    keys, documents = band_rows(plan, number * PARTS // ranges, (number + 1) * PARTS // ranges)
    bits = max(0, int(len(keys) // BUCKET_ROWS).bit_length())
    members, starts = equal_keys(*scattered(keys, documents, bits))
    del keys, documents
    own = len(plan.shards)
    put_giants_in_order(plan, members, starts)
    return {"part": vars(write_records(directory, name, bucket_pairs(members, starts, own)))}


def band_rows(plan: Plan, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys, documents) uint64 of the parts [low, high) of all band files, in shard order."""
    keys, documents = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for number in range(len(plan.shards) + len(plan.earlier)):
        place = plan.shard(number)
        some, rows, offsets = read_bands(_bands_path(plan, number, place))
        some, rows = some[offsets[low] : offsets[high]], rows[offsets[low] : offsets[high]]
        if place.against >= 0:
            kept = read_records(Path(plan.directory) / earlier_name(number))[rows]
            some, rows = some[kept], rows[kept]
        keys.append(some)
        documents.append(rows.astype(np.uint64) | np.uint64(number << ROW_BITS))
    return np.concatenate(keys), np.concatenate(documents)


def _bands_path(plan: Plan, number: int, place: Shard) -> Path:
    return Path(place.bands or Path(plan.directory) / bands_name(number))


def put_giants_in_order(plan: Plan, members: np.ndarray, starts: np.ndarray) -> None:
    """Sort the members of each bucket of more than ALL_PAIRS by star order, those of earlier
    results behind them in their own order."""
    sizes = np.diff(starts)
    giants = np.flatnonzero(sizes > ALL_PAIRS)
    if not len(giants):
        return
    group = np.repeat(np.arange(len(giants)), sizes[giants])
    inside = np.arange(len(group)) - np.repeat(
        np.cumsum(sizes[giants]) - sizes[giants], sizes[giants]
    )
    at = np.repeat(starts[giants], sizes[giants]) + inside
    own = members[at] < np.uint64(len(plan.shards) << ROW_BITS)
    at, group = at[own], group[own]  # the earlier ones are behind already: their names are larger
    members[at] = members[at][sorting(orders_of(plan, members[at]), group)]
