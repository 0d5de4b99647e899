"""Stage decontaminate: drop documents that share word n-grams with evaluation sets.

In: text shards, and the files of `decontaminate.against` (JSON, JSON lines or text). Out: decision
shards with each row's share of n-grams (13 words by default, as in Brown et al. 2020, GPT-3,
appendix C) that stand in an evaluation set, and the first file that matched. An evaluation text
shorter than the n-gram is not looked for; info counts them. Memory: 12 bytes an evaluation n-gram,
and a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from data_jobs.keyed import read_records, remove_records, write_records
from data_jobs.read.streams import BrokenStream, blocks
from data_jobs.shards import (
    decision_counts,
    decision_name,
    finished_result,
    kept_rows,
    parts_of,
    reason_info,
    shard_items,
    write_table,
)
from data_jobs.units import Item, cpu_seconds, run_units
from data_jobs.words import folded, shingle_hashes, tables, word_hashes
from mutirao.core.errors import RecipeError
from mutirao.core.job import StageJob, StageResult
from mutirao.core.schemas import DECONTAMINATE, read_ipc

NGRAM = np.dtype([("hash", "<u8"), ("file", "<u4")])


def run(job: StageJob) -> StageResult:
    """Raises RecipeError if a file of `against` is missing or unreadable."""
    config = job.recipe.decontaminate
    grams, skipped = evaluation_ngrams(config.against, job.base, config.ngram)
    index = write_records(job.directory, "ngrams.npy", grams)
    common = {
        "directory": str(job.directory),
        "index": str(job.directory / index.path),
        "against": list(config.against),
        "ngram": config.ngram,
        "max_overlap": config.max_overlap,
    }
    items = [{**item, **common} for item in shard_items(job.inputs, ("neardup",))]
    results = run_units(job, items, decontaminate_unit, "decontaminating")
    info = {"ngrams": len(grams), "short_evaluation_texts": skipped}
    notes = {"cpu_s": cpu_seconds(results)}
    remove_records(job.directory, [{"part": vars(index)}])
    return StageResult(parts_of(results), decision_counts(results), info, notes)


def evaluation_ngrams(
    against: tuple[str, ...], base: Path, n: int
) -> tuple[np.ndarray, dict[str, int]]:
    """(NGRAM records sorted by hash, {file: texts too short to be looked for})."""
    found, skipped = [np.zeros(0, NGRAM)], {}
    for number, name in enumerate(against):
        hashes = [_ngrams(text, n) for text in evaluation_texts(base / Path(name).expanduser())]
        skipped[name] = sum(len(h) == 0 for h in hashes)
        distinct = np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes]))
        records = np.zeros(len(distinct), NGRAM)
        records["hash"], records["file"] = distinct, number
        found.append(records)
    merged = np.concatenate(found)
    merged.sort(order=["hash", "file"])
    return merged, skipped


def evaluation_texts(path: Path) -> Iterator[str]:
    """All string values of a JSON or JSON lines file; each paragraph of any other text file."""
    try:
        text = b"".join(blocks(path)).decode("utf-8")
    except (OSError, BrokenStream, UnicodeDecodeError) as error:
        hint = "Correct `decontaminate.against` in the recipe."
        raise RecipeError(f"Cannot read the evaluation file: {error}", str(path), hint) from error
    if ".json" not in path.name:
        yield from text.split("\n\n")
        return
    try:
        yield from _strings(json.loads(text))
    except ValueError:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield from _strings(_parsed(line, path, number))


def decontaminate_unit(item: Item) -> Item:
    directory, name = Path(item["directory"]), decision_name("decontaminate", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    table = read_ipc(Path(item["text"]), "text")
    kept = kept_rows(table.num_rows, item["decisions"])
    overlap, matched, start = [], [], 0
    for batch in table.to_batches():
        share, file = overlaps(batch.column("text"), item["index"], item["ngram"])
        here = kept[start : start + batch.num_rows]
        overlap.append(np.where(here, share, 0))
        matched.append(np.where(here, file, -1))
        start += batch.num_rows
    share = np.concatenate([np.zeros(0), *overlap])
    decided = decide(share, np.concatenate([np.zeros(0, np.int64), *matched]), item)
    info = reason_info(decided.column("reason").combine_chunks())
    return {"part": vars(write_table(directory, name, decided, info))}


def overlaps(texts: pa.Array, index: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(share of each text's n-grams that are in the index, number of the first file or -1)."""
    data, offsets = folded(texts)
    kinds, lower = tables()
    hashes, files = _index(index)
    return overlap_batch(data, offsets, kinds, lower, n, hashes, files)


@numba.njit(cache=True, nogil=True)
def overlap_batch(data, offsets, kinds, lower, n, hashes, files):
    rows = offsets.shape[0] - 1
    share, file = np.zeros(rows), np.full(rows, -1)
    for row in range(rows):
        start, end = offsets[row], offsets[row + 1]
        words = np.empty((end - start + 1) // 2 + 1, np.uint64)
        count = word_hashes(data, start, end, kinds, lower, words)
        grams = np.empty(max(0, count - n + 1), np.uint64)
        total = shingle_hashes(words, count, n, grams)
        hits = 0
        for k in range(total):
            place = np.searchsorted(hashes, grams[k])
            if place < hashes.shape[0] and hashes[place] == grams[k]:
                hits += 1
                if file[row] < 0:
                    file[row] = files[place]
        share[row] = hits / max(total, 1)
    return share, file


def decide(share: np.ndarray, matched: np.ndarray, item: Item) -> pa.Table:
    contaminated = (share > item["max_overlap"]) & (matched >= 0)
    names = np.array([*item["against"], ""], dtype=object)
    columns: list[Any] = [
        pa.array(np.where(contaminated, "evaluation-text", ""), pa.string(), mask=~contaminated),
        pa.array(share, pa.float32()),
        pa.array(names[matched], pa.string(), mask=matched < 0),
    ]
    return pa.Table.from_arrays(columns, schema=DECONTAMINATE)


@cache
def _index(path: str) -> tuple[np.ndarray, np.ndarray]:
    records = read_records(path)
    return np.ascontiguousarray(records["hash"]), np.ascontiguousarray(records["file"])


def _ngrams(text: str, n: int) -> np.ndarray:
    data, offsets = folded(pa.array([text], pa.large_string()))
    kinds, lower = tables()
    words = np.empty(len(data) // 2 + 2, np.uint64)
    count = word_hashes(data, offsets[0], offsets[1], kinds, lower, words)
    out = np.empty(max(0, count - n + 1), np.uint64)
    shingle_hashes(words, count, n, out)
    return out


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise RecipeError(f"Not JSON: {error}", f"{path}:{number}", code="bad-json") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
