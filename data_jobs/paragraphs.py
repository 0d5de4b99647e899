"""Repeated paragraphs: what stood in another document before is taken out of the later ones.

In: text shards, the decisions before, and the near-duplicates that `neardup` drops; only rows that
all of them keep take part, without instruction documents. Out: for each text shard the byte ranges
of its documents that stay, and the documents of which nothing worth keeping is left.
A paragraph ends at a blank line. One of at least `neardup.paragraph_words` words is compared by the
128-bit hash of its text as `exact.normalize` takes it; the first stays, in the order of
`exact.prefer`, of the ids, and inside a document from the top. Three passes, as in `exact`: hashes
of a text shard; repeats in a key range (`firsts`); ranges of a text shard.
Memory: a batch of text, the paragraphs of a shard, RANGE_BYTES a range. At 1T tokens (10 billion
such paragraphs) the hash files take 320 GB and are read once, in 2,500 ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.firsts import (
    RECORD_MEMORY,
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
from data_jobs.language.spans import cut, intersection
from data_jobs.near.drops import dropped_rows
from data_jobs.paragraph_ranges import Paragraphs, paragraph_hashes, paragraphs_of
from data_jobs.shards import halves, kept_rows, utf8_buffers
from data_jobs.streams import rank_runs
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.job import StageJob
from mutirao.core.schemas import read_ipc

REASON = "repeated-paragraphs"
LEAST_WORDS = 5  # that must be left where no long paragraph is: the words of one shingle
CUT = np.dtype([("row", "<u4"), ("start", "<u4"), ("end", "<u4")])
WORDS = re.compile(r"\w+")


def paragraph_spans(job: StageJob, items: list[Item]) -> list[Item]:
    """One result an item, in their order; `shard_cuts` reads what each wrote. The caller removes
    the files (`keyed.remove_records`) once its own parts are written.

    items: each with shard, text, decisions ({stage: path}) and drops (see `near.drops`).
    """
    directory = {"directory": str(job.directory)}
    done = [finished_records(job.directory, cut_name(item["shard"])) for item in items]
    if all(done):
        return [one for one in done if one]
    how = {"normalize": job.recipe.exact.normalize, "least": job.recipe.neardup.paragraph_words}
    shards = [{**item, **directory, **how} for item in items]
    hashed = run_units(job, shards, hash_unit, "hashing paragraphs")
    ranges = range_count(sum(r["part"]["rows"] for r in hashed) * RECORD_MEMORY)
    task = {**directory, "ranges": ranges, "ranks": rank_runs(job.inputs["clean"], job.recipe)}
    tasks = [{**task, "range": number} for number in range(ranges)]
    found = run_units(job, tasks, repeat_unit, "finding repeated paragraphs")
    cuts = run_units(job, [{**s, "ranges": ranges} for s in shards], cut_unit, "cutting paragraphs")
    remove_scratch(job.directory, ("paragraphs-*", "repeats-*"))
    before = cpu_seconds(hashed + found)  # counted with the first, as the others are not returned
    return [{**r, "cpu_s": r["cpu_s"] + before * (k == 0)} for k, r in enumerate(cuts)]


def shard_cuts(result: Item, directory: Path, rows: int) -> tuple[pa.Array, np.ndarray]:
    """(list<int32>[rows]: byte ranges that stay, null where all does; bool[rows]: nothing is left)
    of one result of `paragraph_spans`."""
    cuts = np.asarray(read_records(directory / result["part"]["path"]))
    gone = np.zeros(rows, bool)
    gone[cuts["row"][cuts["end"] == 0]] = True
    cuts = cuts[cuts["end"] > 0]
    counts = np.bincount(cuts["row"], minlength=rows) * 2
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = np.stack([cuts["start"], cuts["end"]], axis=1).reshape(-1).astype(np.int32)
    spans = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values), mask=pa.array(counts == 0)
    )
    return spans, gone


def hash_name(shard: int) -> str:
    return f"paragraphs-{shard:05d}.npy"


def repeat_name(number: int, ranges: int) -> str:
    return f"repeats-{number:05d}-of-{ranges:05d}.npy"


def cut_name(shard: int) -> str:
    return f"cuts-{shard:05d}.npy"


def hash_unit(item: Item) -> Item:
    """RECORDs of the long paragraphs of one text shard, sorted by hash."""
    directory, name = Path(item["directory"]), hash_name(item["shard"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    table = read_ipc(Path(item["text"]), "text")
    chosen = kept_rows(table.num_rows, item["decisions"]) & ~dropped_rows(item)
    chosen &= np.array(table.column("kind").to_pylist()) != "instruction"
    kept = _spans(item)
    hashes, rows, starts = [np.zeros((0, 2), np.uint64)], [], []
    for data, found in _paragraphs(table, np.flatnonzero(chosen)):
        long = found.chosen(found.words >= item["least"])
        long = long.chosen(_inside(long, kept)) if kept else long
        hashes.append(paragraph_hashes(data, long, item["normalize"]))
        rows.append(long.row)
        starts.append(long.start - long.origin)
    row = np.concatenate([np.zeros(0, np.int64), *rows])
    ids = halves(table.column("id"))[0][row]
    at = np.concatenate([np.zeros(0, np.int64), *starts])
    records = sorted_records(np.concatenate(hashes), ids, row, at)
    return {"part": vars(write_records(directory, name, records))}


def repeat_unit(item: Item) -> Item:
    """One key range over all shards: LATER records."""
    return later_unit(item, repeat_name(item["range"], item["ranges"]), hash_name)


def cut_unit(item: Item) -> Item:
    """CUT records of one text shard, by row: the ranges that stay of each document that is cut, or
    one with end 0 where nothing worth keeping is left. info: how much went."""
    directory, name = Path(item["directory"]), cut_name(item["shard"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    repeated = _repeated(item)
    table = read_ipc(Path(item["text"]), "text")
    kept = _spans(item)
    cuts: list[tuple[int, int, int]] = []
    went = {"documents": 0, "paragraphs": len(repeated), "text_bytes": 0}
    for data, found in _paragraphs(table, np.unique(repeated >> np.uint64(32)).astype(np.int64)):
        gone = np.isin(_names(found.row, found.start - found.origin), repeated)
        for row, first, last in found.documents():
            origin = int(found.origin[first])
            text = bytes(data[origin : origin + int(found.size[first])])
            ranges = found.chosen(slice(first, last))
            spans = what_stays(text, ranges, gone[first:last], kept.get(row), item["least"])
            before = sum(kept[row][1::2]) - sum(kept[row][::2]) if row in kept else len(text)
            went["documents"] += 1
            went["text_bytes"] += before - sum(spans[1::2]) + sum(spans[::2])
            cuts += [(row, a, b) for a, b in zip(spans[::2], spans[1::2], strict=True)]
            cuts += [] if spans else [(row, 0, 0)]
    return {"part": vars(write_records(directory, name, np.array(cuts, CUT), went))}


def what_stays(
    text: bytes, found: Paragraphs, gone: np.ndarray, kept: list[int] | None, least: int
) -> list[int]:
    """[start, end, ...] in bytes of one document without the paragraphs that are `gone`; empty
    where no long paragraph stays and fewer than LEAST_WORDS words. kept: what `langid` leaves.

    A paragraph goes with the blank lines behind it; the last one that stays ends the text.
    """
    starts = (found.start - found.origin).tolist()
    borders = [0, *starts[1:], len(text)]
    spans: list[int] = []
    for k in np.flatnonzero(~gone).tolist():
        if spans and spans[-1] == borders[k]:
            spans[-1] = borders[k + 1]
        else:
            spans += borders[k : k + 2]
    spans = trimmed(text, intersection(spans, kept) or [])
    if bool((found.words[~gone] >= least).any()):
        return spans
    left = cut(text, spans).decode("utf-8", "replace")
    return spans if len(WORDS.findall(left)) >= LEAST_WORDS else []


def trimmed(text: bytes, spans: list[int]) -> list[int]:
    """The spans without the space at the end of what they leave."""
    while spans:
        start, end = spans[-2:]
        if stripped := text[start:end].rstrip():
            return [*spans[:-1], start + len(stripped)]
        spans = spans[:-2]
    return []


def _repeated(item: Item) -> np.ndarray:
    """uint64: row << 32 | place in the document, of the shard's paragraphs that stood before."""
    directory, shard = Path(item["directory"]), item["shard"]
    records = np.asarray(read_records(directory / hash_name(shard)))
    records = records[repeats(records)]
    names = [repeat_name(number, item["ranges"]) for number in range(item["ranges"])]
    later = [key_slice(read_records(directory / n), "shard", shard, shard + 1) for n in names]
    return np.sort(np.concatenate([_names(one["row"], one["at"]) for one in (records, *later)]))


def _names(row: np.ndarray, at: np.ndarray) -> np.ndarray:
    return (row.astype(np.uint64) << np.uint64(32)) | at.astype(np.uint64)


def _paragraphs(table: pa.Table, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Paragraphs]]:
    """The paragraphs of these rows (rising) and the bytes they lie in, a batch at a time."""
    first = 0
    for batch in table.select(["text"]).to_batches():
        some = rows[(rows >= first) & (rows < first + batch.num_rows)] - first
        if len(some):
            data, offsets = utf8_buffers(batch.column("text"))
            for found in paragraphs_of(data, offsets, some):
                yield data, found.moved(first)
        first += batch.num_rows


def _spans(item: Item) -> dict[int, list[int]]:
    """{row: byte ranges} of the documents of which `langid` leaves out paragraphs."""
    path = item["decisions"].get("langid")
    column = read_ipc(Path(path), "decision.langid").column("spans") if path else None
    if column is None or column.null_count == len(column):
        return {}
    return {row: one for row, one in enumerate(column.to_pylist()) if one is not None}


def _inside(found: Paragraphs, kept: dict[int, list[int]]) -> np.ndarray:
    """bool: does the paragraph lie in the text that `langid` leaves?"""
    inside = np.ones(len(found.row), bool)
    for k in np.flatnonzero(np.isin(found.row, list(kept))).tolist():
        spans, start = kept[int(found.row[k])], int(found.start[k] - found.origin[k])
        end = int(found.end[k] - found.origin[k])
        pairs: Any = zip(spans[::2], spans[1::2], strict=True)
        inside[k] = any(a <= start and end <= b for a, b in pairs)
    return inside
