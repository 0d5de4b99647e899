"""The order in which documents stay ("star order"), the same for any partitioning of the corpus.

First by the place of the document's source in `exact.prefer` (sources not named there are last),
then by `neardup.quality` (the higher first, documents without a value last), then the longer, then
the smaller id. `orders-00000.npy` has 40 bytes for each row of a text shard and is mapped where
it is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from data_jobs.keyed import read_records
from data_jobs.near.drops import rows_of, shards_of
from data_jobs.near.plan import Plan, Shard
from data_jobs.shards import byte_lengths, halves
from mutirao.core.schemas import read_ipc

# rank: place in `prefer`, then quality; short: 2**32 - 1 - bytes of text; id: big endian halves;
# hash: first half of `exact.hash` (HASH64), not part of the order
ORDER = np.dtype(
    [("rank", "<u8"), ("short", "<u4"), ("pad", "<u4"), ("high", "<u8"), ("low", "<u8"),
     ("hash", "<u8")]
)  # fmt: skip
LAST = 0xFFFFFFFF
WORDS = ORDER.itemsize // 8


def orders_name(shard: int) -> str:
    return f"orders-{shard:05d}.npy"


def order_records(table: pa.Table, place: Shard, quality: str) -> np.ndarray:
    """ORDER records of the rows of one text shard."""
    records = np.zeros(table.num_rows, ORDER)
    records["rank"] = np.uint64(place.prefer << 32)
    if quality:
        records["rank"] |= falling(quality_of(place, quality))
    start = 0
    for batch in table.to_batches():
        some = records[start : start + batch.num_rows]
        some["short"] = LAST - np.minimum(byte_lengths(batch.column("text")), LAST)
        some["high"], some["low"] = halves(batch.column("id"))
        start += batch.num_rows
    records["hash"] = records["high"]
    if "exact" in place.decisions:
        digest = read_ipc(Path(place.decisions["exact"]), "decision.exact").column("hash")
        records["hash"] = halves(digest)[0]
    return records


def quality_of(place: Shard, quality: str) -> np.ndarray:
    """float32[rows], NaN where the document has no value: a column or a score of `filter`."""
    table = read_ipc(Path(place.decisions["filter"]), "decision.filter")
    if quality in table.column_names:
        column = table.column(quality).combine_chunks().cast(pa.float32())
    else:
        rows = table.column("scores").to_pylist()
        column = pa.array([dict(row or ()).get(quality) for row in rows], pa.float32())
    return column.fill_null(float("nan")).to_numpy(zero_copy_only=False)


def falling(values: np.ndarray) -> np.ndarray:
    """uint64 below 2**32 that rise as the float32 values fall; NaN is the last."""
    bits = np.where(values == 0, np.float32(0), values).astype(np.float32).view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32)
    return np.where(np.isnan(values), np.uint32(LAST), ~rising).astype(np.uint64)


def orders_of(plan: Plan, documents: np.ndarray) -> np.ndarray:
    """ORDER records of documents of this corpus."""
    found = np.empty((len(documents), WORDS), np.uint64)
    for shard, mine in by_shard(documents):
        found[mine] = order_words(plan, shard)[rows_of(documents[mine])]
    return found.view(ORDER).reshape(-1)


def order_words(plan: Plan, shard: int) -> np.ndarray:
    """uint64[rows, WORDS]: the ORDER records of a text shard, mapped into memory; the first four
    words are the order."""
    records = np.asarray(read_records(Path(plan.directory) / orders_name(shard)))
    return records.view(np.uint64).reshape(-1, WORDS)


def by_shard(documents: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(shard, indices of its documents), by rising shard."""
    shards = shards_of(documents)
    order = np.argsort(shards.astype(np.uint32), kind="stable")
    borders = np.flatnonzero(np.diff(shards[order])) + 1
    for mine in np.split(order, borders) if len(order) else ():
        yield int(shards[mine[0]]), mine


def sorting(orders: np.ndarray, *before: np.ndarray) -> np.ndarray:
    """Indices that sort by `before` (the first counts most), then by star order."""
    keys = [orders[name] for name in ("low", "high", "short", "rank")]
    return np.lexsort((*keys, *reversed(before)))


@numba.njit(cache=True, nogil=True)
def comes_first(one, rows, other, other_rows):
    """uint8[n]: is row rows[k] of `one` before row other_rows[k] of `other`, in star order?
    one, other: as `order_words` gives them."""
    out = np.zeros(rows.shape[0], np.uint8)
    for k in range(rows.shape[0]):
        for word in range(4):
            x, y = one[rows[k], word], other[other_rows[k], word]
            if x != y:
                out[k] = x < y
                break
    return out
