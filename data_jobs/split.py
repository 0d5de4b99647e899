"""Stage split: join all decisions, write the kept text shards, hold some documents out.

In: text shards and every decision. Out: `train-00000.arrow` and `heldout-00000.arrow` (KEPT), each
of about SHARD_BYTES of text, in the order of the text shards; info: what was kept, and why what was
not. Held out by the hash of the text (its duplicate cluster's smallest, so near-duplicates stay on
one side), with the seed, per source; a source of at least MIN_DOCUMENTS gives at least one.
Memory: the marks of a shard (16 bytes a document), and 200 bytes an edge of `edges.arrow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from data_jobs.keyed import finished_records, read_records, remove_records, write_records
from data_jobs.language.spans import kept_bytes, kept_text, shard_spans, spans_of
from data_jobs.quality.shares import kept_by_license, shares
from data_jobs.shards import (
    BATCH_ROWS,
    add_counts,
    finished_result,
    parts_of,
    shard_items,
    text_path,
)
from data_jobs.survivors import components
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.errors import DataError
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Manifest, write_part
from mutirao.core.schemas import KEPT, read_ipc, write_ipc
from mutirao.core.stages import DECISION_STAGES

SHARD_BYTES = 64_000_000
COPIED = ["id", "text", "source", "license", "url", "kind", "genre", "messages"]
MIN_DOCUMENTS = 20
DROPPED, TRAIN, HELDOUT = 0, 1, 2
MARK = np.dtype([("key", "<u8"), ("bytes", "<u4"), ("source", "<u2"), ("kept", "<u2")])


def run(job: StageJob) -> StageResult:
    """Raises DataError if fewer than two documents are left."""
    common = {"directory": str(job.directory), "seed": job.recipe.seed}
    clusters = _clusters(job.inputs)
    shards = [
        {**item, **common, "clusters": clusters.get(str(item["shard"]), {})}
        for item in shard_items(job.inputs, DECISION_STAGES)
    ]
    marked = run_units(job, shards, mark_unit, "joining decisions")
    counts = add_counts([r["part"]["info"]["counts"] for r in marked])
    tables = {k: add_counts([r["part"]["info"][k] for r in marked]) for k in (*TABLES, "shares")}
    if not counts["documents_out"]:
        raise _nothing_left(tables["dropped"])
    marks = [job.directory / mark_name(shard) for shard in range(len(shards))]
    rule = heldout_rule(marked, job.recipe.split.heldout)
    common |= {stage: str(job.inputs[stage].directory) for stage in ("clean", "langid")}
    items = [
        {**common, "name": f"{side}-{number:05d}.arrow", "side": side, "rule": rule,
         "segments": segments}
        for side in ("train", "heldout")
        for number, segments in enumerate(plan(marks, rule, side == "heldout"))
    ]  # fmt: skip
    if len({item["side"] for item in items}) < 2:
        raise _nothing_left(tables["dropped"])
    written = run_units(job, items, write_unit, "writing kept text")
    sides = add_counts([{r["part"]["info"]["side"]: r["part"]["info"]["kept"]} for r in written])
    info = {
        "train": sides["train"],
        "heldout": sides.get("heldout", {"documents": 0, "text_bytes": 0}),
        **tables,
        "licenses": kept_by_license(tables["shares"]),
    }
    notes = {"cpu_s": cpu_seconds(marked + written)}
    remove_records(job.directory, marked)
    return StageResult(parts_of(written), counts, info, notes)


TABLES = ("kept_per_source", "dropped", "dropped_per_source")


def mark_name(shard: int) -> str:
    return f"marks-{shard:05d}.npy"


def mark_unit(item: Item) -> Item:
    """A MARK record for each row of one text shard; info: all tables of counts."""
    directory, name = Path(item["directory"]), mark_name(item["shard"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    table = read_ipc(Path(item["text"]), "text")
    stage, reason = first_reasons(table.num_rows, item["decisions"])
    marks = np.zeros(table.num_rows, MARK)
    marks["kept"] = [r is None for r in reason]
    sizes = _byte_lengths(table)
    marks["bytes"] = kept_bytes(sizes, spans_of(Path(item["decisions"]["langid"])))
    marks["key"] = _heldout_keys(item, table.num_rows)
    names = sorted(set(table.column("source").to_pylist()))
    sources = table.column("source").to_pylist()
    number = {source: i for i, source in enumerate(names)}
    marks["source"] = [number[source] for source in sources]
    info = _tables(marks, names, stage, reason)
    info["counts"]["text_bytes_in"] = int(sizes.sum())  # with paragraphs that langid leaves out
    info["shares"] = shares(table, marks["bytes"], marks["kept"])
    return {"part": vars(write_records(directory, name, marks, info))}


def first_reasons(rows: int, decisions: dict[str, str]) -> tuple[list[str], list[str | None]]:
    """For each row the first stage that dropped it and why ('', None where it is kept)."""
    stage: list[str] = [""] * rows
    reason: list[str | None] = [None] * rows
    for name in DECISION_STAGES:
        if name not in decisions:
            continue
        found = read_ipc(Path(decisions[name]), f"decision.{name}").column("reason")
        for row, why in enumerate(found.to_pylist()):
            if why is not None and reason[row] is None:
                stage[row], reason[row] = name, why
    return stage, reason


def heldout_rule(marked: list[Item], share: float) -> dict[str, Any]:
    """{below: a key under it is held out, forced: keys held out besides}.

    Forced: the smallest key of a source that has at least MIN_DOCUMENTS and none under `below`; of
    the whole corpus where no source has one.
    """
    below = int(share * 2**64)
    smallest: dict[str, int] = {}
    kept: dict[str, int] = {}
    for result in marked:
        for source, least in result["part"]["info"]["smallest"].items():
            smallest[source] = min(int(least), smallest.get(source, 1 << 64))
        for source, numbers in result["part"]["info"]["kept_per_source"].items():
            kept[source] = kept.get(source, 0) + numbers["documents"]
    forced = {
        smallest[source]
        for source in smallest
        if kept[source] >= MIN_DOCUMENTS and smallest[source] >= below
    }
    if not forced and min(smallest.values()) >= below and sum(kept.values()) > 1:
        forced = {min(smallest.values())}
    return {"below": below, "forced": sorted(forced)}


def is_heldout(keys: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
    forced = np.array(rule["forced"], np.uint64)
    return (keys < np.uint64(rule["below"])) | np.isin(keys, forced)


def plan(marks: list[Path], rule: dict[str, Any], heldout: bool) -> Iterator[list[list[int]]]:
    """Segments [shard, first row, last row + 1] of each output shard of SHARD_BYTES of text."""
    segments: list[list[int]] = []
    size = 0
    for shard, path in enumerate(marks):
        found = read_records(path)
        chosen = chosen_rows(found, rule, heldout)
        sizes = np.where(chosen, found["bytes"], 0).astype(np.int64)
        start = 0
        total = np.cumsum(sizes)
        while start < len(found):
            before = int(total[start - 1]) if start else 0
            stop = int(np.searchsorted(total, before + SHARD_BYTES - size)) + 1
            stop = min(stop, len(found))
            if chosen[start:stop].any():
                segments.append([shard, start, stop])
                size += int(total[stop - 1]) - before
            if size >= SHARD_BYTES:
                yield segments
                segments, size = [], 0
            start = stop
    if segments:
        yield segments


def chosen_rows(marks: np.ndarray, rule: dict[str, Any], heldout: bool) -> np.ndarray:
    return (marks["kept"] > 0) & (is_heldout(marks["key"], rule) == heldout)


def write_unit(item: Item) -> Item:
    """One kept text shard."""
    directory, name = Path(item["directory"]), item["name"]
    if (finished := finished_result(directory, name)) is not None:
        return finished
    kept = {"documents": 0, "text_bytes": 0}

    def batches() -> Iterator[pa.RecordBatch]:
        for table in _rebatched(_segments(item)):
            kept["documents"] += table.num_rows
            kept["text_bytes"] += int(_byte_lengths(table).sum())
            yield from table.combine_chunks().to_batches()

    info: dict[str, Any] = {"side": item["side"], "kept": kept}
    part = write_part(directory, name, lambda s: write_ipc(s, KEPT, batches()), info)
    return {"part": vars(part)}


def _segments(item: Item) -> Iterator[pa.Table]:
    for shard, start, stop in item["segments"]:
        marks = read_records(Path(item["directory"]) / mark_name(shard))[start:stop]
        rows = start + np.flatnonzero(chosen_rows(marks, item["rule"], item["side"] == "heldout"))
        table = read_ipc(text_path(item["clean"], shard), "text")
        spans = shard_spans(item["langid"], shard)
        for first in range(0, len(rows), BATCH_ROWS):
            some = rows[first : first + BATCH_ROWS]
            picked = table.select(COPIED).take(pa.array(some))
            text = kept_text(picked.column("text"), [spans[row] for row in some.tolist()])
            picked = picked.set_column(COPIED.index("text"), "text", text)
            shards = pa.array(np.full(len(some), shard, np.int32))
            places = [shards, pa.array(some.astype(np.int32))]
            columns = [*picked.columns[:5], *places, *picked.columns[5:]]
            yield pa.Table.from_arrays(columns, schema=KEPT)


def _rebatched(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of BATCH_ROWS, however they came."""
    pending = pa.table({f.name: pa.array([], f.type) for f in KEPT}, schema=KEPT)
    for table in tables:
        pending = pa.concat_tables([pending, table])
        while pending.num_rows >= BATCH_ROWS:
            yield pending.slice(0, BATCH_ROWS)
            pending = pending.slice(BATCH_ROWS)
    if pending.num_rows:
        yield pending


def _tables(
    marks: np.ndarray, names: list[str], stage: list[str], reason: list[str | None]
) -> dict[str, Any]:
    rows = len(marks)
    counts: dict[str, Any] = {
        "documents_in": rows,
        "documents_out": int(marks["kept"].sum()),
        "text_bytes_out": int(marks["bytes"][marks["kept"] > 0].sum()),
    }
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for row in range(rows):
        source, size = names[marks["source"][row]], int(marks["bytes"][row])
        why = reason[row]
        if why is None:
            _count(tables["kept_per_source"], [source], size)
        else:
            _count(tables["dropped"], [stage[row], why], size)
            _count(tables["dropped_per_source"], [source, f"{stage[row]}.{why}"], size)
    kept = marks[marks["kept"] > 0]
    smallest = {
        names[s]: str(kept["key"][kept["source"] == s].min()) for s in np.unique(kept["source"])
    }
    return {"counts": counts, "smallest": smallest, **tables}


def _count(table: dict[str, Any], path: list[str], size: int) -> None:
    for name in path:
        table = table.setdefault(name, {})
    table["documents"] = table.get("documents", 0) + 1
    table["text_bytes"] = table.get("text_bytes", 0) + size


def _byte_lengths(table: pa.Table) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.binary_length(table.column("text")).to_numpy()


def _heldout_keys(item: Item, rows: int) -> np.ndarray:
    """uint64 of each row: its text hash, or its cluster's, with the seed."""
    exact = read_ipc(Path(item["decisions"]["exact"]), "decision.exact").column("hash")
    hashes = exact.to_pylist()
    for row, representative in item["clusters"].items():
        hashes[int(row)] = bytes.fromhex(representative)
    keys = [xxhash.xxh3_64_intdigest(digest, seed=item["seed"]) for digest in hashes]
    return np.array(keys, np.uint64).reshape(rows)


def _clusters(inputs: dict[str, Manifest]) -> dict[str, dict[str, str]]:
    """{shard: {row: hex hash of its cluster}} for near-duplicate clusters; the smallest hash names
    it.

    Documents that stay may still share a cluster (each resembles one that was dropped).
    """
    edges = read_ipc(inputs["neardup"].paths("edges")[0], "edges")
    columns = [edges.column(i).to_numpy().astype(np.int64) for i in range(4)]
    found = components(columns[0] << 32 | columns[1], columns[2] << 32 | columns[3])
    exact = inputs["exact"].paths("exact-")
    hashes = dict(_hashes(exact, sorted(found)))
    smallest: dict[int, str] = {}
    for document, root in found.items():
        smallest[root] = min(hashes[document], smallest.get(root, hashes[document]))
    clusters: dict[str, dict[str, str]] = {}
    for document, root in sorted(found.items()):
        clusters.setdefault(str(document >> 32), {})[str(document & 0xFFFFFFFF)] = smallest[root]
    return clusters


def _hashes(exact: list[Path], documents: list[int]) -> Iterator[tuple[int, str]]:
    names = np.array(documents, np.int64)
    for shard in np.unique(names >> 32):
        rows = names[names >> 32 == shard] & 0xFFFFFFFF
        column = read_ipc(exact[shard], "decision.exact").column("hash").take(pa.array(rows))
        for row, digest in zip(rows.tolist(), column.to_pylist(), strict=True):
            yield int(shard) << 32 | row, digest.hex()


def _nothing_left(dropped: dict[str, Any]) -> DataError:
    """No document, or only one: training and the held-out set need one each."""
    listing = [
        f"{stage} {reason} {numbers['documents']}"
        for stage, reasons in dropped.items()
        for reason, numbers in reasons.items()
    ]
    return DataError(
        "Fewer than two documents are left, and one must be held out",
        "dropped: " + (", ".join(listing) or "nothing"),
        "See the documents with `mutirao data show RUN --dropped`; then change the thresholds "
        "(`filter.thresholds`), keep more languages (`langid.keep`), or add sources.",
        "nothing-left",
    )
