"""The loader on as many token files as 1T tokens have: memory, start, and time for a batch.

    .venv/bin/python benchmarks/loader_at_scale.py [--files 8000] [--step-s 1.0] [--output F.json]

One token file of 128 million tokens (256 MB) stands under many names (hard links), so that a pack
of any size can be mapped without the disk for it: 8,000 files are 1.02T tokens. Each count of
files is measured in a new process: seconds to open, private memory (PSS of anonymous pages and the
mapped files' share apart), milliseconds for the batch of one rank (16 sequences of 2,048) at 200
steps anywhere in the run. `--step-s`: length of a step that the wait is compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

FILE_TOKENS = 128_000_000
CONTEXT = 2048
SEQUENCES = 16
STEPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=8_000)
    parser.add_argument("--step-s", type=float, default=1.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        first = write_tokens(Path(folder))
        for files in (8, 80, 800, options.files):
            pack = make_pack(Path(folder) / str(files), first, files)
            command = [sys.executable, __file__, "--one", str(pack)]
            rows.append({"files": files, **json.loads(subprocess.check_output(command))})
            print(json.dumps(rows[-1]), file=sys.stderr)
    for row in rows:
        row["share_of_step"] = round(row["batch_ms"] / 1000 / options.step_s, 6)
    print(json.dumps({"step_s": options.step_s, "rows": rows}, indent=1))
    if options.output:
        options.output.write_text(json.dumps({"step_s": options.step_s, "rows": rows}, indent=1))


def write_tokens(folder: Path) -> Path:
    from mutirao.core import schemas

    path = folder / "tokens.arrow"
    tokens = np.random.default_rng(1).integers(0, 32_000, FILE_TOKENS).astype(np.uint16)
    batch = pa.RecordBatch.from_arrays([pa.array(tokens)], schema=schemas.TOKENS_16)
    with open(path, "wb") as stream:
        schemas.write_ipc(stream, schemas.TOKENS_16, [batch])
    return path


def make_pack(directory: Path, first: Path, files: int) -> Path:
    from mutirao.core.manifest import commit

    directory.mkdir()
    parts = []
    for number in range(files):
        name = f"train-{number:05d}.tokens.arrow"
        os.link(first, directory / name)
        size = first.stat().st_size
        parts.append({"path": name, "rows": FILE_TOKENS, "bytes": size, "sha256": "0" * 64})
    tokens = {"train": files * FILE_TOKENS, "heldout": 0}
    info = {"dtype": "uint16", "tokens": tokens, "text_bytes": tokens, "eos_id": 0,
            "vocab_size": 32_000}  # fmt: skip
    commit(directory, {"parts": parts, "counts": {}, "info": info}, {})
    return directory


def measure(directory: Path) -> dict[str, Any]:
    from mutirao.core.manifest import read_manifest
    from mutirao.core.recipe import Recipe
    from train_jobs.loader import Loader

    pack = read_manifest(directory)
    assert pack is not None
    tokens = pack.content["info"]["tokens"]["train"] // CONTEXT * (CONTEXT - 1)
    train = {"tokens": tokens, "global_batch": SEQUENCES}
    recipe = Recipe.model_validate({"sources": [{"path": "x"}], "train": train})
    before, began = memory(), time.monotonic()
    loader = Loader(pack, recipe, CONTEXT)
    opened_s, opened = time.monotonic() - began, memory()
    steps = np.random.default_rng(2).integers(0, loader.total // SEQUENCES, STEPS)
    times = []
    for step in steps:
        began = time.perf_counter()
        loader.batch(int(step))
        times.append(time.perf_counter() - began)
    after = memory()
    return {
        "tokens": pack.content["info"]["tokens"]["train"],
        "open_s": round(opened_s, 2),
        "open_mb": round((opened["uss"] - before["uss"]) / 1e6, 1),
        "grown_by_batches_mb": round((after["anonymous"] - opened["anonymous"]) / 1e6, 1),
        "batch_ms": round(1000 * statistics.median(times), 3),
        "batch_ms_p99": round(1000 * float(np.quantile(times, 0.99)), 3),
    }


def memory() -> dict[str, int]:
    """uss: private bytes; anonymous: of them, those that no file stands behind."""
    process = psutil.Process()
    maps = process.memory_maps(grouped=False)
    return {"uss": process.memory_full_info().uss, "anonymous": sum(m.anonymous for m in maps)}


if __name__ == "__main__":
    main()
