"""What a fixed number of tokens teaches: our loop, and Hugging Face's Trainer with TTL's recipe.

    .venv/bin/python benchmarks/learning.py CORPUS.jsonl.gz... [--tokens 600000] [--peer FOLDER]
        [--output F.json] [--plot F.svg]

Both train the same 10-million model from the same weights on the same token shards, which the data
stages made of the corpus (`mutirao run --until pack`, kept under --workdir), with two workers. The
Trainer has TeenyTinyLlama's recipe (arXiv 2401.16640, table 3): 8,192 tokens a step, AdamW with
betas 0.9 and 0.999, weight decay 0.01, cosine from 6e-4 with 1.1 % of warm-up, no clipping. Ours
reads the same number of tokens in the same context with the settings in OURS. Measured: bits per
byte of the whole held-out text at the end, and of its first sequences on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
import yaml

WORLD = 2
CONTEXT = 256
VOCAB = 8192
MODEL = {
    "hidden_size": 288, "intermediate_size": 768, "layers": 8, "heads": 6, "kv_heads": 6,
    "context": CONTEXT, "tie_embeddings": True,
}  # fmt: skip
TTL_TOKENS = 8192  # a step
OURS = {
    "global_batch": 16, "lr": 3e-3, "warmup_steps": 20, "schedule": "wsd", "decay_fraction": 0.3,
    "min_lr_ratio": 0.0, "clip": 1.0, "weight_decay": 0.1, "betas": [0.9, 0.95],
}  # fmt: skip
POINTS = 10  # measured on the way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=600_000)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # two threads of each on two cores spin for one another
    with tempfile.TemporaryDirectory() as temporary:
        workdir = (options.workdir or Path(temporary)).resolve()
        pack_dir = make_pack(options.corpus, options.tokens, workdir)
        curves = {}
        for name in ("ours", "trainer"):
            mp.start_processes(
                rank_main,
                (name, str(pack_dir), options.tokens, str(options.peer or ""), temporary),
                nprocs=WORLD,
                start_method="spawn",
            )
            curves[name] = json.loads((Path(temporary) / f"{name}.json").read_text())
            print(json.dumps({name: curves[name][-1]}), file=sys.stderr)
    result = {"tokens": options.tokens, "model": MODEL, "ours": OURS, "curves": curves}
    print(json.dumps({name: rows[-1] for name, rows in curves.items()}, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot(curves, options.plot)


def make_pack(corpus: list[Path], tokens: int, workdir: Path) -> Path:
    """The committed `pack` of the corpus, by the data stages."""
    workdir.mkdir(parents=True, exist_ok=True)
    recipe = {
        "name": "learning", "sources": [{"path": str(path.resolve())} for path in corpus],
        "tokenizer": {"vocab_size": VOCAB}, "model": MODEL, "train": {"tokens": tokens, **OURS},
    }  # fmt: skip
    (workdir / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["mutirao", "run", str(workdir / "recipe.yaml"), "--until", "pack", "--workdir",
               str(workdir), "--json"]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "PATH": path})
    found = sorted(
        (workdir / "store" / "pack").glob("*/manifest.json"), key=lambda p: -p.stat().st_mtime
    )
    return found[0].parent


def rank_main(rank: int, name: str, pack_dir: str, tokens: int, peer: str, folder: str) -> None:
    if peer:
        sys.path.append(peer)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    from train_jobs import ranks
    from train_jobs.worker import prepare

    prepare(1)
    with ranks.group(rank, WORLD, f"{folder}/rendezvous-{name}"):
        work = ours if name == "ours" else trainer
        rows = work(Path(pack_dir), tokens, Path(folder))
        if rank == 0:
            (Path(folder) / f"{name}.json").write_text(json.dumps(rows))


def ours(pack_dir: Path, tokens: int, folder: Path) -> list[dict[str, Any]]:
    from mutirao.core.manifest import read_manifest
    from mutirao.core.metrics import read_metrics
    from mutirao.core.model_size import resolve
    from mutirao.core.recipe import Recipe
    from train_jobs import checkpoint, loop, ranks

    steps = tokens // CONTEXT // OURS["global_batch"]  # type: ignore[operator]
    train = {**OURS, "tokens": tokens, "engine": "torch", "workers": WORLD, "stall_s": 1e4,
             "checkpoint_every": 10**6, "eval_every": max(1, steps // POINTS)}  # fmt: skip
    given = {"sources": [{"path": "x"}] * 64, "model": MODEL, "train": train}
    pack = read_manifest(pack_dir)
    assert pack is not None
    given["sources"] = [{"path": s["name"]} for s in pack.content["info"]["streams"]]
    recipe = Recipe.model_validate(given)
    shape = resolve(recipe.model, pack.content["info"]["vocab_size"])
    run_dir = folder / "ours"
    if ranks.rank() == 0:
        run_dir.mkdir()
    ranks.barrier()
    loop.train(loop.Plan(recipe, shape, pack_dir, run_dir), say_row)
    per_step = OURS["global_batch"] * CONTEXT  # type: ignore[operator]
    rows = [
        {"tokens": row["step"] * per_step, "bits_per_byte": mean_bits(row["streams"], pack)}
        for row in read_metrics(run_dir, "heldout")
    ]
    saved = checkpoint.newest(run_dir)
    assert saved is not None
    model = fresh_model(pack)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(saved.full(key))
    return [*rows, final(model, pack, tokens)]


def trainer(pack_dir: Path, tokens: int, folder: Path) -> list[dict[str, Any]]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from mutirao.core.manifest import read_manifest
    from train_jobs import ranks

    pack = read_manifest(pack_dir)
    assert pack is not None
    model = fresh_model(pack)
    steps, share = tokens // TTL_TOKENS, TTL_TOKENS // CONTEXT // WORLD
    rows: list[dict[str, Any]] = []

    class Measure(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            if state.global_step % max(1, steps // POINTS) == 0:
                bits = heldout_bits(model, pack)
                rows.append({"tokens": state.global_step * TTL_TOKENS, "bits_per_byte": bits})
                if ranks.rank() == 0:
                    print(json.dumps(rows[-1]), file=sys.stderr)

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), max_steps=steps, use_cpu=True, ddp_backend="gloo",
        per_device_train_batch_size=share, max_grad_norm=0.0, learning_rate=6e-4,
        lr_scheduler_type="cosine", warmup_steps=max(1, round(0.011 * steps)), weight_decay=0.01,
        adam_beta1=0.9, adam_beta2=0.999, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", dataloader_pin_memory=False, seed=42,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=Slices(pack), callbacks=[Measure()]).train()
    return [*rows, final(model, pack, tokens)]


class Slices(torch.utils.data.Dataset):
    """The sequences of all streams, one after another; the Trainer shuffles them."""

    def __init__(self, pack: Any):
        from train_jobs.loader import token_streams

        self.streams = [s for s in token_streams(pack, "train") if len(s) > CONTEXT]
        self.ends = np.cumsum([(len(s) - 1) // CONTEXT for s in self.streams])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        number = int(np.searchsorted(self.ends, i, side="right"))
        inside = i - (int(self.ends[number - 1]) if number else 0)
        ids = torch.from_numpy(
            self.streams[number].read(inside * CONTEXT, CONTEXT).astype(np.int64)
        )
        return {"input_ids": ids, "labels": ids}


def fresh_model(pack: Any) -> Any:
    """The same weights for both; Hugging Face's own class."""
    from transformers import LlamaForCausalLM

    from mutirao.core.model_size import resolve
    from mutirao.core.recipe import Model
    from train_jobs.model import llama_config

    torch.manual_seed(42)
    return LlamaForCausalLM(
        llama_config(resolve(Model(**MODEL), pack.content["info"]["vocab_size"]))
    )


def final(model: Any, pack: Any, tokens: int) -> dict[str, Any]:
    """Of the whole held-out text; rank 0 measures."""
    from train_jobs import ranks
    from train_jobs.evaluate import bits_per_byte

    bits = bits_per_byte(model.eval(), pack) if ranks.rank() == 0 else 0.0
    ranks.barrier()
    return {"tokens": tokens, "bits_per_byte": bits, "whole": True}


@torch.no_grad()
def heldout_bits(model: Any, pack: Any) -> float:
    """As `heldout_losses` of our loop: the first sequences of each stream."""
    from train_jobs import ranks
    from train_jobs.evaluate import stream_bits
    from train_jobs.heldout import ROWS, SEQUENCES
    from train_jobs.loader import heldout_batches, stream_names
    from train_jobs.model import token_losses

    model.eval()
    streams = []
    for stream, _ in enumerate(stream_names(pack)):
        nats = tokens = 0.0
        for number, batch in enumerate(heldout_batches(pack, CONTEXT, ROWS, SEQUENCES, stream)):
            if number % WORLD != ranks.rank():
                continue
            arrays = (batch.input_ids, batch.labels, batch.weights)
            ids, labels, weights = map(torch.from_numpy, arrays)
            losses = token_losses(model(input_ids=ids, use_cache=False).logits, labels)
            nats += float((losses * weights).sum())
            tokens += float(weights.sum())
        nats, tokens = ranks.total([nats, tokens], torch.device("cpu"))
        if tokens:
            bits = stream_bits(pack, stream, nats / tokens)
            streams.append({"tokens": tokens, "bits_per_byte": bits})
    model.train()
    return mean_bits(streams, pack)


def mean_bits(streams: list[dict[str, Any]], pack: Any) -> float:
    """Of several streams, by the tokens that were read of each."""
    total = sum(one["tokens"] for one in streams)
    return sum(one["bits_per_byte"] * one["tokens"] for one in streams) / total


def say_row(row: dict[str, Any]) -> None:
    from train_jobs import ranks

    if ranks.rank() == 0 and row["step"] % 20 == 0:
        print(
            f"step {row['step']}: {row['loss']:.3f}, {row['tokens_per_s']:.0f}/s", file=sys.stderr
        )


def plot(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    names = {"ours": "mutirão", "trainer": "Hugging Face Trainer, TTL's recipe"}
    for name, rows in curves.items():
        way = [row for row in rows if not row.get("whole")]
        axes.plot(
            [r["tokens"] for r in way], [r["bits_per_byte"] for r in way], "o-", label=names[name]
        )
    axes.set(xlabel="tokens", ylabel="held-out bits per byte")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
