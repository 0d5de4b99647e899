"""What a changed threshold costs: judging again from decision shards, or writing the text again.

In: text files of any known format. Out: as JSON the bytes written, wall and CPU seconds of
each way, several times in turn. Both end durable (fsync) and with the same kept documents.

    python benchmarks/decision_shards.py --input FILE... [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_jobs import clean, filter, ingest
from data_jobs.quality.measure import measure
from data_jobs.quality.rules import columns, decide, profiles
from data_jobs.shards import shard_items, text_paths, write_table
from mutirao.core.job import StageJob
from mutirao.core.languages import load_pack
from mutirao.core.manifest import Manifest, commit
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import TEXT, read_ipc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        recipe = Recipe(sources=[{"path": [str(Path(p).absolute()) for p in options.input]}])
        done: dict[str, Manifest] = {}
        for stage in (ingest, clean, filter):
            stage_run(root, stage, recipe, done, "first")
        ways: dict[str, list[dict]] = {"decide": [], "measure and rewrite": [], "rewrite": []}
        for turn in range(options.repeats):
            limits = {"max_duplicate_lines": 0.3 + turn / 100}
            changed = recipe.model_copy(
                update={"filter": recipe.filter.model_copy(update={"thresholds": limits})}
            )
            decided = dict(done)
            key = f"turn{turn}"
            judge = partial(stage_run, root, filter, changed, decided, key)
            ways["decide"].append(measured(judge, root))
            for name in ("measure and rewrite", "rewrite"):
                write = partial(rewrite, root / name / key, decided, limits, name)
                ways[name].append(measured(write, root))
    print(json.dumps({name: summary(runs) for name, runs in ways.items()}, indent=1))


def stage_run(root: Path, stage, recipe: Recipe, done: dict[str, Manifest], key: str) -> None:
    """Run one stage in this process and commit it, as the composer does."""
    name = stage.__name__.rsplit(".", 1)[-1]
    directory = root / "store" / name / key
    directory.mkdir(parents=True)
    job = StageJob(name, recipe, directory, done, root / "run", Progress(quiet=True), False, root)
    result = stage.run(job)
    parts = [vars(part) for part in result.parts]
    content = {"stage": name, "parts": parts, "counts": result.counts, "info": result.info}
    done[name] = commit(directory, content, {})


def rewrite(folder: Path, done: dict[str, Manifest], limits: dict, how: str) -> None:
    """The other design: the stage writes the text it keeps (with or without measuring it again)."""
    pack = load_pack("por_Latn")
    everything = profiles(pack, limits)[""]
    for item, path in zip(shard_items(done, ("filter",)), text_paths(done["clean"]), strict=True):
        table = read_ipc(path, "text")
        if how == "rewrite":
            reasons = read_ipc(Path(item["decisions"]["filter"])).column("reason")
        else:
            values = [measure(b.column("text"), pack.stop_words) for b in table.to_batches()]
            decided = [decide(columns(value), everything) for value in values]
            reasons = pa.chunked_array([pa.array(one, pa.string()) for one in decided])
        kept = table.filter(reasons.is_null()).cast(TEXT)
        write_table(folder, path.name, kept)


def measured(way: Callable[[], None], root: Path) -> dict[str, float]:
    before, wall, cpu = size_of(root), time.perf_counter(), time.process_time()
    way()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"bytes": size_of(root) - before, "wall_s": wall, "cpu_s": cpu}


def size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def summary(runs: list[dict]) -> dict[str, list[float]]:
    """[median, least, greatest] of each figure."""
    return {
        name: [round(f([run[name] for run in runs]), 4) for f in (statistics.median, min, max)]
        for name in runs[0]
    }


if __name__ == "__main__":
    main()
