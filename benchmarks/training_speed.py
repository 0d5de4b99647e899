"""CPU-seconds of a training step: our loop, the same by hand, Hugging Face's Trainer, in turn.

    .venv/bin/python benchmarks/training_speed.py [--size 20m|ttl-160m] [--engine torch|1|2|3]
        [--rounds 9] [--steps 8] [--peer FOLDER] [--output F.json]

Two workers on gloo, one thread each, in one pair of processes; every contender takes `--steps`
steps, then the next, in another order each round, and a round's figures make one ratio. `ours`: the
loop as it runs, with guard, metrics, cursor and heartbeat. `engine`: our engine on a batch in
memory, with none of them. `bare`: a loop of twenty lines over PyTorch's DDP, or over DeepSpeed of
the stage. `trainer`: Hugging Face's (torch only; needs accelerate, in the environment or in
`--peer`). CPU-seconds are those of both processes with all their threads, for one step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from training_pack import make_token_pack

from mutirao.core.manifest import read_manifest
from mutirao.core.model_size import ModelShape, parameter_count, resolve
from mutirao.core.recipe import Model, Recipe

WORLD = 2
SIZES: dict[str, dict[str, Any]] = {
    "20m": {
        "model": {
            "hidden_size": 416, "intermediate_size": 1088, "layers": 8, "heads": 8, "kv_heads": 8,
            "context": 256,
        },
        "vocab_size": 8192,
        "global_batch": 4,
    },
    "demo": {"model": {"preset": "demo"}, "vocab_size": 4096, "global_batch": 8},
    "ttl-160m": {
        "model": {"preset": "ttl-160m", "context": 128},
        "vocab_size": 32_000,
        "global_batch": 4,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="20m")
    parser.add_argument("--engine", choices=["torch", "1", "2", "3"], default="torch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # two threads of each on two cores spin for one another
    with tempfile.TemporaryDirectory() as folder:
        arguments = (vars(options), folder)
        mp.start_processes(rank_main, arguments, nprocs=WORLD, start_method="spawn")
        rows = json.loads((Path(folder) / "rows.json").read_text())
    result = {"size": options.size, "engine": options.engine, **summary(rows)}
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Medians and quartiles of CPU-seconds a step, and of the ratios round by round."""
    names = sorted(rows[0])
    found = {f"{name}_cpu_s": spread([row[name] for row in rows]) for name in names}
    for name in [name for name in names if name != "ours"]:
        ratios = [row["ours"] / row[name] for row in rows]
        found[f"ours / {name}"] = spread(ratios)
    return {"rounds": len(rows), **found}


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def rank_main(rank: int, options: dict[str, Any], folder: str) -> None:
    if options["peer"]:
        sys.path.append(str(options["peer"]))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # accelerate wants them
    from train_jobs import ranks
    from train_jobs.worker import prepare

    prepare(1)
    with ranks.group(rank, WORLD, f"{folder}/rendezvous"):
        contenders = make_contenders(options, Path(folder))
        rows = []
        for number in range(options["rounds"] + 1):
            row = {}
            # Each comes after another one in each round: what follows the Trainer pays for the
            # memory that the Trainer gave back.
            names = sorted(contenders)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                ranks.barrier()
                used = contenders[name](options["steps"])
                row[name] = ranks.total([used], torch.device("cpu"))[0] / options["steps"]
            if number:  # the first round warms up
                rows.append(row)
                if rank == 0:
                    print(json.dumps({k: round(v, 4) for k, v in row.items()}), file=sys.stderr)
        if rank == 0:
            (Path(folder) / "rows.json").write_text(json.dumps(rows))


def make_contenders(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """name -> function of a number of steps, which returns the CPU-seconds of this process."""
    from train_jobs import ranks

    size = SIZES[options["size"]]
    if ranks.rank() == 0:
        make_token_pack(folder / "pack", size["vocab_size"], 2_000_000)
    ranks.barrier()
    shape = resolve(Model(**size["model"]), size["vocab_size"])
    recipe = make_recipe(options, size, shape.context)
    batches = Batches(folder / "pack", size["global_batch"], shape.context)
    if ranks.rank() == 0:
        print(f"{parameter_count(shape):,} parameters", file=sys.stderr)
    ours = Ours(recipe, shape, folder)
    found = {"ours": ours.steps, "engine": Alone(ours, batches).steps}
    if options["engine"] == "torch":
        found["bare"] = BareDDP(shape, recipe.train, batches).steps
        if options["peer"]:
            found["trainer"] = HuggingFace(shape, recipe.train, batches, folder).steps
    else:
        found["bare"] = BareDeepSpeed(shape, recipe.train, batches).steps
    return found


def make_recipe(options: dict[str, Any], size: dict[str, Any], context: int) -> Recipe:
    engine = "torch" if options["engine"] == "torch" else "deepspeed"
    stage = 1 if engine == "torch" else int(options["engine"])
    train = {
        "tokens": context * size["global_batch"] * 3000, "max_epochs": 1000,
        "global_batch": size["global_batch"], "engine": engine, "zero_stage": stage,
        "workers": WORLD, "stall_s": 1e6, "eval_every": 10**6, "checkpoint_every": 10**6,
        "lr": 1e-4,
    }  # fmt: skip
    return Recipe.model_validate(
        {"sources": [{"path": "x"}], "model": size["model"], "train": train}
    )


class Batches:
    """This rank's share of token slices, as a plain loop would read them: one mapped array."""

    def __init__(self, pack_dir: Path, global_batch: int, context: int):
        from train_jobs import ranks
        from train_jobs.loader import token_streams

        pack = read_manifest(pack_dir)
        assert pack is not None
        self.tokens = token_streams(pack, "train")[0].chunks[0]
        self.share, self.context = global_batch // WORLD, context
        self.sequences = (len(self.tokens) - 1) // context
        self.number = ranks.rank()

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self.row(self.number * self.share + i) for i in range(self.share)]
        self.number += WORLD
        both = torch.from_numpy(np.stack(rows).astype(np.int64))
        return both[:, :-1], both[:, 1:]

    def row(self, i: int) -> np.ndarray:
        start = i % self.sequences * self.context
        return self.tokens[start : start + self.context + 1]


class Ours:
    def __init__(self, recipe: Recipe, shape: ModelShape, folder: Path):
        from train_jobs import loop, ranks

        run_dir = folder / "run"
        if ranks.rank() == 0:
            run_dir.mkdir()
        ranks.barrier()
        self.loop = loop
        plan = loop.Plan(recipe, shape, folder / "pack", run_dir)
        self.run = loop.begin(plan, lambda row: None)

    def steps(self, count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            loss, outcome, rate = self.loop.one_step(self.run, 3000)
            self.loop.watch(self.run, loss, outcome, rate, False)
        return time.process_time() - began


class Alone:
    """The engine of `ours` without what stands around it."""

    def __init__(self, ours: Ours, batches: Batches):
        self.run, self.batches = ours.run, batches

    def steps(self, count: int) -> float:
        engine = self.run.engine
        began = time.process_time()
        for _ in range(count):
            ids, labels = self.batches.next()
            inputs = {"input_ids": ids, "labels": labels, "weights": torch.ones(ids.shape)}
            tokens = WORLD * ids.numel()
            loss = engine.accumulate(inputs, WORLD / tokens, last=True)
            engine.step(1e-4, float(loss))
        return time.process_time() - began


class BareDDP:
    def __init__(self, shape: ModelShape, train: Any, batches: Batches):
        from train_jobs.model import decay_groups

        model = plain_model(shape)
        self.model = torch.nn.parallel.DistributedDataParallel(model)
        groups = decay_groups(model, train.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=train.betas, eps=train.eps)
        self.batches, self.clip = batches, train.clip

    def steps(self, count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            ids, labels = self.batches.next()
            logits = self.model(input_ids=ids, use_cache=False).logits
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), labels.reshape(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            loss.item()
        return time.process_time() - began


class BareDeepSpeed:
    def __init__(self, shape: ModelShape, train: Any, batches: Batches):
        from train_jobs.engine import import_deepspeed
        from train_jobs.model import decay_groups

        model = plain_model(shape)
        config = {
            "train_micro_batch_size_per_gpu": batches.share,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": train.clip,
            "zero_optimization": {"stage": train.zero_stage},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }
        groups = decay_groups(model, train.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=train.betas, eps=train.eps)
        self.engine, *_ = import_deepspeed().initialize(
            model=model, optimizer=optimizer, config=config, dist_init_required=False
        )
        self.batches = batches

    def steps(self, count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            ids, labels = self.batches.next()
            logits = self.engine(input_ids=ids, use_cache=False).logits
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), labels.reshape(-1))
            self.engine.backward(loss)
            self.engine.step()
            loss.item()
        return time.process_time() - began


class HuggingFace:
    """The Trainer, asked for `count` steps at a time; its first two do not count."""

    def __init__(self, shape: ModelShape, train: Any, batches: Batches, folder: Path):
        self.model, self.train = plain_model(shape), train
        self.batches, self.folder = batches, folder

    def steps(self, count: int) -> float:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        seen: dict[str, float] = {}

        class Clock(TrainerCallback):
            def on_step_begin(self, args, state, control, **more):
                if state.global_step == 2:
                    seen["began"] = time.process_time()

            def on_step_end(self, args, state, control, **more):
                seen["ended"] = time.process_time()

        arguments = TrainingArguments(
            output_dir=str(self.folder / "trainer"), max_steps=count + 2, use_cpu=True,
            per_device_train_batch_size=self.batches.share, max_grad_norm=self.train.clip,
            learning_rate=1e-4, weight_decay=0.1, report_to=[], save_strategy="no",
            ddp_backend="gloo", disable_tqdm=True, logging_strategy="no",
            dataloader_pin_memory=False,
        )  # fmt: skip
        Trainer(
            self.model, arguments, train_dataset=Rows(self.batches), callbacks=[Clock()]
        ).train()
        return seen["ended"] - seen["began"]


class Rows(torch.utils.data.Dataset):
    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return self.batches.sequences

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.batches.row(i)[:-1].astype(np.int64))
        return {"input_ids": ids, "labels": ids}


def plain_model(shape: ModelShape) -> Any:
    from transformers import LlamaForCausalLM

    from train_jobs.model import llama_config

    torch.manual_seed(1)
    return LlamaForCausalLM(llama_config(shape))


if __name__ == "__main__":
    main()
