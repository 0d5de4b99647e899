"""Stage filter: measure the quality of each document, judge it by the language pack's thresholds.

In: text shards. Out: decision shards `filter-00000.arrow` with all measured values and model scores
of every row. Measuring, scoring and judging are apart: values and scores are kept in the workdir's
cache, so a changed threshold, genre profile or licence policy judges again without touching text.
Memory of a unit: a batch of documents and the values of one shard (140 bytes a document).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.quality.licenses import policy
from data_jobs.quality.measure import VALUES_SCHEMA, VERSION, measure
from data_jobs.quality.rules import columns, enforced, judge, profiles, rules_with
from data_jobs.quality.scores import (
    load_model,
    model_paths,
    score_items,
    scores_column,
    shard_scores,
)
from data_jobs.shards import (
    add_counts,
    decision_counts,
    decision_name,
    finished_result,
    parts_of,
    reason_info,
    shard_items,
    text_batches,
    write_table,
)
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.job import StageJob, StageResult
from mutirao.core.languages import Pack, load_pack, pack_folder
from mutirao.core.manifest import finished_part
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import FILTER, read_ipc


def run(job: StageJob) -> StageResult:
    """Raises RecipeError for a threshold that no rule knows, or a score model that is not there."""
    config = job.recipe.filter
    pack = load_pack(job.recipe.language, pack_folder(job.recipe, job.base))
    rules = rules_with(config.scores)
    wanted = profiles(pack, config.thresholds, rules)
    generic = enforced(pack, config.thresholds)
    limits = generic or wanted
    common = {
        "directory": str(job.directory),
        "values": str(values_directory(job, pack)),
        "stop_words": sorted(pack.stop_words),
        "word_characters": pack.word_characters,
        "profiles": limits,
        "would": wanted if generic else None,
        "scores": score_items(job),
        "licenses": list(config.allowed_licenses),
    }
    items = [{**item, **common} for item in shard_items(job.inputs, ())]
    results = run_units(job, items, filter_unit, "measuring quality")
    info = {
        "pack": pack.code,
        "evidence": pack.evidence,
        "thresholds": limits[""],
        "genres": {genre: limits[genre] for genre in _genres(job) if genre in limits},
        "would_drop": add_counts([r["part"]["info"]["would_drop"] for r in results]),
    }
    notes = {"cpu_s": cpu_seconds(results)}
    return StageResult(parts_of(results), decision_counts(results), info, notes)


def check(recipe: Recipe, base: Path) -> None:
    """Raises RecipeError for a threshold that no rule has, an allowed licence that is no SPDX id,
    or a score model that is not there or is none."""
    config = recipe.filter
    policy(config.allowed_licenses)
    pack = load_pack(recipe.language, pack_folder(recipe, base))
    profiles(pack, config.thresholds, rules_with(config.scores))
    for path in model_paths(recipe, base).values():
        load_model(str(path))


def values_directory(job: StageJob, pack: Pack) -> Path:
    """Where the values of this text, measured with this pack's words, are or will be."""
    clean = job.inputs["clean"].content_hash
    identity = {"clean": clean, "measure": VERSION, "stop_words": sorted(pack.stop_words)}
    if pack.word_characters:
        identity["word_characters"] = pack.word_characters
    name = sha256_hex(canonical_json(identity))[:32]
    return job.directory.parents[2] / "cache" / "filter-values" / name


def filter_unit(item: Item) -> Item:
    directory, name = Path(item["directory"]), decision_name("filter", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    rules = rules_with(item["scores"])
    values = measured(item, Path(item["values"]), name)
    scores = shard_scores(item)
    found = columns(values, scores)
    text = read_ipc(Path(item["text"]), "text")  # mapped: only the two narrow columns are touched
    genres = text.column("genre").to_numpy(zero_copy_only=False)
    reasons = judge(found, genres, item["profiles"], rules)
    refused = _refused(text.column("license"), item["licenses"])
    reasons[refused] = "license"
    would = np.full(len(reasons), None, dtype=object)
    if item["would"]:
        would = judge(found, genres, item["would"], rules)
        would[reasons != None] = None  # noqa: E711 (elementwise)
    return {"part": vars(_write(directory, name, reasons, would, values, scores))}


def measured(item: Item, directory: Path, name: str) -> pa.Table:
    """The values of one text shard, from the cache or measured now."""
    if finished_part(directory, name) is None:
        words, further = item["stop_words"], item["word_characters"]
        batches = text_batches(Path(item["text"]))
        found = [measure(batch.column("text"), words, further) for batch in batches]
        write_table(directory, name, pa.Table.from_batches(found, schema=VALUES_SCHEMA))
    return read_ipc(directory / name)


def _write(
    directory: Path,
    name: str,
    reasons: np.ndarray,
    would: np.ndarray,
    values: pa.Table,
    scores: dict[str, np.ndarray],
) -> Any:
    reason, would_drop = pa.array(reasons, pa.string()), pa.array(would, pa.string())
    measures = values.combine_chunks().columns
    arrays = [reason, would_drop, *measures, scores_column(scores, len(reasons))]
    table = pa.Table.from_arrays(arrays, schema=FILTER)
    info = {**reason_info(reason), "would_drop": reason_info(would_drop)["reasons"]}
    return write_table(directory, name, table, info)


def _refused(licenses: pa.ChunkedArray, allowed: list[str]) -> np.ndarray:
    """Mask of the rows whose licence the recipe does not allow."""
    if not allowed:
        return np.zeros(len(licenses), bool)
    from data_jobs.quality.licenses import disallowed

    return np.asarray(disallowed(licenses, tuple(allowed)), bool)


def _genres(job: StageJob) -> list[str]:
    return sorted({source.genre for source in job.recipe.sources if source.genre})
