"""Encoding speed: gigatoken and Hugging Face on the same text, in turn, in CPU-seconds.

    .venv/bin/python benchmarks/tokenizer_speed.py CORPUS.jsonl.gz... [--rounds 5] [--output F.json]

Trains a byte-level BPE tokenizer of 32,000 ids on the corpus (without its last file), then encodes
all documents. Each measurement is a new process, so that the table of words is empty ("cold"): the
engine is loaded, not yet warmed by its check, and reads the text from Arrow in batches as `pack`
does. "warm" is the second pass of the same process. Hugging Face takes every tenth document. The
ids of all documents are compared once. CPU-seconds of the process count all its threads; `threads`
is CPU over wall.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

ROWS = 256
HF_STEP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=["fast", "huggingface"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.corpus[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options.corpus, Path(folder), options.rounds)
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def compare(files: list[Path], folder: Path, rounds: int) -> dict:
    documents = prepare(files, folder)
    rows: dict[str, list[dict]] = {"fast": [], "huggingface": []}
    for _ in range(rounds):
        for engine, found in rows.items():
            command = [sys.executable, __file__, str(folder), "--one", engine]
            found.append(json.loads(subprocess.check_output(command, text=True)))
    table = {
        f"{engine} {value}": spread([row[value] for row in found])
        for engine, found in rows.items()
        for value in found[0]
    }
    ratio = table["fast cold_mb_s"]["median"] / table["huggingface cold_mb_s"]["median"]
    return {"documents": documents, **same_ids(folder), "ratio_cold": round(ratio, 1), **table}


def prepare(files: list[Path], folder: Path) -> int:
    """corpus.arrow and tokenizer.json in the folder; the number of documents."""
    from data_jobs.tokens.train_bpe import train_bpe

    texts = [text for file in files for text in read(file)]
    with pa.ipc.new_file(str(folder / "corpus.arrow"), pa.schema({"text": pa.large_string()})) as f:
        f.write_table(pa.table({"text": pa.array(texts, pa.large_string())}))
    seen = [text for file in files[:-1] or files for text in read(file)]
    train_bpe(seen, 32_000, 64).save(str(folder / "tokenizer.json"))
    return len(texts)


def read(file: Path) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def batches(folder: Path) -> list[pa.Array]:
    table = pa.ipc.open_file(pa.memory_map(str(folder / "corpus.arrow"))).read_all()
    return [batch.column("text") for batch in table.to_batches(max_chunksize=ROWS)]


def encoder(engine: str, folder: Path):
    """Without the check of `engines.load`, which would warm the table."""
    from data_jobs.tokens import engines

    found = engines.read_existing(folder)
    oracle = engines.HuggingFace(found.tokenizer, 0)
    return oracle if engine == "huggingface" else engines.Gigatoken(found.json, oracle)


def measure(engine: str, folder: Path) -> dict:
    began = time.process_time()
    one = encoder(engine, folder)
    loaded = time.process_time() - began
    texts = batches(folder)
    if engine == "huggingface":
        texts = [batch.take(pa.array(range(0, len(batch), HF_STEP))) for batch in texts]
    size = sum(batch.nbytes - 8 * (len(batch) + 1) for batch in texts) / 1e6
    row = {"load_cpu_s": loaded}
    for name in ("cold", "warm"):
        cpu, wall = time.process_time(), time.perf_counter()
        for batch in texts:
            one.encode(batch)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        row |= {f"{name}_mb_s": size / cpu, f"{name}_threads": cpu / wall}
    return row


def same_ids(folder: Path) -> dict:
    """Documents whose ids are the same, of all."""
    fast, slow = encoder("fast", folder), encoder("huggingface", folder)
    same = total = tokens = 0
    for batch in batches(folder):
        (ids, offsets), (want, places) = fast.encode(batch), slow.encode(batch)
        total += len(batch)
        tokens += len(want)
        for k in range(len(batch)):
            mine, theirs = ids[offsets[k] : offsets[k + 1]], want[places[k] : places[k + 1]]
            same += np.array_equal(mine, theirs)
    return {"same_ids": same, "of": total, "tokens": tokens}


def spread(values: list[float]) -> dict:
    rounded = sorted(round(value, 3) for value in values)
    return {"median": round(statistics.median(values), 3), "all": rounded}


if __name__ == "__main__":
    main()
