"""Does one checkpoint layout serve every ZeRO stage and number of workers?

    OMP_NUM_THREADS=1 python benchmarks/spike_checkpoint_layout.py [--worlds 1 2 4]

For each (stage, workers) a tiny Llama with tied embeddings trains three steps and saves through
`train_jobs.checkpoint`; then every (stage, workers) loads every save and writes it again. fp32
masters, exp_avg, exp_avg_sq and Adam's step must be equal bit for bit. Result:
docs/decisions/0001-checkpoint-layout.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.multiprocessing as mp

from mutirao.core.model_size import resolve
from mutirao.core.recipe import Model, Train
from train_jobs import checkpoint, ranks
from train_jobs.build_extensions import use_built_extensions
from train_jobs.engine import Engine, build_engine
from train_jobs.model import build_model
from train_jobs.saver import Saver

STAGES = (1, 2, 3)
MODEL = Model(hidden_size=32, intermediate_size=88, layers=2, heads=4, kv_heads=2, context=16)
SHAPE = resolve(MODEL, 301)  # an odd vocabulary: no parameter divides evenly


def worker(number: int, world: int, rendezvous: str, folder: Path, dtype: str, saves: list[str]):
    """Save from every stage when `saves` is empty, otherwise load each of them at every stage."""
    torch.set_num_threads(1)
    with ranks.group(number, world, rendezvous):
        for stage in STAGES:
            train = Train(workers=world, zero_stage=stage, dtype=dtype, lr=1e-2)
            if not saves:
                save_trained(train, folder / f"z{stage}w{world}")
            for name in saves:
                load_and_save(train, folder / name, folder / f"{name}-z{stage}w{world}")


def save_trained(train: Train, target: Path) -> None:
    model = build_model(SHAPE, seed=1)
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    engine = build_engine(model, train, 2, 1)
    for step in range(3):
        generator = torch.Generator().manual_seed(10 * step + ranks.rank())
        ids = torch.randint(0, SHAPE.vocab_size, (2, SHAPE.context), generator=generator)
        weights = torch.full(ids.shape, 1 / ids.numel())
        engine.accumulate({"input_ids": ids, "labels": ids, "weights": weights}, 1.0, last=True)
        engine.step(1e-2, 0.0)
    state = {"adam_step": engine.adam_step()}
    save(train, target, engine, shapes, state)


def load_and_save(train: Train, source: Path, target: Path) -> None:
    saved = checkpoint.newest(source)
    assert saved is not None
    model = build_model(SHAPE, seed=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.full(name))
    engine = build_engine(model, train, 2, 1)
    engine.restore(saved)
    state = {"adam_step": engine.adam_step()}
    save(train, target, engine, saved.shapes, state)


def save(train: Train, target: Path, engine: Engine, shapes: dict, state: dict) -> None:
    saver = Saver(target, train)
    saver.begin(3, engine.slices(), shapes, state)
    saver.finish()


def equal(one: Path, other: Path) -> bool:
    a, b = checkpoint.newest(one), checkpoint.newest(other)
    assert a is not None and b is not None
    same = a.state == b.state and a.shapes == b.shapes and a.state["adam_step"] == 3
    for name in a.shapes:
        for kind in checkpoint.KINDS:
            left, right = a.full(name, kind), b.full(name, kind)
            same &= torch.equal(left, right) and bool(left.abs().sum() > 0)
    return bool(same)


def launch(world: int, folder: Path, dtype: str, saves: list[str]) -> None:
    rendezvous = tempfile.mktemp(dir=folder)
    mp.start_processes(
        worker, (world, rendezvous, folder, dtype, saves), world, start_method="spawn"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    use_built_extensions()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for world in options.worlds:
            launch(world, folder, options.dtype, [])
        saves = [f"z{stage}w{world}" for world in options.worlds for stage in STAGES]
        for world in options.worlds:
            launch(world, folder, options.dtype, saves)
        pairs = [(a, b) for a in saves for b in saves]
        good = [pair for pair in pairs if equal(folder / pair[0], folder / "-".join(pair))]
    wall_s = time.monotonic() - started
    print(f"{options.dtype}: {len(good)} of {len(pairs)} combinations equal, {wall_s:.0f} s")
    for pair in sorted(set(pairs) - set(good)):
        print("  differs: saved by", *pair, "loaded")


if __name__ == "__main__":
    main()
