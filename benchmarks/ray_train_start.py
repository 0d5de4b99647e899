"""What are the seconds between `trainer.fit()` and the first optimizer step made of?

    OMP_NUM_THREADS=1 python benchmarks/ray_train_start.py

Two workers on a local Ray with two CPUs do what a mutirão worker does up to its first step, and
rank 0 notes the time. Result: docs/decisions/0007-ray-train-start.md.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2"
)


def worker(config: dict) -> None:
    marks = [("worker function entered", time.time())]
    from train_jobs.worker import prepare

    prepare(1)
    marks.append(("torch and environment", time.time()))
    import torch

    from mutirao.core.model_size import resolve
    from mutirao.core.recipe import Model, Train
    from train_jobs import ranks
    from train_jobs.engine import build_engine, import_deepspeed
    from train_jobs.model import build_model

    marks.append(("transformers", time.time()))
    import_deepspeed()
    marks.append(("deepspeed", time.time()))
    model = build_model(resolve(Model(), 4096), seed=1)
    marks.append(("model", time.time()))
    engine = build_engine(model, Train(), 8, 1)
    marks.append(("deepspeed.initialize", time.time()))
    ids = torch.zeros((8, 128), dtype=torch.int64)
    inputs = {"input_ids": ids, "labels": ids, "weights": torch.ones(ids.shape)}
    engine.accumulate(inputs, 1 / ids.numel(), last=True)
    engine.step(1e-3, 0.0)
    marks.append(("first step", time.time()))
    if ranks.rank() == 0:
        Path(config["marks"]).write_text(json.dumps(marks))


def main() -> None:
    marks = [("start", time.time())]
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    marks.append(("driver: import ray.train", time.time()))
    ray.init(
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    marks.append(("driver: ray.init", time.time()))
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            worker,
            train_loop_config={"marks": f"{folder}/marks.json"},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            torch_config=TorchConfig(backend="gloo"),
            run_config=RunConfig(name="start", storage_path=folder),
        )
        trainer.fit()
        marks += json.loads(Path(f"{folder}/marks.json").read_text())
    marks.append(("driver: fit returned", time.time()))
    ray.shutdown()
    marks.append(("driver: ray.shutdown", time.time()))
    for (_, before), (name, after) in itertools.pairwise(marks):
        print(f"{after - before:6.1f} s  {name}")
    print(f"{marks[-1][1] - marks[0][1]:6.1f} s  in all")


if __name__ == "__main__":
    main()
