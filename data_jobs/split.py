"""Stage split: join all decisions, write the kept text shards, hold some documents out.

In: text shards and the decisions there are. Out: `train-00000.arrow` and `heldout-00000.arrow`
(KEPT), in the order of the text shards; info: what was kept, and why what was not.
Two passes over text shards: a mark for each row (`mark_unit`), then the kept text (`kept_shards`);
between them the rule of who is held out (`heldout`).
Memory: the decisions of a text shard; of the driver 2 kB a unit, and for planning the marks of one
shard at a time. At 1T tokens (2.4 billion documents) the marks take 38 GB of disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.heldout import heldout_keys, heldout_rule
from data_jobs.kept_shards import MARK, mark_name, plan, write_unit
from data_jobs.keyed import finished_records, remove_records, write_records
from data_jobs.language.spans import STAGES as CUTTING
from data_jobs.language.spans import kept_bytes, row_spans
from data_jobs.quality.shares import kept_by_license, shares
from data_jobs.shards import add_counts, byte_lengths, parts_of, shard_items
from data_jobs.streams import shard_streams
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.errors import DataError
from mutirao.core.job import StageJob, StageResult
from mutirao.core.schemas import read_ipc
from mutirao.core.stages import DECISION_STAGES

SIDES = ("train", "heldout")
TABLES = ("kept_per_source", "dropped", "dropped_per_source")


def run(job: StageJob) -> StageResult:
    """Raises DataError if fewer than two documents are left, or all are near-duplicates."""
    directory = {"directory": str(job.directory)}
    shards = [{**item, **directory} for item in shard_items(job.inputs, DECISION_STAGES)]
    marked = run_units(job, shards, mark_unit, "joining decisions")
    counts = add_counts([r["part"]["info"]["counts"] for r in marked])
    tables = {k: add_counts([r["part"]["info"][k] for r in marked]) for k in (*TABLES, "shares")}
    items = write_items(job, marked) if counts.get("documents_out") else []
    if {item["side"] for item in items} != set(SIDES):
        raise _nothing_left(counts.get("documents_out", 0), tables["dropped"])
    written = run_units(job, items, write_unit, "writing kept text")
    sides = add_counts([{r["part"]["info"]["side"]: r["part"]["info"]["kept"]} for r in written])
    info = {**sides, **tables, "licenses": kept_by_license(tables["shares"])}
    notes = {"cpu_s": cpu_seconds(marked + written)}
    remove_records(job.directory, marked)
    return StageResult(parts_of(written), counts, info, notes)


def write_items(job: StageJob, marked: list[Item]) -> list[Item]:
    """What `kept_shards.write_unit` needs for each kept text shard."""
    marks = [job.directory / mark_name(shard) for shard in range(len(marked))]
    rule = heldout_rule(marked, job.recipe.split.heldout)
    streams = shard_streams(job.inputs["clean"], job.recipe)
    read = ("clean", *CUTTING)
    folders = {stage: str(job.inputs[stage].directory) for stage in read if stage in job.inputs}
    return [
        {
            **folders,
            "directory": str(job.directory),
            "name": f"{side}-{number:05d}.arrow",
            "side": side,
            "rule": rule,
            "segments": segments,
            "streams": {str(shard): streams[shard] for shard, _, _ in segments},
        }
        for side in SIDES
        for number, segments in enumerate(plan(marks, rule, side == "heldout"))
    ]


def mark_unit(item: Item) -> Item:
    """A MARK record for each row of one text shard; info: all tables of counts."""
    directory, name = Path(item["directory"]), mark_name(item["shard"])
    if (finished := finished_records(directory, name)) is not None:
        return finished
    table = read_ipc(Path(item["text"]), "text")
    stage, reason = first_reasons(table.num_rows, item["decisions"])
    sizes = byte_lengths(table.column("text"))
    spans = row_spans(item["decisions"], table.num_rows)
    marks = np.zeros(table.num_rows, MARK)
    marks["kept"] = reason.is_null().to_numpy(zero_copy_only=False)
    marks["bytes"] = sizes if spans is None else kept_bytes(sizes, spans)
    marks["key"] = heldout_keys(table, item["decisions"])
    info = _counted(table.column("source"), marks, stage, reason)
    info["counts"]["text_bytes_in"] = int(sizes.sum())  # with what the spans leave out
    info["shares"] = shares(table, marks["bytes"], marks["kept"])
    return {"part": vars(write_records(directory, name, marks, info))}


def first_reasons(rows: int, decisions: dict[str, str]) -> tuple[pa.Array, pa.Array]:
    """For each row the first stage that dropped it and why (null, null where it is kept)."""
    stage = reason = pa.nulls(rows, pa.string())
    for name in DECISION_STAGES:
        if name not in decisions:
            continue
        found = read_ipc(Path(decisions[name]), f"decision.{name}").column("reason")
        if found.null_count == rows:
            continue
        found = found.combine_chunks()
        stage = pc.if_else(pc.and_(found.is_valid(), reason.is_null()), name, stage)
        reason = pc.coalesce(reason, found)
    return stage, reason


def _counted(
    sources: pa.ChunkedArray, marks: np.ndarray, stage: pa.Array, reason: pa.Array
) -> dict[str, Any]:
    """{counts, smallest: {source: least key of a kept row, as text}, and each of TABLES}."""
    rows = pa.table(
        {
            "source": pc.fill_null(sources, ""),
            "stage": stage,
            "reason": reason,
            "bytes": marks["bytes"].astype(np.int64),
            "key": np.ascontiguousarray(marks["key"]),
        }
    )
    wanted = [("bytes", "count"), ("bytes", "sum"), ("key", "min")]
    groups = rows.group_by(["source", "stage", "reason"], use_threads=False).aggregate(wanted)
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    smallest: dict[str, str] = {}
    for row in groups.to_pylist():
        source, name, why = row["source"], row["stage"], row["reason"]
        some = {"documents": row["bytes_count"], "text_bytes": row["bytes_sum"]}
        if why is None:
            tables["kept_per_source"][source] = some
            smallest[source] = str(row["key_min"])
            continue
        dropped = tables["dropped"].setdefault(name, {})
        dropped[why] = add_counts([dropped.get(why, {}), some])
        tables["dropped_per_source"].setdefault(source, {})[f"{name}.{why}"] = some
    kept = marks["kept"] > 0
    out = {"documents_out": int(kept.sum()), "text_bytes_out": int(marks["bytes"][kept].sum())}
    return {"counts": {"documents_in": len(marks), **out}, "smallest": smallest, **tables}


def _nothing_left(documents: int, dropped: dict[str, Any]) -> DataError:
    """Training and the held-out set need a document, and so a cluster, each."""
    listing = [
        f"{stage} {reason} {numbers['documents']}"
        for stage, reasons in dropped.items()
        for reason, numbers in reasons.items()
    ]
    problem = "Fewer than two documents are left, and one must be held out"
    if documents > 1:
        problem = (
            f"All {documents} documents that are left fall on one side of the held-out split: they "
            "are near-duplicates of one another, or too few"
        )
    return DataError(
        problem,
        "dropped: " + (", ".join(listing) or "nothing"),
        "See the documents with `mutirao data show RUN --dropped`; then change the thresholds "
        "(`filter.thresholds`), keep more languages (`langid.keep`), or add sources.",
        "nothing-left",
    )
