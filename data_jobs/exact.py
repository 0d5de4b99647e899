"""Stage exact: drop documents that are equal after normalisation; the first (shard, row) stays.

In: text shards. Out: decision shards `exact-00000.arrow` with each row's hash (xxh3-128 of the
normalised text) and, where dropped, the row that stays. Two bounded passes: hashes per text shard,
sorted by hash; then first occurrences per key range. At 1T tokens (2.4 billion documents) the hash
files hold 24 bytes a document, 58 GB, and are read once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from data_jobs.keyed import (
    finished_records,
    key_slice,
    range_bounds,
    range_count,
    read_records,
    remove_records,
    write_records,
)
from data_jobs.shards import (
    decision_counts,
    decision_name,
    finished_result,
    parts_of,
    reason_info,
    shard_items,
    text_batches,
    write_table,
)
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part
from mutirao.core.schemas import EXACT

HASH = np.dtype([("key", "<u8"), ("low", "<u8"), ("row", "<u4"), ("pad", "<u4")])
FIRST = np.dtype([("shard", "<u4"), ("row", "<u4"), ("of_shard", "<u4"), ("of_row", "<u4")])
SPACE = re.compile(r"\s+")


def run(job: StageJob) -> StageResult:
    common = {"directory": str(job.directory), "normalize": job.recipe.exact.normalize}
    shards = [{**item, **common} for item in shard_items(job.inputs, ())]
    hashed = run_units(job, shards, hash_unit, "hashing")
    ranges = range_count(sum(r["part"]["rows"] for r in hashed) * (HASH.itemsize + 8))
    task = {**common, "ranges": ranges, "shards": len(shards)}
    tasks = [{**task, "range": number} for number in range(ranges)]
    found = run_units(job, tasks, group_unit, "grouping")
    decided = run_units(job, [{**s, "ranges": ranges} for s in shards], decide_unit, "deciding")
    notes = {"cpu_s": cpu_seconds(hashed + found + decided)}
    remove_records(job.directory, hashed + found)
    return StageResult(parts_of(decided), decision_counts(decided), {}, notes)


def hash_name(shard: int) -> str:
    return f"hashes-{shard:05d}.npy"


def group_name(number: int) -> str:
    return f"groups-{number:05d}.npy"


def normalized(text: str, how: str) -> str:
    """'none': as it is; 'whitespace': runs of it are one space; 'casefold': also without case."""
    if how == "none":
        return text
    text = SPACE.sub(" ", text).strip()
    return text.casefold() if how == "casefold" else text


def hash_unit(item: Item) -> Item:
    """Hashes of one text shard, sorted."""
    directory, name = Path(item["directory"]), hash_name(item["shard"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    digests = hashes_of(Path(item["text"]), item["normalize"])
    records = np.zeros(len(digests), HASH)
    pairs = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
    records["key"], records["low"] = pairs[:, 0], pairs[:, 1]
    records["row"] = np.arange(len(digests))
    records.sort(order=["key", "low", "row"])
    return {"part": vars(write_records(directory, name, records))}


def hashes_of(path: Path, how: str) -> list[bytes]:
    """The 16-byte hash of each row's normalised text."""
    return [
        xxhash.xxh3_128_digest(normalized(text, how).encode())
        for batch in text_batches(path)
        for text in batch.column("text").to_pylist()
    ]


def group_unit(item: Item) -> Item:
    """One key range over all shards: for each later occurrence, the first one."""
    directory, name = Path(item["directory"]), group_name(item["range"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    low, high = range_bounds(item["range"], item["ranges"])
    keys, shards = [], []
    for shard in range(item["shards"]):
        found = key_slice(read_records(directory / hash_name(shard)), "key", low, high)
        keys.append(found)
        shards.append(np.full(len(found), shard, np.uint32))
    return {"part": vars(write_records(directory, name, first_of(keys, shards)))}


def first_of(keys: list[np.ndarray], shards: list[np.ndarray]) -> np.ndarray:
    """FIRST records of all rows but the first of each hash, sorted by (shard, row)."""
    key, shard = np.concatenate(keys), np.concatenate(shards)
    order = np.lexsort((key["row"], shard, key["low"], key["key"]))
    key, shard = key[order], shard[order]
    same = np.zeros(len(key), bool)
    same[1:] = (key["key"][1:] == key["key"][:-1]) & (key["low"][1:] == key["low"][:-1])
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(key))))
    later = np.flatnonzero(same)
    records = np.zeros(len(later), FIRST)
    records["shard"], records["row"] = shard[later], key["row"][later]
    records["of_shard"], records["of_row"] = shard[first[later]], key["row"][first[later]]
    records.sort(order=["shard", "row"])
    return records


def decide_unit(item: Item) -> Item:
    """The decision shard of one text shard."""
    directory, name = Path(item["directory"]), decision_name("exact", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    hashes = read_records(directory / hash_name(item["shard"]))
    shard = item["shard"]
    groups = [read_records(directory / group_name(number)) for number in range(item["ranges"])]
    later = [key_slice(group, "shard", shard, shard + 1) for group in groups]
    table = decisions(np.asarray(hashes), np.concatenate(later))
    info = reason_info(table.column("reason").combine_chunks())
    part: Part = write_table(directory, name, table, info)
    return {"part": vars(part)}


def decisions(hashes: np.ndarray, later: np.ndarray) -> pa.Table:
    rows = len(hashes)
    digest = np.zeros((rows, 2), ">u8")
    digest[hashes["row"], 0], digest[hashes["row"], 1] = hashes["key"], hashes["low"]
    raw = digest.tobytes()
    dropped = np.zeros(rows, bool)
    of = np.zeros((2, rows), np.int32)
    dropped[later["row"]] = True
    of[0, later["row"]], of[1, later["row"]] = later["of_shard"], later["of_row"]
    columns: list[Any] = [
        pa.array(np.where(dropped, "exact-duplicate", ""), pa.string(), mask=~dropped),
        pa.array([raw[i : i + 16] for i in range(0, len(raw), 16)], pa.binary(16)),
        pa.array(of[0], pa.int32(), mask=~dropped),
        pa.array(of[1], pa.int32(), mask=~dropped),
    ]
    return pa.Table.from_arrays(columns, schema=EXACT)
