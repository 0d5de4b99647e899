"""The whole data side on a corpus: time, memory and bytes of every stage; growth; kills.

    python benchmarks/scale_run.py --corpus DIR [DIR ...] --workdir W [--kill workers nodes driver]

In: folders of *.jsonl.gz (one source a file name without its number, see `grow_corpus.py`), the
smallest first. Each is taken from files to token shards (ingest to pack, with a made-up evaluation
set for decontaminate) by the normal composer with Ray on the local cores, in a process of its own
that is watched from outside (`process_watch.py`). Out: one JSON object, also in `results/`.
With two or more corpora: growth of time divided by growth of text, whole and by stage (the goal is
at most 1.1). --kill repeats the last corpus while Ray workers are SIGKILLed at random, while whole
nodes of a small cluster on this host are taken away, or with the driver and all its workers killed
and the command given again; the content hash of every stage must be that of the calm run.
Takes about a CPU-second for 4 MB of text; the work folder needs four times the text.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from process_watch import Killer, Watch, kill_all, kill_tree, summary

from mutirao.core.manifest import Manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.stages import BY_NAME
from mutirao.core.workdir import Workdir

RESULTS = Path(__file__).parent / "results"
QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
WAYS = ("workers", "nodes", "driver")
MOST_DEATHS = 5  # of the driver
NODES = 3  # beside the head, each with one core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, nargs="+", required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--kill", nargs="*", choices=WAYS, default=[])
    parser.add_argument(
        "--kill-every", type=float, default=5.0, help="seconds before the first kill"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="K=V", help="recipe fields")
    parser.add_argument("--name", default="scale_run", help="of the file in benchmarks/results/")
    options = parser.parse_args()
    if "SCALE_RUN_NODES" in os.environ:
        work(options, int(os.environ["SCALE_RUN_NODES"]))
        return
    subprocess.run([sys.executable, "-m", "data_jobs.compile_kernels"], check=True)
    calm = [watched(options, corpus, "calm") for corpus in options.corpus]
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "runs": calm}
    found["growth"] = [growth(a, b) for a, b in pairwise(calm)]
    found["killed"] = {way: disturbed(options, way, calm[-1]) for way in options.kill}
    text = json.dumps(found, indent=1)
    (RESULTS / f"{time.strftime('%Y-%m-%d')}-{options.name}.json").write_text(text + "\n")
    print(text)


def watched(options: argparse.Namespace, corpus: Path, way: str) -> dict[str, Any]:
    """One run in a child process, begun again for as long as it is killed."""
    workdir = options.workdir.absolute() / f"{corpus.name}-{way}"
    workdir.mkdir(parents=True)
    command = [sys.executable, __file__, "--corpus", str(corpus), "--workdir", str(workdir)]
    command += ["--seed", str(options.seed), "--kill-every", str(options.kill_every)]
    command += ["--set", *options.set] if options.set else []
    environment = {**os.environ, **QUIET, "SCALE_RUN_NODES": str(NODES if way == "nodes" else 0)}
    deaths, kills, began = 0, {}, time.time()
    while True:
        child = subprocess.Popen(command, env=environment)
        with Watch(child.pid, workdir / "store") as watch:
            if way == "workers":
                with Killer(watch, options.kill_every, options.seed) as killer:
                    code = child.wait()
                kills = killer.by_kind()
            elif way == "driver" and deaths < MOST_DEATHS:
                code = wait_or_kill(child, watch, 4 * options.kill_every * (1 + deaths))
            else:
                code = child.wait()
        if code == 0:
            break
        if code != -9:
            raise SystemExit(f"the run ended with exit code {code}")
        deaths += 1
    found = json.loads((workdir / "scale.json").read_text())
    return {**measured(found, watch, began), "kills": kills or found["kills"] or deaths}


def wait_or_kill(child: subprocess.Popen, watch: Watch, seconds: float) -> int:
    """Exit code; after `seconds` the driver and then all its processes are SIGKILLed."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_tree(child, watch.members)
        return child.wait()


def measured(found: dict[str, Any], watch: Watch, began: float) -> dict[str, Any]:
    """What the child says about its stages, with what was seen of them from outside."""
    end, folders = time.time(), found.pop("folders")
    for name, stage in found["stages"].items():
        begin = stage.pop("began")
        until = begin + stage["wall_s"]
        seen = watch.files(Path(folders[name]))
        temporary = {n: size for n, size in seen.items() if n not in stage["parts"]}
        stage["files_out"] = len(stage.pop("parts"))
        stage["temporary_files"] = len(temporary)
        stage["temporary_bytes"] = sum(temporary.values())
        stage["cpu_s"] = watch.cpu_s(begin, until)
        stage |= {k: v for k, v in summary(watch, begin, until).items() if k != "by_kind"}
        found["stages"][name] = stage
    whole = {"wall_s": round(end - began, 2), "cpu_s": watch.cpu_s(began, end)}
    return {**found, **whole, **summary(watch, began, end)}


def growth(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """(time of large / time of small) / (text of large / text of small)."""
    text = large["text_bytes"] / small["text_bytes"]
    found: dict[str, Any] = {"text": round(text, 2)}
    pairs = {"whole": (small, large)}
    pairs |= {name: (small["stages"][name], stage) for name, stage in large["stages"].items()}
    for name, (a, b) in pairs.items():
        found[name] = {
            figure: round(b[figure] / max(a[figure], 0.01) / text, 3)
            for figure in ("wall_s", "cpu_s")
        }
    return found


def disturbed(options: argparse.Namespace, way: str, calm: dict[str, Any]) -> dict[str, Any]:
    """The last corpus again under kills: what was killed, and which stages came out otherwise."""
    found = watched(options, options.corpus[-1], way)
    hashes = {name: stage["content_hash"] for name, stage in calm["stages"].items()}
    other = [n for n, stage in found["stages"].items() if stage["content_hash"] != hashes[n]]
    return {
        "kills": found["kills"],
        "wall_s": found["wall_s"],
        "stages": len(hashes),
        "stages_with_other_content": other,
    }


# --- the child -----------------------------------------------------------------------------------


class Counted(Progress):
    """Notes the passes of each stage: what the units are called, how many, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[float, str, int]] = []

    def start(self, total: int, label: str, unit: str = "units") -> None:
        self.passes.append((time.time(), label, total))
        super().start(total, label, unit)


def work(options: argparse.Namespace, nodes: int) -> None:
    """The run itself; `scale.json` in the work folder says what each stage made."""
    from mutirao.run.execute import Options, execute
    from mutirao.run.show import manifests

    (corpus,), folder = options.corpus, options.workdir
    recipe = recipe_of(corpus, folder, options.set)
    kills: list[float] = []
    if nodes:
        recipe = on_cluster(recipe, nodes, options.kill_every, kills)
    workdir, progress = Workdir(folder), Counted()
    loaded = LoadedRecipe(recipe, "", "scale_run", folder)
    run = execute(loaded, workdir, Options(until="pack", report=False), progress)
    made = manifests(workdir, run)
    found = {
        "corpus": corpus.name,
        "text_bytes": made["clean"].counts["text_bytes_out"],
        "documents": made["clean"].counts["documents_in"],
        "stages": {name: facts(name, made, progress.passes) for name in made},
        "folders": {name: str(manifest.directory) for name, manifest in made.items()},
        "kills": len(kills),
    }
    (folder / "scale.json").write_text(json.dumps(found))
    if nodes:
        kill_all(psutil.Process().children(recursive=True))


def facts(
    name: str, made: dict[str, Manifest], passes: list[tuple[float, str, int]]
) -> dict[str, Any]:
    manifest = made[name]
    began, wall = (manifest.provenance[key] for key in ("began", "wall_s"))
    inputs = [made[stage] for stage in BY_NAME[name].inputs if stage in made]
    read = sum(part.bytes for one in inputs for part in one.parts)
    return {
        "began": began,
        "wall_s": wall,
        "units_cpu_s": manifest.provenance["notes"].get("cpu_s", 0),
        "bytes_in": made["ingest"].counts["bytes"] if name in ("ingest", "clean") else read,
        "bytes_out": sum(part.bytes for part in manifest.parts),
        "parts": [part.path for part in manifest.parts],
        "passes": {label: n for at, label, n in passes if began <= at <= began + wall},
        "counts": manifest.counts,
        "content_hash": manifest.content_hash,
    }


def recipe_of(corpus: Path, folder: Path, overrides: list[str]) -> Recipe:
    """Defaults, one source a file name, a tokenizer of 32,000, an evaluation set of 200 texts."""
    from mutirao.core.recipe_file import parse_recipe

    stems = sorted({re.sub(r"-\d{5}$", "", p.name[: -len(".jsonl.gz")]) for p in files_of(corpus)})
    exam = folder / "exam.jsonl"
    if not exam.exists():
        exam.write_bytes(evaluation_set(corpus))
    base = corpus.absolute()
    tree = {
        "name": "scale",
        "sources": [{"path": f"{base}/{stem}*.jsonl.gz", "name": stem} for stem in stems],
        "decontaminate": {"against": ["exam.jsonl"]},
        "tokenizer": {"vocab_size": 32_000},
        "energy": {"meter": "constant", "cpu_watts": 65.0},
    }
    return parse_recipe(json.dumps(tree), "scale_run", tuple(overrides))


def files_of(corpus: Path) -> list[Path]:
    return sorted(corpus.glob("*.jsonl.gz"))


def evaluation_set(corpus: Path) -> bytes:
    """Thirty words out of the middle of each of 200 documents: so something is contaminated."""
    import gzip

    rows = []
    with gzip.open(files_of(corpus)[0], "rt", encoding="utf-8") as lines:
        for _, line in zip(range(200), lines, strict=False):
            words = json.loads(line)["text"].split()
            middle = len(words) // 2
            rows.append({"text": " ".join(words[max(0, middle - 15) : middle + 15])})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def on_cluster(recipe: Recipe, nodes: int, every_s: float, kills: list[float]) -> Recipe:
    """A head and `nodes` nodes on this host; one after the other is taken away, the head stays."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 300_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    living = [cluster.add_node(**size) for _ in range(nodes)]

    def take_away() -> None:
        while living:
            time.sleep(4 * every_s)
            node = living.pop(0)
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            lost = raylet.children(recursive=True)  # a node that is lost takes these with it
            cluster.remove_node(node, allow_graceful=False)
            kill_all(lost)
            kills.append(time.time())

    threading.Thread(target=take_away, daemon=True).start()
    ray = recipe.ray.model_copy(update={"address": cluster.address})
    return recipe.model_copy(update={"ray": ray})


if __name__ == "__main__":
    main()
