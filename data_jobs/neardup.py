"""Stage neardup: drop documents whose word 5-gram sets are nearly equal to one that stays.

In: text shards, and the decisions of exact, langid and filter (only rows that all of them keep take
part). Out: decision shards `neardup-00000.arrow` (the document that stays, the true Jaccard) and
`edges.arrow`, all verified pairs. Four passes, each in bounded units:
  signatures  a text shard      -> its band keys, sorted by key      (MinHash, LSH)
  candidates  a key range       -> pairs of documents that share a key
  verification  a text shard    -> pairs with a true Jaccard >= threshold (sets of 64-bit hashes)
  survivors   all edges         -> who is dropped for whom (star rule), in this process
Memory: a shard and its shingle sets (8 bytes a word) twice; a key range of 256 MB; edges 200 bytes
each. At 1T tokens (2.4 billion documents) band files take 20 x 16 bytes a document, 0.8 TB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.keyed import (
    finished_records,
    key_slice,
    range_bounds,
    range_count,
    read_records,
    remove_records,
    write_records,
)
from data_jobs.minhash import band_keys, bands_and_rows, jaccard, permutation_parameters
from data_jobs.shards import (
    decision_counts,
    decision_name,
    finished_result,
    kept_rows,
    parts_of,
    reason_info,
    shard_items,
    text_path,
    write_table,
)
from data_jobs.survivors import bucket_pairs, star
from data_jobs.units import Item, cpu_seconds, run_units
from data_jobs.words import document_shingles, folded, tables
from mutirao.core.errors import RecipeError
from mutirao.core.job import StageJob, StageResult
from mutirao.core.schemas import EDGES, NEARDUP, read_ipc

BAND = np.dtype([("key", "<u8"), ("length", "<u4"), ("row", "<u4")])
PAIR = np.dtype([("first", "<u8"), ("second", "<u8")])
EDGE = np.dtype(
    [("first", "<u8"), ("second", "<u8"), ("jaccard", "<f4"), ("a", "<u4"), ("b", "<u4")]
)
ROW_BITS = 32  # a document's name is (shard << 32) | row


def run(job: StageJob) -> StageResult:
    """Raises RecipeError if bands * rows exceeds the permutations."""
    common = _common(job)
    shards = shard_items(job.inputs, ("exact", "langid", "filter"))
    shards = [{**item, **common} for item in shards]
    signed = run_units(job, shards, signature_unit, "signatures")
    ranges = range_count(sum(r["part"]["bytes"] for r in signed) * 2)
    counted = {**common, "ranges": ranges, "shards": len(shards)}
    tasks = [{**counted, "range": number} for number in range(ranges)]
    paired = run_units(job, tasks, candidate_unit, "candidates")
    tasks = [{**item, **counted} for item in shards]
    verified = run_units(job, tasks, verify_unit, "verifying")
    edges = _edges(job.directory, verified)
    drops = _write_drops(job.directory, edges)
    drops_path = str(job.directory / drops["part"]["path"])
    tasks = [{**s, "drops": drops_path} for s in shards]
    decided = run_units(job, tasks, decide_unit, "deciding")
    edge_part = write_table(job.directory, "edges.arrow", _edge_table(edges))
    counts = {**decision_counts(decided), "edges": len(edges)}
    counts["candidates"] = sum(r["part"]["info"]["candidates"] for r in verified)
    info = {"bands": common["bands"], "rows": common["rows"]}
    notes = {"cpu_s": cpu_seconds(signed + paired + verified + decided)}
    remove_records(job.directory, [*signed, *paired, *verified, drops])
    return StageResult([*parts_of(decided), edge_part], counts, info, notes)


def band_name(shard: int) -> str:
    return f"bands-{shard:05d}.npy"


def pair_name(number: int) -> str:
    return f"pairs-{number:05d}.npy"


def signature_unit(item: Item) -> Item:
    """The band keys of one text shard's kept rows, sorted by key."""
    directory, name = Path(item["directory"]), band_name(item["shard"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    table = read_ipc(Path(item["text"]), "text")
    kept = kept_rows(table.num_rows, item["decisions"])
    a, b = permutation_parameters(item["bands"] * item["rows"])
    found, start = [], 0
    for batch in table.to_batches():
        rows = np.flatnonzero(kept[start : start + batch.num_rows])
        records = band_records(batch.column("text"), rows, item, a, b)
        records["row"] += start
        found.append(records)
        start += batch.num_rows
    records = np.concatenate([np.zeros(0, BAND), *found])
    records.sort(order=["key", "row"])
    return {"part": vars(write_records(directory, name, records))}


def band_records(
    texts: pa.Array, rows: np.ndarray, item: Item, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """BAND records of the chosen rows of one batch; a row under `ngram` words has none."""
    data, offsets = folded(texts)
    kinds, lower = tables()
    bands, per_band = item["bands"], item["rows"]
    keys, has = band_keys(data, offsets, rows, item["ngram"], bands, per_band, a, b, kinds, lower)
    records = np.zeros((int(has.sum()), bands), BAND)
    records["key"] = keys[has]
    records["length"] = np.diff(offsets)[rows[has], None]
    records["row"] = rows[has, None]
    return records.reshape(-1)


def candidate_unit(item: Item) -> Item:
    """The pairs of one key range, distinct and sorted."""
    directory, name = Path(item["directory"]), pair_name(item["range"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    low, high = range_bounds(item["range"], item["ranges"])
    files = (directory / band_name(shard) for shard in range(item["shards"]))
    slices = [key_slice(read_records(path), "key", low, high) for path in files]
    shards = np.repeat(np.arange(len(slices), dtype=np.uint64), [len(s) for s in slices])
    records = np.concatenate([np.zeros(0, BAND), *slices])
    documents = (shards << np.uint64(ROW_BITS)) | records["row"]
    order = np.lexsort((documents, -records["length"].astype(np.int64), records["key"]))
    pairs = bucket_pairs(records["key"][order], documents[order])
    return {"part": vars(write_records(directory, name, distinct(pairs)))}


def distinct(pairs: np.ndarray) -> np.ndarray:
    """PAIR records, sorted, each once."""
    records = np.zeros(len(pairs), PAIR)
    records["first"], records["second"] = pairs[:, 0], pairs[:, 1]
    return np.unique(records)


def verify_unit(item: Item) -> Item:
    """The candidate pairs whose first document lies in this shard, with their true Jaccard."""
    directory, name = Path(item["directory"]), f"edges-{item['shard']:05d}.npy"
    if (finished := finished_records(directory, name)) is not None:
        return finished
    low, high = item["shard"] << ROW_BITS, (item["shard"] + 1) << ROW_BITS
    files = (directory / pair_name(number) for number in range(item["ranges"]))
    slices = [key_slice(read_records(path), "first", low, high) for path in files]
    pairs = np.unique(np.concatenate([np.zeros(0, PAIR), *slices]))
    edges = true_edges(pairs, item["clean"], item["ngram"], item["threshold"])
    part = write_records(directory, name, edges, {"candidates": len(pairs)})
    return {"part": vars(part)}


def true_edges(pairs: np.ndarray, clean: str, ngram: int, threshold: float) -> np.ndarray:
    """EDGE records of the pairs with Jaccard >= threshold, by shard of the second document."""
    found = np.zeros(len(pairs), EDGE)
    found["first"], found["second"] = pairs["first"], pairs["second"]
    mine = _shingle_sets(pairs["first"], clean, ngram)
    other_shard = pairs["second"] >> np.uint64(ROW_BITS)
    for shard in np.unique(other_shard):
        chosen = np.flatnonzero(other_shard == shard)
        theirs = _shingle_sets(pairs["second"][chosen], clean, ngram)
        for k in chosen:
            x, size_x = mine[int(pairs["first"][k])]
            y, size_y = theirs[int(pairs["second"][k])]
            found[k]["jaccard"] = jaccard(x, y)
            found[k]["a"], found[k]["b"] = size_x, size_y
    return found[found["jaccard"] >= np.float32(threshold)]


def _shingle_sets(
    documents: np.ndarray, clean: str, ngram: int
) -> dict[int, tuple[np.ndarray, int]]:
    """{document: (sorted shingle hashes, bytes)} of documents that lie in one shard."""
    names = np.unique(documents)
    if len(names) == 0:
        return {}
    column = read_ipc(text_path(clean, int(names[0]) >> ROW_BITS), "text").column("text")
    kinds, lower = tables()
    sets = {}
    for start in range(0, len(names), 1_000):
        some = names[start : start + 1_000]
        rows = (some & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)
        data, offsets = folded(column.take(pa.array(rows)))
        for k, name in enumerate(some.tolist()):
            shingles = document_shingles(data, offsets, k, ngram, kinds, lower)
            sets[name] = (shingles, int(offsets[k + 1] - offsets[k]))
    return sets


def decide_unit(item: Item) -> Item:
    """The decision shard of one text shard, from its slice of the drops."""
    directory, name = Path(item["directory"]), decision_name("neardup", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    rows = read_ipc(Path(item["text"]), "text").num_rows
    low, high = item["shard"] << ROW_BITS, (item["shard"] + 1) << ROW_BITS
    table = decisions(rows, key_slice(read_records(item["drops"]), "first", low, high))
    info = reason_info(table.column("reason").combine_chunks())
    return {"part": vars(write_table(directory, name, table, info))}


def decisions(rows: int, drops: np.ndarray) -> pa.Table:
    dropped = np.zeros(rows, bool)
    columns: dict[str, np.ndarray] = {
        "shard": np.zeros(rows, np.int32),
        "row": np.zeros(rows, np.int32),
        "jaccard": np.zeros(rows, np.float32),
    }
    at = (drops["first"] & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)
    dropped[at] = True
    columns["shard"][at] = drops["second"] >> np.uint64(ROW_BITS)
    columns["row"][at] = drops["second"] & np.uint64((1 << ROW_BITS) - 1)
    columns["jaccard"][at] = drops["jaccard"]
    reason = pa.array(np.where(dropped, "near-duplicate", ""), pa.string(), mask=~dropped)
    rest = [pa.array(column, mask=~dropped) for column in columns.values()]
    return pa.Table.from_arrays([reason, *rest], schema=NEARDUP)


def _edges(directory: Path, verified: list[Item]) -> np.ndarray:
    files = [read_records(directory / r["part"]["path"]) for r in verified]
    return np.concatenate([np.zeros(0, EDGE), *files])


def _write_drops(directory: Path, edges: np.ndarray) -> Item:
    """EDGE records (dropped, kept, jaccard) sorted by the dropped document."""
    length = dict(zip(edges["first"].tolist(), edges["a"].tolist(), strict=True))
    length |= dict(zip(edges["second"].tolist(), edges["b"].tolist(), strict=True))
    found = star(edges["first"], edges["second"], edges["jaccard"], length)
    drops = np.zeros(len(found), EDGE)
    for k, (document, (stays, value)) in enumerate(sorted(found.items())):
        drops[k]["first"], drops[k]["second"], drops[k]["jaccard"] = document, stays, value
    return {"part": vars(write_records(directory, "drops.npy", drops))}


def _edge_table(edges: np.ndarray) -> pa.Table:
    low = np.uint64((1 << ROW_BITS) - 1)
    columns = [
        (edges["first"] >> np.uint64(ROW_BITS)).astype(np.int32),
        (edges["first"] & low).astype(np.int32),
        (edges["second"] >> np.uint64(ROW_BITS)).astype(np.int32),
        (edges["second"] & low).astype(np.int32),
        edges["jaccard"],
    ]
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=EDGES)


def _common(job: StageJob) -> dict[str, Any]:
    config = job.recipe.neardup
    bands, rows = bands_and_rows(config.threshold, config.permutations, config.bands, config.rows)
    if bands * rows > config.permutations or bands * rows == 0:
        raise RecipeError(
            f"{bands} bands of {rows} rows need {bands * rows} permutations",
            f"neardup.permutations: {config.permutations}",
            "Raise neardup.permutations, or leave out bands and rows.",
            "bands",
        )
    return {
        "directory": str(job.directory),
        "clean": str(job.inputs["clean"].directory),
        "bands": bands,
        "rows": rows,
        "ngram": config.ngram,
        "threshold": config.threshold,
    }
