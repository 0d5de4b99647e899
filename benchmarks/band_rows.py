"""Candidates and components over made-up band rows: the stage's own units beside one process.

    python benchmarks/band_rows.py [--documents 4000000] [--bands 20] [--workers 2]

Made-up: 35 % of the documents are duplicates in clusters of Zipf sizes (1 + Zipf(2), 10,000 at
most); each shares a band with its cluster with probability 0.7. Baseline: numpy and numba in one
process: each band sorted, neighbours of equal keys joined by union-find. The stage: its band files
(written before the clock starts), then candidates, pairs of each text shard, survivors on Ray.
Verification is replaced by accepting every candidate; star rule and clusters are included. Prints
seconds, and the largest resident memory of any process, of both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from data_jobs.keyed import read_records, write_records
from data_jobs.near.candidates import candidate_unit, range_count
from data_jobs.near.groups import BUCKET_ROWS, equal_keys, scattered
from data_jobs.near.index import bands_name, write_bands
from data_jobs.near.order import ORDER, orders_name
from data_jobs.near.plan import Plan, Shard, read_plan, write_plan
from data_jobs.near.verify import candidate_pairs, edge_table, edges_name, turned, turns_name
from data_jobs.shards import write_table
from data_jobs.survivors import CLUSTERS, survivors_unit
from data_jobs.units import Item, run_units
from mutirao.core.job import StageJob
from mutirao.core.progress import Progress
from mutirao.core.recipe import Ray, Recipe, Source

SHARD_DOCUMENTS = 31_250  # 64 MB of text, at 2 kB each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=4_000_000)
    parser.add_argument("--bands", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pool", action="store_true", help="plain processes instead of Ray")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        keys, clusters = made_up(options.documents, options.bands)
        np.save(folder / "keys.npy", keys)
        del keys
        found = {
            "rows": options.documents * options.bands,
            "baseline": in_process(folder / "keys.npy"),
            "stage": through_the_stage(folder, options),
            "grouping": grouping(),
        }
        found["ratio"] = round(found["stage"]["seconds"] / found["baseline"]["seconds"], 2)
        found["made_up_clusters"] = clusters
    print(json.dumps(found, indent=1))


def grouping(rows: int = 2_600_000, rounds: int = 5) -> dict[str, list[float]]:
    """CPU-seconds of grouping the rows of one key range: by the stage's hash tables, and by numpy's
    sort with a look at the neighbours. A third of the keys stand twice or more."""
    found: dict[str, list[float]] = {"tables_cpu_s": [], "sort_cpu_s": []}
    documents = np.arange(rows, dtype=np.uint64)
    equal_keys(*scattered(documents[:100], documents[:100], 0))  # compiled before the clock
    for seed in range(rounds):
        dice = np.random.default_rng(seed)
        keys = dice.integers(0, 1 << 64, rows, np.uint64)
        keys[dice.integers(0, rows, rows // 3)] = keys[dice.integers(0, rows, rows // 3)]
        began = time.process_time()
        equal_keys(*scattered(keys, documents, int(rows // BUCKET_ROWS).bit_length()))
        middle = time.process_time()
        order = np.argsort(keys)
        ordered, _ = keys[order], documents[order]
        np.flatnonzero(ordered[1:] == ordered[:-1])
        found["tables_cpu_s"].append(round(middle - began, 3))
        found["sort_cpu_s"].append(round(time.process_time() - middle, 3))
    return found


def made_up(documents: int, bands: int) -> tuple[np.ndarray, int]:
    """(keys uint64[bands, documents], how many clusters of two or more)."""
    dice = np.random.default_rng(7)
    extra, sizes = int(documents * 0.35), []
    left = extra
    while left > 0:
        some = np.minimum(dice.zipf(2.0, 200_000), 10_000)
        some = some[: int(np.searchsorted(np.cumsum(some), left, "right")) + 1]
        some[-1] = min(some[-1], left - (some.sum() - some[-1]))
        sizes.append(some)
        left -= int(some.sum())
    copies = np.concatenate(sizes)
    cluster = np.arange(documents)
    cluster[documents - extra :] = np.repeat(np.arange(len(copies)), copies)
    cluster = cluster[dice.permutation(documents)]
    keys = np.empty((bands, documents), np.uint64)
    for band in range(bands):
        shared = dice.integers(0, 1 << 64, documents, np.uint64)[cluster]
        own = dice.integers(0, 1 << 64, documents, np.uint64)
        keys[band] = np.where(dice.random(documents) < 0.7, shared, own)
    return keys, len(copies)


def in_process(path: Path) -> dict[str, float]:
    """The baseline, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        pool.apply(baseline, (str(path), 1000))  # compiles
        return pool.apply(baseline, (str(path), None))


def baseline(path: str, documents: int | None) -> dict[str, float]:
    keys = np.load(path, mmap_mode="r")[:, :documents]
    began, cpu = time.monotonic(), time.process_time()
    parent = np.arange(keys.shape[1], dtype=np.uint32)
    edges = 0
    for band in range(keys.shape[0]):
        one = np.array(keys[band])
        order = np.argsort(one).astype(np.uint32)
        edges += join_neighbours(one, order, parent)
    components = count_roots(parent)
    return {
        "seconds": round(time.monotonic() - began, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mb": peak_mb(),
        "edges": edges,
        "components": components,
    }


@numba.njit
def join_neighbours(keys, order, parent):
    edges = 0
    for k in range(1, order.shape[0]):
        if keys[order[k]] != keys[order[k - 1]]:
            continue
        edges += 1
        x, y = order[k], order[k - 1]
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
    return edges


@numba.njit
def count_roots(parent):
    size = np.zeros(parent.shape[0], np.int64)
    for k in range(parent.shape[0]):
        x = k
        while parent[x] != x:
            x = parent[x]
        size[x] += 1
    return (size > 1).sum()


def through_the_stage(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    job_folder = folder / "neardup"
    job_folder.mkdir()
    plan, band_bytes = write_index(folder / "keys.npy", job_folder)
    given = write_plan(plan)
    ranges = range_count(band_bytes)
    recipe = Recipe(sources=(Source(path="x"),))
    job = StageJob("neardup", recipe, job_folder, {}, folder, Progress(quiet=True))
    shards = [{**given, "shard": k, "ranges": ranges} for k in range(len(plan.shards))]
    ranged = [{**given, "range": k, "ranges": ranges} for k in range(ranges)]
    told: dict[str, float] = {}
    peaks: list[int] = []
    with workers(options) as run:
        run(job, ranged[: options.workers], warm_unit, "warm")
        began = time.monotonic()
        for label, items, unit in (
            ("candidates", ranged, candidates_here),
            ("pairs", shards, accept_unit),
            ("survivors", [given], survivors_here),
        ):
            start = time.monotonic()
            results = run(job, items, unit, label)
            told[label] = round(time.monotonic() - start, 2)
            peaks += [result["peak_mb"] for result in results]
            told[f"{label}_cpu_s"] = round(sum(result["cpu_s"] for result in results), 2)
        seconds = round(time.monotonic() - began, 2)
    clusters = np.unique(read_records(job_folder / CLUSTERS)["cluster"])
    shutil.rmtree(job_folder)
    return {
        "seconds": seconds,
        "peak_mb": max(peaks),
        "ranges": ranges,
        "components": len(clusters),
        **told,
    }


@contextmanager
def workers(options: argparse.Namespace) -> Iterator[Callable[..., list[Item]]]:
    """`run_units` on Ray, or with --pool the same units in a pool of processes."""
    if options.pool:
        context = multiprocessing.get_context("spawn")
        with context.Pool(options.workers) as pool:
            yield lambda job, items, unit, label: pool.map(Timed(unit), items, chunksize=1)
        return
    from mutirao.run.session import ray_session

    with ray_session(Ray(cpus=options.workers)):
        yield run_units


@dataclass(frozen=True)
class Timed:
    unit: Callable[[Item], Item]

    def __call__(self, item: Item) -> Item:
        began = time.process_time()
        return {**self.unit(item), "cpu_s": time.process_time() - began}


def write_index(path: Path, folder: Path) -> tuple[Plan, int]:
    """The band files and orders of the made-up documents, as the signature units write them."""
    keys = np.load(path, mmap_mode="r")
    documents, band_bytes, shards = keys.shape[1], 0, []
    for number, start in enumerate(range(0, documents, SHARD_DOCUMENTS)):
        some = np.ascontiguousarray(keys[:, start : start + SHARD_DOCUMENTS].T)
        rows = np.arange(len(some))
        band_bytes += write_bands(folder, bands_name(number), some, rows).bytes
        orders = np.zeros(len(some), ORDER)
        orders["low"], orders["hash"] = start + rows, some[:, 0]
        write_records(folder, orders_name(number), orders)
        shards.append(Shard("", len(some), {}))
    bands = keys.shape[0]
    return Plan(str(folder), bands, 5, 5, 0.8, "star", "", shards, []), band_bytes


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def warm_unit(item: Item) -> Item:
    """Loads the kernels into a worker."""
    with tempfile.TemporaryDirectory() as name:
        keys = np.repeat(np.arange(20, dtype=np.uint64).reshape(10, 2), 2, axis=0)
        write_bands(Path(name), bands_name(0), keys, np.arange(20))
        orders = np.zeros(20, ORDER)
        orders["low"] = np.arange(20)
        write_records(Path(name), orders_name(0), orders)
        plan = Plan(name, 2, 5, 5, 0.8, "star", "", [Shard("", 20, {})], [])
        one = {**write_plan(plan), "shard": 0, "range": 0, "ranges": 1}
        candidate_unit(one)
        accept_unit(one)
        survivors_unit(one)
    return {"peak_mb": peak_mb()}


def candidates_here(item: Item) -> Item:
    return {**candidate_unit(item), "peak_mb": peak_mb()}


def survivors_here(item: Item) -> Item:
    return {**survivors_unit(item), "peak_mb": peak_mb()}


def accept_unit(item: Item) -> Item:
    """As `verify_unit`, but every candidate is an edge."""
    plan, shard = read_plan(item), item["shard"]
    rows, others = candidate_pairs(plan, shard, item["ranges"])
    order = np.lexsort((others, rows))
    rows, others = rows[order], others[order]
    table = edge_table(plan, shard, rows, others, np.ones(len(rows)))
    write_table(Path(plan.directory), edges_name(shard), table)
    write_records(Path(plan.directory), turns_name(shard), turned(plan, shard, rows, others))
    return {"edges": len(rows), "peak_mb": peak_mb()}


if __name__ == "__main__":
    main()
