"""Quality of the data stages on labelled text: near-duplicate pairs found, good documents kept.

    python benchmarks/data_quality.py --neardup neardup.jsonl.gz --pairs pairs.jsonl.gz --good DIR

--neardup: documents with `id`; --pairs: rows of a, b, jaccard (true Jaccard of word 5-gram sets);
--good: files of which every document is worth keeping. Prints one JSON object. Runs the stages in
this process, without Ray. Pairs count where both documents came as far as `neardup`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path

from data_jobs.shards import text_paths
from mutirao.core.manifest import Manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe import NearDup, Recipe, Source
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.schemas import read_ipc
from mutirao.core.workdir import Workdir
from mutirao.run.execute import Options, execute
from mutirao.run.show import manifests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neardup", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--good", type=Path, required=True)
    options = parser.parse_args()
    found = {f"pairs at {t}": pairs_found(options.neardup, options.pairs, t) for t in (0.8, 0.7)}
    print(json.dumps({**found, "good documents": kept(options.good)}, indent=1))


def run_until(stage: str, path: Path, workdir: Path, **sections) -> dict[str, Manifest]:
    recipe = Recipe(name="quality", sources=(Source(path=str(path), name="s"),), **sections)
    place = Workdir(workdir)
    loaded = LoadedRecipe(recipe, "", "benchmark", Path.cwd())
    run = execute(loaded, place, Options(until=stage, use_ray=False), Progress(quiet=True))
    return manifests(place, run)


def pairs_found(documents: Path, pairs: Path, threshold: float) -> dict[str, float]:
    """Recall and precision of the verified edges against the labelled pairs, and the documents
    dropped beside those that the star rule drops over the true pairs."""
    with tempfile.TemporaryDirectory() as folder:
        stages = run_until("neardup", documents, Path(folder), neardup=NearDup(threshold=threshold))
        tables = [read_ipc(path, "text") for path in text_paths(stages["clean"])]
        names = [table["name"].to_pylist() for table in tables]
        order = {
            name: (-len(text.encode()), id_)
            for table in tables
            for name, text, id_ in zip(*(table[c].to_pylist() for c in COLUMNS), strict=True)
        }
        alive = _names_alive(stages, names)
        edges = [e for p in stages["neardup"].paths("edges-") for e in read_ipc(p).to_pylist()]
        dropped = stages["neardup"].counts["dropped"]
        found = {
            frozenset((names[e["shard"]][e["row"]], names[e["other_shard"]][e["other_row"]]))
            for e in edges
        }
    with gzip.open(pairs, "rt", encoding="utf-8") as stream:
        labelled = [json.loads(line) for line in stream]
    true = {
        frozenset((p["a"], p["b"]))
        for p in labelled
        if p["jaccard"] >= threshold and {p["a"], p["b"]} <= alive
    }
    return {
        "true_pairs": len(true),
        "found": len(found & true),
        "recall": round(len(found & true) / len(true), 4),
        "precision": round(len(found & true) / max(1, len(found)), 4),
        "dropped": dropped,
        "dropped_by_the_star_rule_over_true_pairs": len(star_drops(true, order)),
    }


COLUMNS = ("name", "text", "id")


def star_drops(pairs: set[frozenset[str]], order: dict[str, tuple[int, bytes]]) -> set[str]:
    """In star order each document with a true pair to one that stays."""
    neighbours: dict[str, set[str]] = {}
    for one, other in map(tuple, pairs):
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    stays: set[str] = set()
    for name in sorted(neighbours, key=lambda n: order[n]):
        if not neighbours[name] & stays:
            stays.add(name)
    return set(neighbours) - stays


def _names_alive(stages: dict[str, Manifest], names: list[list[str]]) -> set[str]:
    """Documents that no earlier stage dropped."""
    alive = set()
    for shard, in_shard in enumerate(names):
        columns = [
            read_ipc(stages[s].paths(f"{s}-")[shard]).column("reason")
            for s in ("exact", "langid", "filter")
        ]
        for row, name in enumerate(in_shard):
            if not any(column[row].is_valid for column in columns):
                alive.add(name)
    return alive


def kept(folder: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        counts = run_until("filter", folder, Path(place))["filter"].counts
    share = 1 - counts["dropped"] / counts["documents_in"]
    return {**counts, "kept_by_the_filter": round(share, 4)}


if __name__ == "__main__":
    main()
