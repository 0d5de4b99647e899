"""How long training stands still for a checkpoint, written beside it and written at once.

    .venv/bin/python benchmarks/checkpoint_stall.py [--rounds 5] [--output F.json]

Two workers on gloo, the plain engine, 103 million parameters (1.2 GB of weights and moments). In
turn: a save with `train.async_checkpoint`, with training steps while it is written, and a save
without. Seconds are those that `Saver.begin` returns, the slower rank's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp
from training_pack import make_token_pack

WORLD = 2
MODEL = {
    "hidden_size": 768, "intermediate_size": 2048, "layers": 11, "heads": 12, "kv_heads": 12,
    "context": 64,
}  # fmt: skip
VOCAB = 16_384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # two threads of each on two cores spin for one another
    with tempfile.TemporaryDirectory() as folder:
        make_token_pack(Path(folder) / "pack", VOCAB, 500_000)
        mp.start_processes(rank_main, (options.rounds, folder), nprocs=WORLD, start_method="spawn")
        rows = json.loads((Path(folder) / "rows.json").read_text())
    result = summary(rows)
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    shares = [row["async_stall_s"] / row["sync_stall_s"] for row in rows]
    found = {key: round(value, 3) for key, value in medians.items()}
    return {
        "rounds": len(rows), **found, "share": round(statistics.median(shares), 4),
        "shares": [round(share, 4) for share in shares],
    }  # fmt: skip


def rank_main(rank: int, rounds: int, folder: str) -> None:
    from train_jobs import ranks
    from train_jobs.worker import prepare

    prepare(1)
    with ranks.group(rank, WORLD, f"{folder}/rendezvous"):
        run = begin(Path(folder))
        rows = [one_round(run) for _ in range(rounds + 1)][1:]
        run.close()
        if rank == 0:
            (Path(folder) / "rows.json").write_text(json.dumps(rows))


def begin(folder: Path) -> Any:
    from mutirao.core.model_size import resolve
    from mutirao.core.recipe import Recipe
    from train_jobs import loop, ranks

    train = {"engine": "torch", "workers": WORLD, "global_batch": 2, "tokens": 64 * 2 * 3000,
             "max_epochs": 1000, "stall_s": 1e6}  # fmt: skip
    recipe = Recipe.model_validate({"sources": [{"path": "x"}], "model": MODEL, "train": train})
    run_dir = folder / "run"
    if ranks.rank() == 0:
        run_dir.mkdir()
    ranks.barrier()
    plan = loop.Plan(recipe, resolve(recipe.model, VOCAB), folder / "pack", run_dir)
    return loop.begin(plan, lambda row: None)


def one_round(run: Any) -> dict[str, float]:
    from train_jobs import loop, ranks

    async_stall_s = save(run, True)
    began = time.monotonic()
    steps = 0
    while steps < 2 or sum(ranks.gather(run.saver.writing.thread.is_alive())):
        loop.one_step(run, 3000)
        steps += 1
    run.saver.finish()
    write_s = time.monotonic() - began
    sync_stall_s = save(run, False)
    return {"async_stall_s": async_stall_s, "write_beside_training_s": write_s,
            "steps_meanwhile": steps, "sync_stall_s": sync_stall_s}  # fmt: skip


def save(run: Any, asynchronous: bool) -> float:
    """Seconds on the slower rank."""
    from train_jobs import loop, ranks

    train = run.plan.recipe.train.model_copy(update={"async_checkpoint": asynchronous})
    run.saver.train = train
    loop.one_step(run, 3000)
    ranks.barrier()
    began = time.monotonic()
    loop.save(run)
    if not asynchronous:
        run.saver.finish()
    return max(ranks.gather(time.monotonic() - began))


if __name__ == "__main__":
    main()
