"""Raw files to token shards on two cores, against datatrove doing the same with the same tokenizer.

    python benchmarks/raw_to_tokens.py --corpus DIR --peer-python peers/bin/python
        --peer-model lid.176.ftz [--tokenizer tokenizer.json] [--rounds 2] [--larger DIR]

DIR holds *.jsonl.gz of Portuguese documents. Ours: the whole data side (ingest, clean, exact,
langid, filter, neardup, split, tokenizer by path, pack) by the normal composer on a local Ray.
datatrove: read, language identification, FineWeb-2's filters and repair, four MinHash stages,
DocumentTokenizer, by its local executor with two workers. Both sides run in turn, each in a process
of its own; Ray and models are started and warmed on a few documents before the clock, since on 36
MB they would be most of ours. CPU-seconds are of all processes, Ray's own among them. Without
--tokenizer one of 32,000 is trained on DIR first. --larger: ours also on another corpus. Prints one
JSON object; peers: requirements-peers.txt.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutirao.core.processes import Trees, snapshot
from mutirao.core.progress import Progress
from mutirao.core.recipe_file import LoadedRecipe, parse_recipe
from mutirao.core.workdir import Workdir

WORKERS = 2
VOCABULARY = 32_000
END_OF_TEXT = "<|endoftext|>"
FEW = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-model", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--larger", type=Path)
    parser.add_argument("--ours", action="store_true", help="one run of ours, for this program")
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(measure_ours(options.corpus, options.tokenizer)))
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = options.tokenizer or train(options.corpus, Path(folder))
        print(json.dumps(compare(options, tokenizer), indent=1))


def compare(options: argparse.Namespace, tokenizer: Path) -> dict[str, Any]:
    ours, peers = [], []
    for _ in range(options.rounds):
        ours.append(run_ours(options.corpus, tokenizer))
        if options.peer_python:
            peers.append(run_peer(options, tokenizer))
    size = ours[0].pop("text_bytes")
    found: dict[str, Any] = {"text_mb": round(size / 1e6, 2), "ours": side(ours, size)}
    if peers:
        found["datatrove"] = side(peers, size)
        for figure in ("cpu_s", "wall_s"):
            medians = [found[who][figure][1] for who in ("datatrove", "ours")]
            found[f"ratio_{figure}"] = round(medians[0] / medians[1], 1)
    if options.larger:
        larger = run_ours(options.larger, tokenizer)
        size = larger.pop("text_bytes")
        found["ours on a larger corpus"] = {
            "text_mb": round(size / 1e6, 2),
            **side([larger], size),
        }
    return found


def side(runs: list[dict], size: int) -> dict[str, Any]:
    """Smallest, median and largest time over the rounds; rates from the medians."""
    found = {}
    for figure in ("cpu_s", "wall_s"):
        times = [run[figure] for run in runs]
        found[figure] = [min(times), round(statistics.median(times), 2), max(times)]
    return {
        **found,
        "mb_per_cpu_s": round(size / 1e6 / found["cpu_s"][1], 3),
        "mb_per_s": round(size / 1e6 / found["wall_s"][1], 3),
        **{k: v for k, v in runs[-1].items() if k not in (*found, "text_bytes")},
    }


def measure_ours(corpus: Path, tokenizer: Path) -> dict[str, Any]:
    """A few documents through all stages first, then the corpus, in one Ray session."""
    from mutirao.core.recipe import Ray
    from mutirao.run.session import prepare_environment, ray_session

    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "few").mkdir()
        for path in sorted(corpus.glob("*.jsonl.gz"))[:WORKERS]:
            shorten(path, place / "few" / path.name)
        with ray_session(Ray(cpus=WORKERS)):
            run(place / "few", tokenizer, place / "warm")
            trees = Trees()
            trees.advance(snapshot(), {os.getpid(): "run"})
            clock = time.monotonic()
            made = run(corpus, tokenizer, place / "all")
            wall = time.monotonic() - clock
            used = trees.advance(snapshot(), {os.getpid(): "run"})["run"]
        shutil.rmtree(place / "all")
    stages = {n: round(m.provenance["notes"].get("cpu_s", 0.0), 2) for n, m in made.items()}
    sides = made["split"].content["info"]
    return {
        "cpu_s": round(used, 2),
        "wall_s": round(wall, 2),
        "text_bytes": made["clean"].counts["text_bytes_out"],
        "units_cpu_s": stages,
        "documents_in": made["clean"].counts["documents_in"],
        "documents_kept": sum(sides[name]["documents"] for name in ("train", "heldout")),
    }


def run(corpus: Path, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """The committed manifests of all data stages."""
    from mutirao.run.execute import Options, execute
    from mutirao.run.show import manifests

    tree = {
        "sources": [
            {"path": str(path.absolute()), "name": path.name.split(".")[0]}
            for path in sorted(corpus.glob("*.jsonl.gz"))
        ],
        "tokenizer": {"path": str(tokenizer.absolute())},
        "energy": {"meter": "constant", "cpu_watts": 65.0},
    }
    recipe = parse_recipe(json.dumps(tree), "raw_to_tokens")
    loaded, workdir = LoadedRecipe(recipe, "", "raw_to_tokens", corpus), Workdir(folder)
    options = Options(until="pack", report=False)
    return manifests(workdir, execute(loaded, workdir, options, Progress(quiet=True)))


def run_ours(corpus: Path, tokenizer: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--corpus", str(corpus), "--ours"]
    command += ["--tokenizer", str(tokenizer)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def run_peer(options: argparse.Namespace, tokenizer: Path) -> dict[str, Any]:
    program = Path(__file__).with_name("peer_datatrove.py")
    command = [str(options.peer_python), str(program), "--input", str(options.corpus)]
    command += ["--model", str(options.peer_model), "--tokenizer", str(tokenizer)]
    command += ["--workers", str(WORKERS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def train(corpus: Path, folder: Path) -> Path:
    """A byte-level BPE tokenizer of the corpus, as both sides read it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(corpus), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def texts(corpus: Path) -> Iterator[str]:
    for path in sorted(corpus.glob("*.jsonl.gz")):
        with gzip.open(path, "rb") as lines:
            yield from (json.loads(line)["text"] for line in lines)


def shorten(source: Path, target: Path) -> None:
    with gzip.open(source, "rb") as lines, gzip.open(target, "wb") as out:
        out.writelines(line for _, line in zip(range(FEW), lines, strict=False))


if __name__ == "__main__":
    main()
