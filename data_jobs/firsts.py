"""Of records with the same 128-bit key, which is first: the shuffle of `exact` and `paragraphs`.

In: a file of RECORD for each text shard, sorted by key. Out: for a key range, LATER records: what
stood before and where. First is the lowest (rank of the shard's source, id, row, place), whatever
the order of files and the number of shards and ranges. Of one key only the first of each shard goes
into a range, so a text that stands a million times asks for no more than the number of shards.
Memory: RANGE_BYTES a range (RECORD_MEMORY a record). At 1T tokens (2.4 billion documents) the files
of `exact` hold 77 GB and are read once, in 600 ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.keyed import (
    finished_records,
    key_slice,
    range_bounds,
    read_records,
    write_records,
)
from data_jobs.streams import ranks_of

# key, low: the hash; id: first half (big endian) of the document's id, which is a hash too;
# at: place in the document.
RECORD = np.dtype([("key", "<u8"), ("low", "<u8"), ("id", "<u8"), ("row", "<u4"), ("at", "<u4")])
LATER = np.dtype([(name, "<u4") for name in ("shard", "row", "at", "of_shard", "of_row")])
RECORD_MEMORY = 2 * RECORD.itemsize  # with the keys and their order while they are sorted


def sorted_records(
    hashes: np.ndarray, ids: np.ndarray, rows: np.ndarray, at: np.ndarray | int = 0
) -> np.ndarray:
    """RECORD[n] of hashes uint64[n, 2] with the ids and rows they belong to, sorted by all fields.

    Sorting by the key alone and the few equal ones by the rest is 10 times as fast as by fields.
    """
    records = np.zeros(len(hashes), RECORD)
    records["key"], records["low"] = hashes[:, 0], hashes[:, 1]
    records["id"], records["row"], records["at"] = ids, rows, at
    records = records[np.argsort(records["key"])]
    equal = np.flatnonzero(_in_runs(records["key"]))
    some = records[equal]
    records[equal] = some[np.lexsort([some[name] for name in reversed(RECORD.names or ())])]
    return records


def repeats(records: np.ndarray) -> np.ndarray:
    """bool[n]: is the hash that of the record before? False for the first of each."""
    same = np.zeros(len(records), bool)
    key, low = records["key"], records["low"]
    same[1:] = (key[1:] == key[:-1]) & (low[1:] == low[:-1])
    return same


def later_ones(files: Sequence[Path], ranks: Sequence[int], low: int, high: int) -> np.ndarray:
    """LATER records of a key range, sorted: the firsts of each shard that are not the first of all.

    files, ranks: of each text shard. A shard's own repeats are no part of it.
    """
    slices = []
    for path in files:
        found = key_slice(read_records(path), "key", low, high)
        slices.append(found[~repeats(found)])
    shard = np.repeat(np.arange(len(files), dtype=np.uint32), [len(one) for one in slices])
    records = np.concatenate([np.zeros(0, RECORD), *slices])
    del slices
    order = np.argsort(records["key"])
    order = order[_in_runs(records["key"][order])]
    records, shard = records[order], shard[order]
    rank = np.asarray(ranks, np.uint32)[shard]
    fields = ("at", "row", "id", "low", "key")
    at, row, identity, second, key = (records[name] for name in fields)
    order = np.lexsort((at, row, shard, identity, rank, second, key))
    return _later(records[order], shard[order])


def later_unit(item: dict[str, Any], name: str, file_name: Callable[[int], str]) -> dict[str, Any]:
    """One key range over all shards, as a unit: writes LATER records to `name`.

    item: directory, range, ranges, ranks (`streams.rank_runs`); file_name: of a shard's RECORDs.
    """
    directory = Path(item["directory"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    low, high = range_bounds(item["range"], item["ranges"])
    ranks = ranks_of(item["ranks"])
    files = [directory / file_name(shard) for shard in range(len(ranks))]
    return {"part": vars(write_records(directory, name, later_ones(files, ranks, low, high)))}


def remove_scratch(directory: Path, patterns: Sequence[str]) -> None:
    """Give back the disk of the passes' files, also of an attempt with another number of ranges."""
    for pattern in patterns:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)


def _later(records: np.ndarray, shard: np.ndarray) -> np.ndarray:
    same = repeats(records)
    later = np.flatnonzero(same)
    first = first_of_run(same)[later]
    found = np.zeros(len(later), LATER)
    found["shard"], found["of_shard"] = shard[later], shard[first]
    found["row"], found["of_row"] = records["row"][later], records["row"][first]
    found["at"] = records["at"][later]
    return found[np.lexsort((found["at"], found["row"], found["shard"]))]


def first_of_run(same: np.ndarray) -> np.ndarray:
    """int64[n]: the index of the first record of each one's run."""
    return np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))


def _in_runs(keys: np.ndarray) -> np.ndarray:
    """bool[n]: has one of the neighbours in `keys` (sorted) the same key?"""
    found = np.zeros(len(keys), bool)
    equal = keys[1:] == keys[:-1]
    found[1:] |= equal
    found[:-1] |= equal
    return found
