"""Stage exact: drop documents that are equal after normalisation; the first one stays.

In: text shards, and the decisions of langid and filter: a document that they drop takes no part,
for it must not stay in the place of an equal one that they keep (case, genre and licence can differ
between the two). Out: decision shards `exact-00000.arrow` with each row's hash (xxh3-128 of the
normalised text) and, where dropped, the row that stays: the first in the order of `exact.prefer`,
then of the ids, whatever the order of files and the partitioning. Two bounded passes: hashes per
text shard, sorted by hash; then first occurrences per key range (`firsts`, with their memory).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.firsts import (
    RECORD_MEMORY,
    first_of_run,
    later_unit,
    remove_scratch,
    repeats,
    sorted_records,
)
from data_jobs.keyed import (
    finished_records,
    key_slice,
    range_count,
    read_records,
    write_records,
)
from data_jobs.normal_text import text_hashes
from data_jobs.shards import (
    decision_counts,
    decision_name,
    finished_result,
    halves,
    kept_rows,
    parts_of,
    reason_info,
    shard_items,
    text_batches,
    write_table,
)
from data_jobs.streams import check_prefer, rank_runs
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.job import StageJob, StageResult
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import EXACT, read_ipc

REASON = "exact-duplicate"
BEFORE = ("langid", "filter")


def run(job: StageJob) -> StageResult:
    """Raises RecipeError as `check` does."""
    check(job.recipe)
    common = {"directory": str(job.directory), "normalize": job.recipe.exact.normalize}
    shards = [{**item, **common} for item in shard_items(job.inputs, BEFORE)]
    hashed = run_units(job, shards, hash_unit, "hashing")
    ranges = range_count(sum(r["part"]["rows"] for r in hashed) * RECORD_MEMORY)
    task = {**common, "ranges": ranges, "ranks": rank_runs(job.inputs["clean"], job.recipe)}
    tasks = [{**task, "range": number} for number in range(ranges)]
    found = run_units(job, tasks, group_unit, "grouping")
    decided = run_units(job, [{**s, "ranges": ranges} for s in shards], decide_unit, "deciding")
    notes = {"cpu_s": cpu_seconds(hashed + found + decided)}
    remove_scratch(job.directory, ("digests-*", "hashes-*", "groups-*"))
    return StageResult(parts_of(decided), decision_counts(decided), {}, notes)


def check(recipe: Recipe) -> None:
    """Raises RecipeError for a source in `exact.prefer` that is not there."""
    check_prefer(recipe)


def hash_name(shard: int) -> str:
    return f"hashes-{shard:05d}.npy"


def digest_name(shard: int) -> str:
    return f"digests-{shard:05d}.npy"


def group_name(number: int, ranges: int) -> str:
    return f"groups-{number:05d}-of-{ranges:05d}.npy"


def hash_unit(item: Item) -> Item:
    """The hashes of one text shard (uint64[rows, 2]), and RECORDs of what was kept, sorted."""
    directory = Path(item["directory"])
    names = digest_name(item["shard"]), hash_name(item["shard"])
    finished = [finished_records(directory, name) for name in names]
    if finished[0] is not None and finished[1] is not None:
        return finished[1]
    path, how = Path(item["text"]), item["normalize"]
    found = [text_hashes(batch.column("text"), how) for batch in text_batches(path)]
    hashes = np.concatenate([np.zeros((0, 2), np.uint64), *found])
    ids = halves(read_ipc(path, "text").column("id"))[0]
    rows = np.flatnonzero(kept_rows(len(hashes), item["decisions"]))
    write_records(directory, names[0], hashes)
    records = sorted_records(hashes[rows], ids[rows], rows)
    return {"part": vars(write_records(directory, names[1], records))}


def group_unit(item: Item) -> Item:
    """One key range over all shards: LATER records."""
    return later_unit(item, group_name(item["range"], item["ranges"]), hash_name)


def decide_unit(item: Item) -> Item:
    """The decision shard of one text shard."""
    directory, name = Path(item["directory"]), decision_name("exact", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    shard, ranges = item["shard"], item["ranges"]
    groups = [read_records(directory / group_name(number, ranges)) for number in range(ranges)]
    later = np.concatenate([key_slice(group, "shard", shard, shard + 1) for group in groups])
    hashes, records = (read_records(directory / f(shard)) for f in (digest_name, hash_name))
    table = decisions(np.asarray(hashes), np.asarray(records), later, shard)
    info = reason_info(table.column("reason").combine_chunks())
    return {"part": vars(write_table(directory, name, table, info))}


def decisions(hashes: np.ndarray, records: np.ndarray, later: np.ndarray, shard: int) -> pa.Table:
    """EXACT rows of a text shard from its hashes uint64[rows, 2], the RECORDs of the rows that take
    part, and the LATER ones among them.

    A repeat inside the shard follows the first one there to where that one's first stands.
    """
    rows = len(hashes)
    digest = hashes.astype(">u8")
    of_shard, of_row = np.full(rows, shard, np.int32), np.arange(rows, dtype=np.int32)
    of_shard[later["row"]], of_row[later["row"]] = later["of_shard"], later["of_row"]
    first = records["row"][first_of_run(repeats(records))]
    of_shard[records["row"]], of_row[records["row"]] = of_shard[first], of_row[first]
    kept = (of_shard == shard) & (of_row == np.arange(rows))
    of_shard[kept] = of_row[kept] = 0
    nothing = pa.scalar(None, pa.string())
    columns = [
        pc.if_else(pa.array(kept), nothing, pa.scalar(REASON)),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(digest)]),
        pa.array(of_shard, pa.int32(), mask=kept),
        pa.array(of_row, pa.int32(), mask=kept),
    ]
    return pa.Table.from_arrays(columns, schema=EXACT)
