"""Candidate pairs -> verified edges, with their true Jaccard.

In: the pairs whose first document lies in one text shard. Out: `edges-00000.arrow` (public), and
`turns-00000.npy`: for each edge, is its second document before the first in star order?
A pair is dropped where the estimate from the two signatures lies more than SLACK below the
threshold (four standard errors at 90 permutations), else its texts are fetched and compared.
Memory: 16 bytes a pair, and the sets of CHUNK_BYTES of text on either side, whatever the size of a
shard: 32 MB of text make 45 MB of sets each as a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from data_jobs.keyed import finished_records, read_records, write_records
from data_jobs.near.candidates import pairs_name
from data_jobs.near.drops import ROW_BITS, rows_of, shards_of
from data_jobs.near.groups import distinct_pairs
from data_jobs.near.index import read_signatures, signatures_name
from data_jobs.near.order import by_shard, comes_first, order_words
from data_jobs.near.plan import Plan, read_plan
from data_jobs.near.sets import Texts, jaccards, shingle_sets
from data_jobs.shards import write_table
from data_jobs.units import Item
from mutirao.core.manifest import finished_part
from mutirao.core.schemas import EDGES

SLACK = 0.15
CHUNK_BYTES = 32_000_000
CHANCE = 1 / 256  # that one byte of two different minima is equal


def edges_name(shard: int) -> str:
    return f"edges-{shard:05d}.arrow"


def turns_name(shard: int) -> str:
    return f"turns-{shard:05d}.npy"


def verify_unit(item: Item) -> Item:
    """The verified edges of one text shard."""
    plan, shard = read_plan(item), item["shard"]
    directory = Path(plan.directory)
    edges = finished_part(directory, edges_name(shard))
    turns = finished_records(directory, turns_name(shard))
    if edges is not None and turns is not None:
        return {"part": vars(edges), "scratch": turns["part"]}
    rows, others = candidate_pairs(plan, shard, item["ranges"])
    candidates = len(rows)
    rows, others, jaccard = verified(plan, shard, rows, others)
    order = np.lexsort((others, rows))
    rows, others, jaccard = rows[order], others[order], jaccard[order]
    info = {"candidates": candidates, "edges": len(rows)}
    table = edge_table(plan, shard, rows, others, jaccard)
    edges = write_table(directory, edges_name(shard), table, info)
    records = write_records(directory, turns_name(shard), turned(plan, shard, rows, others))
    return {"part": vars(edges), "scratch": vars(records)}


def candidate_pairs(plan: Plan, shard: int, ranges: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, second document) of the shard's candidates, each once, by row."""
    low, high = shard << ROW_BITS, (shard + 1) << ROW_BITS
    first, second = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for number in range(ranges):
        pairs = np.asarray(read_records(Path(plan.directory) / pairs_name(number, ranges)))
        start, stop = np.searchsorted(pairs[0], np.array([low, high], np.uint64))
        first.append(pairs[0, start:stop])
        second.append(pairs[1, start:stop])
    return distinct_pairs(np.concatenate(first), np.concatenate(second), plan.shards[shard].rows)


def verified(
    plan: Plan, shard: int, rows: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, others, jaccard float64) of the pairs with a true Jaccard >= threshold."""
    mine = Texts(plan.shards[shard].text)
    signatures = read_signatures(Path(plan.directory) / signatures_name(shard))
    found = [(rows[:0], others[:0], np.zeros(0))]
    for number, chosen in by_shard(others):
        some, other = rows[chosen], others[chosen]
        likely = estimates(plan, signatures, number, some, other) >= plan.threshold - SLACK
        some, other = some[likely], other[likely]
        theirs = mine if number == shard else Texts(plan.shard(number).text)
        jaccard = true_jaccard(mine, some, theirs, rows_of(other), plan.ngram)
        edge = jaccard >= plan.threshold
        found.append((some[edge], other[edge], jaccard[edge]))
    one, two, three = zip(*found, strict=True)
    return np.concatenate(one), np.concatenate(two), np.concatenate(three)


def estimates(
    plan: Plan, signatures: np.ndarray, number: int, rows: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """float64[pairs]: Jaccard as the bytes of the signatures tell it."""
    path = plan.shard(number).signatures or Path(plan.directory) / signatures_name(number)
    equal = equal_bytes(signatures, rows, read_signatures(path), rows_of(others))
    share = equal / signatures.shape[1]
    return (share - CHANCE) / (1 - CHANCE)


@numba.njit(cache=True, nogil=True)
def equal_bytes(one, rows, other, other_rows):
    """int64[pairs]: at how many places the signatures of two rows are equal."""
    out = np.empty(rows.shape[0], np.int64)
    for k in range(rows.shape[0]):
        equal = 0
        for j in range(one.shape[1]):
            equal += one[rows[k], j] == other[other_rows[k], j]
        out[k] = equal
    return out


def true_jaccard(
    mine: Texts, rows: np.ndarray, theirs: Texts, other_rows: np.ndarray, ngram: int
) -> np.ndarray:
    """float64[pairs] of rows of two text shards; equal `rows` must be neighbours."""
    out = np.zeros(len(rows), np.float64)
    if not len(rows):
        return out
    order = np.argsort(rows, kind="stable")
    sizes = mine.bytes_of()[rows[order]], theirs.bytes_of()[other_rows[order]]
    for start, stop in chunks(rows[order], *sizes):
        some = order[start:stop]
        firsts, one = np.unique(rows[some], return_inverse=True)
        seconds, two = np.unique(other_rows[some], return_inverse=True)
        x, y = shingle_sets(mine.taken(firsts), ngram), shingle_sets(theirs.taken(seconds), ngram)
        out[some] = jaccards(x.values, x.starts, one, y.values, y.starts, two)
    return out


def chunks(
    rows: np.ndarray, sizes: np.ndarray, other_sizes: np.ndarray
) -> Iterator[tuple[int, int]]:
    """[start, stop) of runs of pairs whose texts are CHUNK_BYTES or one pair."""
    again = np.zeros(len(rows), bool)
    again[1:] = rows[1:] == rows[:-1]
    ends = np.cumsum(np.where(again, 0, sizes) + other_sizes)
    start = 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + CHUNK_BYTES, "right"))
        stop = max(stop, start + 1)
        yield start, stop
        start = stop


def turned(plan: Plan, shard: int, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """uint8[edges]: 1 where the second document is before the first (an earlier one always is)."""
    out = np.ones(len(rows), np.uint8)
    own = np.flatnonzero(others < np.uint64(len(plan.shards) << ROW_BITS))
    mine = order_words(plan, shard)
    for number, some in by_shard(others[own]):
        edges = own[some]
        theirs = order_words(plan, number)
        out[edges] = comes_first(theirs, rows_of(others[edges]), mine, rows[edges])
    return out


def edge_table(
    plan: Plan, shard: int, rows: np.ndarray, others: np.ndarray, jaccard: np.ndarray
) -> pa.Table:
    numbers = shards_of(others)
    against = np.full(len(rows), -1, np.int32)
    own = len(plan.shards)
    for number in np.unique(numbers[numbers >= own]):
        place, mine = plan.shard(int(number)), numbers == number
        against[mine] = place.against
        numbers[mine] = place.number
    columns = [
        np.full(len(rows), shard, np.int32),
        rows.astype(np.int32),
        numbers.astype(np.int32),
        rows_of(others).astype(np.int32),
        jaccard.astype(np.float32),
        against,
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=EDGES)
