"""Cleaning, language identification and filtering against datatrove on the same files.

    python benchmarks/data_speed.py --corpus DIR --peer-python peers/bin/python \\
        --peer-model lid.176.ftz [--rounds 3] [--times 10]

DIR holds *.jsonl.gz of Portuguese documents. Both sides run alternately on one core, each in a
process of its own, and read the same gzip files and write what they keep (we write text and
decisions). CPU-seconds of the work: imports, compiled kernels and models are loaded before.
--times N: ours also on N copies of the corpus. Prints one JSON object; peers:
requirements-peers.txt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_jobs.pipeline import STAGES
from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest, commit
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe, Source

CHAINS = {
    "clean + filter": ("ingest", "clean", "filter"),
    "clean + langid + filter": ("ingest", "clean", "langid", "filter"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=0)
    parser.add_argument("--ours", choices=sorted(CHAINS), help="one run of ours, for this program")
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(measure_ours(options.corpus, CHAINS[options.ours])))
    else:
        print(json.dumps(compare(options), indent=1))


def compare(options: argparse.Namespace) -> dict:
    found: dict = {}
    for chain in CHAINS:
        ours, peers = [], []
        for _ in range(options.rounds):
            ours.append(run_ours(options.corpus, chain))
            if options.peer_python:
                peers.append(run_peer(options, chain))
        found[chain] = summary(ours, peers)
    if options.times:
        with tempfile.TemporaryDirectory() as folder:
            copies(options.corpus, Path(folder), options.times)
            found[f"{options.times} times the corpus"] = {
                chain: summary([run_ours(Path(folder), chain)], []) for chain in CHAINS
            }
    return found


def summary(ours: list[dict], peers: list[dict]) -> dict:
    size = ours[0]["text_bytes"]
    result = {"text_mb": round(size / 1e6, 2), "ours": side(ours, size)}
    if peers:
        result["datatrove"] = side(peers, size)
        result["ratio"] = round(
            result["ours"]["mb_per_cpu_s"] / result["datatrove"]["mb_per_cpu_s"], 1
        )
    return result


def side(runs: list[dict], size: int) -> dict:
    """Median over the rounds with the smallest and largest."""
    used = [run["cpu_s"] for run in runs]
    return {
        "cpu_s": [min(used), statistics.median(used), max(used)],
        "mb_per_cpu_s": round(size / 1e6 / statistics.median(used), 2),
        **{k: v for k, v in runs[-1].items() if k not in ("cpu_s", "text_bytes")},
    }


def measure_ours(corpus: Path, chain: tuple[str, ...]) -> dict:
    """The chain twice: a few documents to load everything, then the corpus, timed by stage."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "few.jsonl")
        few.write_text(
            json.dumps({"text": "Muitas mãos levantam uma casa num só dia. " * 9}) + "\n"
        )
        run_chain(few, Path(folder, "warm"), chain)
        used, manifests = run_chain(corpus, Path(folder, "all"), chain)
    clean, last = manifests["clean"].counts, manifests["filter"].counts
    return {
        "cpu_s": round(sum(used.values()), 3),
        "text_bytes": clean["text_bytes_out"],
        "by_stage": {name: round(seconds, 3) for name, seconds in used.items()},
        "documents_in": clean["documents_in"],
        "documents_kept": last["documents_in"] - last["dropped"],
    }


def run_chain(
    source: Path, workdir: Path, chain: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, Manifest]]:
    recipe = Recipe(sources=(Source(path=str(source), name="corpus"),))
    used: dict[str, float] = {}
    manifests: dict[str, Manifest] = {}
    for name in chain:
        directory = workdir / "store" / name / "key"
        directory.mkdir(parents=True)
        quiet = Progress(quiet=True)
        job = StageJob(name, recipe, directory, manifests, workdir, quiet, False, Path.cwd())
        before = time.process_time()
        result = STAGES[name](job)
        used[name] = time.process_time() - before
        content = {
            "stage": name,
            "parts": [vars(part) for part in result.parts],
            "counts": result.counts,
            "info": result.info,
        }
        manifests = {**manifests, name: commit(directory, content, {})}
    return used, manifests


def run_ours(corpus: Path, chain: str) -> dict:
    command = [sys.executable, __file__, "--corpus", str(corpus), "--ours", chain]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def run_peer(options: argparse.Namespace, chain: str) -> dict:
    program = Path(__file__).with_name("peer_datatrove.py")
    command = [str(options.peer_python), str(program), "--input", str(options.corpus)]
    if "langid" in chain:
        command += ["--model", str(options.peer_model)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def copies(corpus: Path, target: Path, times: int) -> None:
    for number in range(times):
        for path in sorted(corpus.glob("*.jsonl.gz")):
            shutil.copyfile(path, target / f"{number}-{path.name}")


if __name__ == "__main__":
    main()
