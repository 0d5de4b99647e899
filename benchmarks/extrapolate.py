"""From a measured run of the whole data side to 1T tokens: a table per stage.

    python benchmarks/extrapolate.py results/DATE-scale_run.json [--text-bytes 4.9e12]
        [--documents 2.4e9] [--tokens 1e12] [--shard-bytes 256e6] [--json]

In: what `scale_run.py` wrote. The rate is that of the last, largest corpus with all that is paid
once in it (so rather too high), and beside it stands how the stage's CPU time grew from the corpus
before, divided by the growth of text. Out: core-hours, bytes in, written and shuffled, files and
tasks of each stage at the larger size; then what of it is linear by measurement and what is an
assumption.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

RANGE_BYTES = 256_000_000  # of one key range, data_jobs.keyed
ITEM_BYTES = 2_000  # what the driver holds for a task, data_jobs.units
EDGE_BYTES = 10  # for each document that has an edge, while components are made
FIXED = ("tokenizer",)  # works on a sample of a fixed size
COLUMNS = ("growth", "core-hours", "in, TB", "written, TB", "shuffled, TB", "files", "tasks")
ASSUMPTIONS = """
Linear by measurement, where `growth` of scale_run is at most 1.1 from one corpus to the next: CPU
time of each stage, bytes, and the number of files and tasks at one shard size. Fixed: the tokenizer
(a sample). Assumed, not measured:
- The share of documents with a near-duplicate, and so edges, stays as in the measured corpus; real
  corpora repeat more as they grow.
- Candidates: two documents that share boilerplate meet in a band by chance, so buckets grow with
  the corpus; from 32 documents a bucket gives at most 16 pairs each. Bound: {pairs:.0f} G pairs.
- A pass by key range takes {ranges:,} ranges of {range_mb:.0f} MB, each from {shards:,} files:
  {slices:.0f} M slices of {slice_kb:.0f} kB on average. The page cache held the files in the
  measured run; from disks or an object store these are random reads. Larger ranges make fewer.
- Bytes in: what the stage's inputs hold, once. Verification reads texts of candidates again.
- A shard of {shard_mb:.0f} MB instead of 64 MB: memory of a unit grows with it, its rate does not.
- The driver holds {driver_mb:.0f} MB (2 kB a task of the largest pass); components take
  at most {edges_gb:.1f} GB in one process (10 bytes a document that has an edge).
- Scheduling, stragglers and lost nodes cost nothing; one core is as fast as those measured here.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--text-bytes", type=float, default=4.9e12)
    parser.add_argument("--documents", type=float, default=2.4e9)
    parser.add_argument("--tokens", type=float, default=1e12)
    parser.add_argument("--shard-bytes", type=float, default=256e6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = json.loads(options.result.read_text())
    found = extrapolate(result, options)
    print(json.dumps(found, indent=1) if options.json else page(found, options))


def extrapolate(result: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    last = result["runs"][-1]
    grown = {k: v["cpu_s"] for k, v in (result["growth"] or [{}])[-1].items() if k != "text"}
    scale = options.text_bytes / last["text_bytes"]
    shards = math.ceil(options.text_bytes / options.shard_bytes)
    rows = {}
    for name, stage in last["stages"].items():
        rows[name] = {**row(name, stage, scale, shards, last, options), "growth": grown.get(name)}
    return {
        "measured_text_bytes": last["text_bytes"],
        "text_bytes": options.text_bytes,
        "shards": shards,
        "stages": rows,
        "pairs": options.documents * 20 * 16,
        "edges_bytes": options.documents * edge_share(last) * EDGE_BYTES,
    }


def row(
    name: str,
    stage: dict[str, Any],
    scale: float,
    shards: int,
    run: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """A pass that had a task for each text shard has one there
    too; another (a task a file, a key range or an output shard) grows with the bytes."""
    if name in FIXED:
        return {
            "core_hours": stage["cpu_s"] / 3600,
            **{f"{key}_bytes": 0 for key in ("in", "written", "shuffled")},
            "files": stage["files_out"],
            "tasks": max(1, sum(stage["passes"].values())),
            "largest_pass": 1,
            "ranges": 0,
        }
    here = measured_shards(run)
    shuffled = stage["temporary_bytes"] * scale
    ranges = math.ceil(shuffled / RANGE_BYTES)

    def at_scale(number: int) -> int:
        if number == here:
            return shards
        return max(math.ceil(number * scale * 64e6 / options.shard_bytes), ranges)

    passes = [at_scale(number) for number in stage["passes"].values()] or [1]
    return {
        "core_hours": stage["cpu_s"] * scale / 3600,
        "in_bytes": stage["bytes_in"] * scale,
        "written_bytes": stage["bytes_out"] * scale,
        "shuffled_bytes": shuffled,
        "files": round(stage["files_out"] / here * shards) if name != "ingest" else 1,
        "tasks": sum(passes),
        "largest_pass": max(passes),
        "ranges": ranges,
    }


def measured_shards(run: dict[str, Any]) -> int:
    """Text shards of the measured run: `exact` and the other judges write one file for each."""
    return run["stages"]["filter"]["files_out"]


def edge_share(run: dict[str, Any]) -> float:
    """Documents with an edge are at most two for each edge, and at most all."""
    edges = run["stages"]["neardup"].get("counts", {}).get("edges", run["documents"])
    return min(1.0, 2 * edges / run["documents"])


def page(found: dict[str, Any], options: argparse.Namespace) -> str:
    lines = [f"| stage | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    total = [0.0] * (len(COLUMNS) - 1)
    for name, stage in found["stages"].items():
        keys = ("in_bytes", "written_bytes", "shuffled_bytes")
        cells = [stage["core_hours"], *(stage[key] / 1e12 for key in keys)]
        cells += [stage["files"], stage["tasks"]]
        total = [a + b for a, b in zip(total, cells, strict=True)]
        lines.append(line(name, stage["growth"], cells))
    lines.append(line("together", None, total))
    return "\n".join(lines) + "\n" + assumptions(found, options)


def line(name: str, grown: float | None, cells: list[float]) -> str:
    hours, *sizes, files, tasks = cells
    shown = ["" if grown is None else f"{grown:.2f}", f"{hours:,.1f}"]
    shown += [*(f"{size:.2f}" for size in sizes), f"{files:,.0f}", f"{tasks:,.0f}"]
    return f"| {name} | {' | '.join(shown)} |"


def assumptions(found: dict[str, Any], options: argparse.Namespace) -> str:
    ranges = max(stage["ranges"] for stage in found["stages"].values())
    slices = max(1, ranges * found["shards"])
    shuffled = max(stage["shuffled_bytes"] for stage in found["stages"].values())
    largest = max(stage["largest_pass"] for stage in found["stages"].values())
    return ASSUMPTIONS.format(
        pairs=found["pairs"] / 1e9,
        ranges=ranges,
        range_mb=RANGE_BYTES / 1e6,
        shards=found["shards"],
        slices=slices / 1e6,
        slice_kb=shuffled / slices / 1e3,
        shard_mb=options.shard_bytes / 1e6,
        driver_mb=largest * ITEM_BYTES / 1e6,
        edges_gb=found["edges_bytes"] / 1e9,
    )


if __name__ == "__main__":
    main()
