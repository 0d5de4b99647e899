"""The decision shard of one text shard, from its slices of `drops.npy` and `clusters.npy`.

Documents of earlier results and, under closure, the Jaccard of pairs without an edge are looked up
here. Memory: the decisions of one shard, 60 bytes a row, and what `near/verify.py` states.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute

from data_jobs.keyed import read_records
from data_jobs.near.drops import NOTHING, rows_of, shard_slice, shards_of
from data_jobs.near.order import orders_of
from data_jobs.near.plan import Plan, read_plan
from data_jobs.near.sets import Texts
from data_jobs.near.verify import edges_name, true_jaccard
from data_jobs.paragraphs import REASON as REPEATED
from data_jobs.paragraphs import shard_cuts
from data_jobs.shards import decision_name, finished_result, halves, reason_info, write_table
from data_jobs.survivors import CLUSTERS, DROPS
from data_jobs.units import Item
from mutirao.core.schemas import NEARDUP, read_ipc

REASON = "near-duplicate"


def decide_unit(item: Item) -> Item:
    plan, shard = read_plan(item), item["shard"]
    directory, name = Path(plan.directory), decision_name("neardup", shard)
    if (finished := finished_result(directory, name)) is not None:
        return finished
    drops = shard_slice(read_records(directory / DROPS), shard)
    clusters = shard_slice(read_records(directory / CLUSTERS), shard)
    columns = {**drop_columns(plan, shard, drops), **cluster_columns(plan, shard, clusters)}
    table = with_paragraphs(columns, plan.shards[shard].rows, item)
    info = reason_info(table.column("reason").combine_chunks())
    return {"part": vars(write_table(directory, name, table, info))}


def drop_columns(plan: Plan, shard: int, drops: np.ndarray) -> dict[str, pa.Array]:
    rows = plan.shards[shard].rows
    at = rows_of(drops["document"])
    own = drops["other"] != NOTHING
    jaccard = drops["jaccard"].copy()
    ids = np.zeros((len(drops), 2), np.uint64)
    orders = orders_of(plan, drops["other"][own])
    ids[own, 0], ids[own, 1] = orders["high"], orders["low"]
    against, jaccard[~own], ids[~own] = earlier_matches(plan, shard, at[~own])
    fill_jaccard(plan, shard, drops, own, jaccard)
    other, other_row = shards_of(drops["other"]), rows_of(drops["other"])
    return {
        "reason": spread(rows, at, pa.array([REASON] * len(at), pa.string())),
        "duplicate_of_shard": spread(rows, at[own], pa.array(other[own], pa.int32())),
        "duplicate_of_row": spread(rows, at[own], pa.array(other_row[own], pa.int32())),
        "duplicate_of_id": spread(rows, at, id_array(ids)),
        "against": spread(rows, at[~own], pa.array(against, pa.int32())),
        "jaccard": spread(rows, at, pa.array(jaccard, pa.float32())),
    }


def earlier_matches(
    plan: Plan, shard: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(against, jaccard, id halves) of the nearest earlier document of each of `rows`; of several
    the first in the order of results, shards and rows."""
    edges = read_ipc(Path(plan.directory) / edges_name(shard), "edges")
    names = ("row", "against", "jaccard", "other_shard", "other_row")
    row, against, jaccard, other, other_row = (edges.column(name).to_numpy() for name in names)
    found = np.flatnonzero(against >= 0)
    order = found[np.lexsort((other_row[found], other[found], against[found], -jaccard[found],
                              row[found]))]  # fmt: skip
    nearest, first = np.unique(row[order], return_index=True)
    chosen = order[first][np.searchsorted(nearest, rows)]
    ids = np.zeros((len(rows), 2), np.uint64)
    places = {(place.against, place.number): place.text for place in plan.earlier}
    for number, text in sorted(places.items()):
        mine = np.flatnonzero((against[chosen] == number[0]) & (other[chosen] == number[1]))
        if len(mine):
            high, low = halves(read_ipc(Path(text), "text").column("id"))
            at = other_row[chosen[mine]]
            ids[mine, 0], ids[mine, 1] = high[at], low[at]
    return against[chosen], jaccard[chosen], ids


def fill_jaccard(
    plan: Plan, shard: int, drops: np.ndarray, own: np.ndarray, jaccard: np.ndarray
) -> None:
    """Compute the Jaccard of pairs that no edge joins (closure)."""
    open_ones = np.flatnonzero(own & np.isnan(drops["jaccard"]))
    others = drops["other"][open_ones]
    mine = Texts(plan.shards[shard].text) if len(open_ones) else None
    for number in np.unique(shards_of(others)):
        chosen = open_ones[shards_of(others) == number]
        rows, other_rows = rows_of(drops["document"][chosen]), rows_of(drops["other"][chosen])
        theirs = Texts(plan.shard(int(number)).text)
        assert mine is not None
        jaccard[chosen] = true_jaccard(mine, rows, theirs, other_rows, plan.ngram)


def cluster_columns(plan: Plan, shard: int, clusters: np.ndarray) -> dict[str, pa.Array]:
    rows, at = plan.shards[shard].rows, rows_of(clusters["document"])
    return {
        "cluster": spread(rows, at, pa.array(clusters["cluster"].astype(np.uint64), pa.uint64())),
        "cluster_size": spread(rows, at, pa.array(clusters["size"].astype(np.int32), pa.int32())),
    }


def spread(rows: int, at: np.ndarray, values: pa.Array) -> pa.Array:
    """An array of `rows` values: values[k] at at[k], null elsewhere."""
    index = np.zeros(rows, np.int64)
    index[at] = np.arange(len(at))
    empty = np.ones(rows, bool)
    empty[at] = False
    return values.take(pa.array(index, mask=empty))


def id_array(halves_of: np.ndarray) -> pa.Array:
    """binary(16) of uint64[ids, 2], big endian."""
    raw = pa.py_buffer(np.ascontiguousarray(halves_of, ">u8").tobytes())
    return pa.Array.from_buffers(pa.binary(16), len(halves_of), [None, raw])


def with_paragraphs(columns: dict[str, pa.Array], rows: int, item: Item) -> pa.Table:
    """The decision table; where repeated paragraphs were looked for, with what they leave."""
    if "paragraphs" in item:
        spans, gone = shard_cuts(item["paragraphs"], Path(item["plan"]).parent, rows)
        gone &= columns["reason"].is_null().to_numpy(zero_copy_only=False)
        columns["spans"] = spans
        columns["reason"] = pa.compute.if_else(pa.array(gone), REPEATED, columns["reason"])
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in NEARDUP]
    return pa.Table.from_arrays(arrays, schema=NEARDUP)
