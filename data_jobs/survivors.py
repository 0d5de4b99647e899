"""Verified edges -> who stays, who is dropped for whom, and clusters: one restartable unit.

In: the edges of all text shards. Out, sorted by document: `drops.npy` (`near/drops.py`) and
`clusters.npy`. Star rule (default): in star order a document is dropped only if it has a verified
edge to one that stays. Closure: the first of each cluster stays, and all others go, those that
resemble nothing that stays too: 7 points of pair precision, even on perfect pairs.
A document with an edge to an earlier result's document is dropped under both.

Memory: 0.2 bytes a document, and 10 bytes a document that has an edge (components 4, their hash and
size 6; then a state, the nearest Jaccard and its document, 9). At 1T tokens (2.4 billion documents,
0.7 billion of them with an edge): 7.5 GB, and a file of 8 bytes an edge that is read in passes.
One node of 256 GB holds 20 billion documents with an edge in bytes, and 4.2 billion in the 32-bit
numbers used here. Beyond that: components by large-star and small-star rounds (Kiveris et al.,
"Connected components in MapReduce and beyond", SoCC 2014), each a shuffle by key range as in
`near/candidates.py`, and the star rule's rounds by the same shuffle of (earlier, later, state).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_jobs.keyed import finished_records, read_records, write_blocks
from data_jobs.near.drops import DROP, NOTHING, ROW_BITS
from data_jobs.near.graph import (
    DROPPED,
    EARLIER,
    KEPT,
    NONE,
    OPEN,
    behind,
    counted,
    join,
    known,
    label,
    mark,
    measure,
    name_nearest,
    nearest,
    numbers,
    places,
    star_round,
)
from data_jobs.near.order import orders_name, orders_of, sorting
from data_jobs.near.plan import Plan, read_plan
from data_jobs.near.verify import edges_name, turns_name
from data_jobs.units import Item
from mutirao.core.files import disk_problem
from mutirao.core.schemas import read_ipc

CLUSTERS, DROPS = "clusters.npy", "drops.npy"
CLUSTER = np.dtype([("document", "<u8"), ("cluster", "<u8"), ("size", "<u4"), ("pad", "<u4")])


def survivors_unit(item: Item) -> Item:
    """`clusters.npy` and `drops.npy` of the whole corpus."""
    plan = read_plan(item)
    directory = Path(plan.directory)
    clusters, drops = (finished_records(directory, name) for name in (CLUSTERS, DROPS))
    if clusters is None or drops is None:
        graph = Graph.read(plan)
        with graph.ends() as ends:
            component = components(graph, ends)
            clusters = write_clusters(graph, component)
            state = np.zeros(graph.size, np.uint8)
            state[graph.near_earlier()] = EARLIER
            if plan.survivors == "closure":
                chosen, best = closure(graph, state, component, ends)
            else:
                del component
                star(state, ends)
                chosen, best = nearest_kept(graph, state)
        drops = write_drops(graph, state, chosen, best)
    return {"clusters": clusters["part"], "drops": drops["part"]}


@dataclass(frozen=True)
class Graph:
    """Documents with an edge, numbered in the order of their names."""

    plan: Plan
    base: np.ndarray  # int64[shards + 1]: first bit of each text shard, a multiple of 64
    bits: np.ndarray
    before: np.ndarray

    @classmethod
    def read(cls, plan: Plan) -> Graph:
        words = [0, *((shard.rows + 63) // 64 for shard in plan.shards)]
        base = np.cumsum(words).astype(np.int64) * 64
        bits = np.zeros(int(base[-1]) // 64, np.uint64)
        for shard in range(len(plan.shards)):
            edges = edges_of(plan, shard)
            mark(bits, base[shard] + edges["row"])
            own = edges["against"] < 0
            mark(bits, base[edges["other_shard"][own]] + edges["other_row"][own])
        return cls(plan, base, bits, counted(bits))

    @property
    def size(self) -> int:
        return int(self.before[-1])

    def shard_range(self, shard: int) -> tuple[int, int]:
        """[start, stop) of the numbers of a text shard's documents."""
        low, high = self.base[shard : shard + 2] // 64
        return int(self.before[low]), int(self.before[high])

    def names(self, wanted: np.ndarray) -> np.ndarray:
        """uint64[]: the documents with these numbers."""
        index = places(self.bits, self.before, wanted.astype(np.uint32))
        shard = np.searchsorted(self.base, index, "right") - 1
        row = (index - self.base[shard]).astype(np.uint64)
        return (shard.astype(np.uint64) << np.uint64(ROW_BITS)) | row

    def edges(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """(first, second uint32, jaccard float32, turned uint8) of edges inside the corpus."""
        for shard in range(len(self.plan.shards)):
            edges = edges_of(self.plan, shard)
            own = np.flatnonzero(edges["against"] < 0)
            turned = read_records(Path(self.plan.directory) / turns_name(shard))
            first = self.base[shard] + edges["row"][own]
            second = self.base[edges["other_shard"][own]] + edges["other_row"][own]
            yield (
                numbers(self.bits, self.before, first),
                numbers(self.bits, self.before, second),
                edges["jaccard"][own],
                np.asarray(turned[own]),
            )

    def own_edges(self, shard: int) -> int:
        """How many edges of a text shard lie inside the corpus."""
        table = read_ipc(Path(self.plan.directory) / edges_name(shard), "edges")
        if not self.plan.earlier:
            return table.num_rows
        return int(np.sum(table.column("against").to_numpy() < 0))

    def near_earlier(self) -> np.ndarray:
        """Numbers of the documents with an edge to an earlier result."""
        found = [np.zeros(0, np.uint32)]
        for shard in range(len(self.plan.shards)) if self.plan.earlier else ():
            edges = edges_of(self.plan, shard)
            rows = edges["row"][edges["against"] >= 0]
            found.append(numbers(self.bits, self.before, self.base[shard] + rows))
        return np.concatenate(found)

    @contextmanager
    def ends(self) -> Iterator[np.ndarray]:
        """uint32[edges, 2]: (earlier, later) of each edge, in a file without a name that is mapped
        into memory: passes over it need none of their own."""
        count = sum(self.own_edges(shard) for shard in range(len(self.plan.shards)))
        with scratch(Path(self.plan.directory), count) as ends:
            at = 0
            for first, second, _, turned in self.edges():
                some = ends[at : at + len(first)]
                some[:, 0] = np.where(turned, second, first)
                some[:, 1] = np.where(turned, first, second)
                at += len(first)
            yield ends


def edges_of(plan: Plan, shard: int) -> dict[str, np.ndarray]:
    """The edges of one text shard by column, rows as int64."""
    table = read_ipc(Path(plan.directory) / edges_name(shard), "edges")
    found = {name: table.column(name).to_numpy() for name in EDGE_COLUMNS}
    return {k: v if k == "jaccard" else v.astype(np.int64) for k, v in found.items()}


EDGE_COLUMNS = ("row", "other_shard", "other_row", "jaccard", "against")


@contextmanager
def scratch(directory: Path, rows: int) -> Iterator[np.ndarray]:
    """uint32[rows, 2] in a temporary file. Its room is taken at once: a full disk is an error here,
    and not a signal in the middle of a pass."""
    if not rows:
        yield np.zeros((0, 2), np.uint32)
        return
    try:
        with tempfile.TemporaryFile(dir=directory) as stream:
            os.posix_fallocate(stream.fileno(), 0, rows * 8)
            yield np.asarray(np.memmap(stream, np.uint32, "r+", shape=(rows, 2)))
    except OSError as error:
        raise disk_problem(error, directory / "edges") from error


def components(graph: Graph, ends: np.ndarray) -> np.ndarray:
    """uint32[documents]: the number of each one's component."""
    parent = np.arange(graph.size, dtype=np.uint32)
    join(parent, ends)
    return parent


def write_clusters(graph: Graph, component: np.ndarray) -> Item:
    """CLUSTER records of the documents that edges inside the corpus join."""
    count = label(component)
    least, size = np.full(count, NOTHING, np.uint64), np.zeros(count, np.uint32)
    for shard in range(len(graph.plan.shards)):
        start, stop = graph.shard_range(shard)
        measure(component, hashes_of(graph, shard, start, stop), start, least, size)

    def blocks() -> Iterator[np.ndarray]:
        for shard in range(len(graph.plan.shards)):
            start, stop = graph.shard_range(shard)
            mine = np.arange(start, stop)[size[component[start:stop]] > 1]
            records = np.zeros(len(mine), CLUSTER)
            records["document"] = graph.names(mine)
            records["cluster"] = least[component[mine]]
            records["size"] = size[component[mine]]
            yield records

    rows = int(size[size > 1].sum(dtype=np.int64))
    return {
        "part": vars(write_blocks(Path(graph.plan.directory), CLUSTERS, CLUSTER, rows, blocks()))
    }


def hashes_of(graph: Graph, shard: int, start: int, stop: int) -> np.ndarray:
    """HASH64 of the documents of one text shard that have an edge."""
    records = read_records(Path(graph.plan.directory) / orders_name(shard))
    index = places(graph.bits, graph.before, np.arange(start, stop, dtype=np.uint32))
    return np.ascontiguousarray(records["hash"][index - graph.base[shard]])


def star(state: np.ndarray, ends: np.ndarray) -> None:
    """Decide every document that is OPEN. `ends` is overwritten."""
    left = len(ends)
    while left:
        left = star_round(state, ends[:left])
    state[state == OPEN] = KEPT


def nearest_kept(graph: Graph, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(chosen uint32, best float32): for each dropped document the most similar one that stays; of
    several the first in star order."""
    best = np.zeros(graph.size, np.float32)
    for first, second, jaccard, _ in graph.edges():
        nearest(state, first, second, jaccard, best)
    chosen = np.full(graph.size, NONE, np.uint32)
    for first, second, jaccard, _ in graph.edges():
        settle(graph, chosen, *name_nearest(state, first, second, jaccard, best, chosen))
    return chosen, best


def settle(graph: Graph, chosen: np.ndarray, dropped: np.ndarray, kept: np.ndarray) -> None:
    """Of the documents `kept` that are as near to `dropped` as the chosen ones, and those, choose
    the first in star order."""
    several = np.unique(dropped)
    dropped, kept = np.append(several, dropped), np.append(chosen[several], kept)
    order = sorting(orders_of(graph.plan, graph.names(kept)), dropped)
    at, first_of = np.unique(dropped[order], return_index=True)
    chosen[at] = kept[order][first_of]


def closure(
    graph: Graph, state: np.ndarray, component: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest_kept`: the first of each component stays. best is NaN where no edge joins a
    document to it. Only documents without an earlier neighbour can be the first."""
    late = np.zeros(graph.size, np.uint8)
    behind(state, ends, late)
    able = np.flatnonzero((late == 0) & (state != EARLIER)).astype(np.uint32)
    alone = np.bincount(component[able], minlength=1)[component[able]] == 1
    head = np.full(int(component.max(initial=0)) + 1, NONE, np.uint32)
    head[component[able[alone]]] = able[alone]
    able = able[~alone]
    order = sorting(orders_of(graph.plan, graph.names(able)), component[able])
    at, first_of = np.unique(component[able][order], return_index=True)
    head[at] = able[order][first_of]
    state[state == OPEN] = DROPPED
    state[head[head != NONE]] = KEPT
    chosen = head[component]
    best = np.full(graph.size, np.nan, np.float32)
    for first, second, jaccard, _ in graph.edges():
        known(state, first, second, jaccard, chosen, best)
    return chosen, best


def write_drops(graph: Graph, state: np.ndarray, chosen: np.ndarray, best: np.ndarray) -> Item:
    def blocks() -> Iterator[np.ndarray]:
        for shard in range(len(graph.plan.shards)):
            start, stop = graph.shard_range(shard)
            mine = np.arange(start, stop)[(state[start:stop] & DROPPED) != 0]
            records = np.zeros(len(mine), DROP)
            records["document"] = graph.names(mine)
            records["other"], records["jaccard"] = NOTHING, np.nan
            own = state[mine] == DROPPED
            records["other"][own] = graph.names(chosen[mine[own]])
            records["jaccard"][own] = best[mine[own]]
            yield records

    rows = int(np.count_nonzero(state & DROPPED))
    return {"part": vars(write_blocks(Path(graph.plan.directory), DROPS, DROP, rows, blocks()))}
