"""Near-deduplication alone, from text to the ids that stay, against datatrove's four stages.

    python benchmarks/neardup_speed.py --corpus DIR --peer-python peers/bin/python [--rounds 3]
        [--larger DIR]

DIR holds *.jsonl.gz. Ours begins with cleaned text shards and takes `exact` and `neardup` (which
verifies every pair by true Jaccard) on one core; datatrove begins with the gzip files (1 % of its
time) and has FineWeb-2's settings, in one process. Both sides run in turn, each in a process of its
own; imports, compiled kernels and spaCy's model are loaded before. --larger: ours also on another
corpus, such as one of `grow_corpus.py`. Prints one JSON object; peers: requirements-peers.txt.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from data_speed import run_chain, summary

CHAIN = ("ingest", "clean", "exact", "neardup")
COUNTED = ("exact", "neardup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--larger", type=Path)
    parser.add_argument("--ours", action="store_true", help="one run of ours, for this program")
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(measure_ours(options.corpus)))
        return
    ours, peers = [], []
    for _ in range(options.rounds):
        ours.append(run_ours(options.corpus))
        if options.peer_python:
            peers.append(run_peer(options))
    found = {"near-dedup": summary(ours, peers)}
    if options.larger:
        found["ours on a larger corpus"] = summary([run_ours(options.larger)], [])
    print(json.dumps(found, indent=1))


def measure_ours(corpus: Path) -> dict:
    """The chain twice: first on two documents that are nearly equal, to load everything."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "few.jsonl")
        text = " ".join(f"palavra{n}" for n in range(90))
        few.write_text("".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n in range(3)))
        run_chain(few, Path(folder, "warm"), CHAIN)
        used, made = run_chain(corpus, Path(folder, "all"), CHAIN)
    dropped = sum(made[name].counts["dropped"] for name in COUNTED)
    return {
        "cpu_s": round(sum(used[name] for name in COUNTED), 3),
        "text_bytes": made["clean"].counts["text_bytes_out"],
        "by_stage": {name: round(used[name], 3) for name in COUNTED},
        "documents_in": made["clean"].counts["documents_in"],
        "documents_kept": made["clean"].counts["documents_out"] - dropped,
    }


def run_ours(corpus: Path) -> dict:
    command = [sys.executable, __file__, "--corpus", str(corpus), "--ours"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def run_peer(options: argparse.Namespace) -> dict:
    program = Path(__file__).with_name("peer_datatrove.py")
    command = [str(options.peer_python), str(program), "--input", str(options.corpus), "--neardup"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
