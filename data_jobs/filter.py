"""Stage filter: measure the quality of each document, judge it by the language pack's thresholds.

In: text shards. Out: decision shards `filter-00000.arrow` with all measured values of every row.
Measuring and judging are apart: values are kept in the workdir's cache, so a changed
threshold judges again from them without touching text. Memory of a unit: a batch of documents and
the values of one shard (60 bytes a document).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.measure import BULLETS, VERSION, measure_batch
from data_jobs.shards import (
    decision_counts,
    decision_name,
    finished_result,
    parts_of,
    reason_info,
    shard_items,
    text_batches,
    utf8_buffers,
    write_table,
)
from data_jobs.units import Item, cpu_seconds, run_units
from data_jobs.words import folded, tables, word_hashes
from mutirao.core.errors import RecipeError, nearest
from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.job import StageJob, StageResult
from mutirao.core.languages import Pack, load_pack
from mutirao.core.manifest import finished_part
from mutirao.core.schemas import FILTER, FILTER_VALUES, read_ipc

# (threshold, measured value, +1 if a greater value drops or -1, reason), in the order of judging.
RULES: tuple[tuple[str, str, int, str], ...] = (
    ("min_words", "words", -1, "too-short"),
    ("max_words", "words", 1, "too-long"),
    ("min_mean_word_length", "mean_word_length", -1, "short-words"),
    ("max_mean_word_length", "mean_word_length", 1, "long-words"),
    ("min_alpha_words", "alpha_words", -1, "few-letters"),
    ("max_symbol_ratio", "symbol_ratio", 1, "symbols"),
    ("max_uppercase", "uppercase", 1, "shouting"),
    ("max_bullet_lines", "bullet_lines", 1, "bullet-lines"),
    ("max_ellipsis_lines", "ellipsis_lines", 1, "ellipsis-lines"),
    ("max_duplicate_lines", "duplicate_lines", 1, "repetition-lines"),
    ("max_duplicate_line_characters", "duplicate_line_characters", 1, "repetition-lines"),
    ("max_top_bigram", "top_bigram", 1, "repetition-words"),
    ("max_duplicate_5grams", "duplicate_5grams", 1, "repetition-words"),
    ("min_stop_words", "stop_words", -1, "few-stop-words"),
)
VALUE_NAMES = [name for name, _ in FILTER_VALUES]
VALUES_SCHEMA = pa.schema([pa.field(n, t) for n, t in FILTER_VALUES])


def run(job: StageJob) -> StageResult:
    """Raises RecipeError for a threshold that no rule knows."""
    pack = load_pack(job.recipe.language)
    limits = thresholds(pack, job.recipe.filter.thresholds)
    values = values_directory(job, pack)
    common = {
        "directory": str(job.directory),
        "values": str(values),
        "thresholds": limits,
        "stop_words": sorted(pack.stop_words),
    }
    items = [{**item, **common} for item in shard_items(job.inputs, ())]
    results = run_units(job, items, filter_unit, "measuring quality")
    info = {"pack": pack.code, "evidence": pack.evidence, "thresholds": limits}
    notes = {"cpu_s": cpu_seconds(results)}
    return StageResult(parts_of(results), decision_counts(results), info, notes)


def thresholds(pack: Pack, overrides: dict[str, float]) -> dict[str, float]:
    """The pack's thresholds with the recipe's on top, sorted by name."""
    known = [rule[0] for rule in RULES]
    for name in overrides:
        if name not in known:
            where = f"filter.thresholds.{name}"
            raise RecipeError("Unknown threshold", where, nearest(name, known), "unknown-threshold")
    return dict(sorted({**pack.thresholds, **overrides}.items()))


def values_directory(job: StageJob, pack: Pack) -> Path:
    """Where the values of this text measured with these stop words are, or will be."""
    clean = job.inputs["clean"].content_hash
    identity = {"clean": clean, "measure": VERSION, "stop_words": sorted(pack.stop_words)}
    return (
        job.directory.parents[2]
        / "cache"
        / "filter-values"
        / sha256_hex(canonical_json(identity))[:32]
    )


def filter_unit(item: Item) -> Item:
    directory, name = Path(item["directory"]), decision_name("filter", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    values = measured(item, Path(item["values"]), name)
    reasons = decide(values, item["thresholds"])
    table = pa.Table.from_arrays([reasons, *values.combine_chunks().columns], schema=FILTER)
    return {"part": vars(write_table(directory, name, table, reason_info(reasons)))}


def measured(item: Item, directory: Path, name: str) -> pa.Table:
    """The values of one text shard, from the store or measured now."""
    if finished_part(directory, name) is None:
        batches = text_batches(Path(item["text"]))
        found = [measure(batch.column("text"), item["stop_words"]) for batch in batches]
        write_table(directory, name, pa.Table.from_batches(found, schema=VALUES_SCHEMA))
    return read_ipc(directory / name)


def measure(texts: pa.Array | list[str], stop_words: list[str]) -> pa.RecordBatch:
    """Values of FILTER_VALUES for each text."""
    column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    data, offsets = utf8_buffers(column)
    kinds, lower = tables()
    found = measure_batch(data, offsets, kinds, lower, stop_hashes(tuple(stop_words)), BULLETS)
    arrays = [pa.array(found[:, i]).cast(t, safe=False) for i, (_, t) in enumerate(FILTER_VALUES)]
    return pa.RecordBatch.from_arrays(arrays, schema=VALUES_SCHEMA)


def stop_hashes(words: tuple[str, ...]) -> np.ndarray:
    """Sorted hashes of the stop words, as the kernel hashes words."""
    kinds, lower = tables()
    data, offsets = folded(pa.array(words, pa.large_string()))
    out = np.zeros(len(data) + 1, np.uint64)
    hashes = [
        out[: word_hashes(data, offsets[i], offsets[i + 1], kinds, lower, out)].copy()
        for i in range(len(words))
    ]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes]))


def decide(values: pa.Table | pa.RecordBatch, limits: dict[str, float]) -> pa.Array:
    """The first reason of RULES that applies to each row, null where none does."""
    reasons = np.full(values.num_rows, None, dtype=object)
    for threshold, value, sign, reason in RULES:
        if threshold not in limits:
            continue
        column: Any = values.column(value).to_numpy(zero_copy_only=False)
        beyond = (column - limits[threshold]) * sign > 0
        reasons[beyond & (reasons == None)] = reason  # noqa: E711 (elementwise)
    return pa.array(reasons, pa.string())
