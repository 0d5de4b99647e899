"""From SIGKILL of a worker to the first new step: mutirão's training beside a bare Ray Train loop.

    python benchmarks/kill_to_step.py --rounds 3 --result benchmarks/results/kill_to_step.json

Both train the same tiny Llama in two workers on a local Ray with two CPUs (DDP on gloo in the bare
loop, which saves with torch.save; DeepSpeed ZeRO 2, or --engine torch, in ours), each with a
checkpoint every 5 steps. Once there is one, rank 1 is killed. In turn; seconds of each phase:
`detect` kill to the start of rank 0's new process (which Linux tells to a second), `start` of it to
the loop (Ray, process group, imports), `engine` to weights, moments and position restored, `step`
to the end of the first step that was not done before the kill, those done again included. `cpu` is
the processor time of rank 0's new process in `start` and `engine` together, which other work on the
machine stretches less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "train_jobs"))

STEPS = 2_000
EVERY = 5  # steps between checkpoints
PAUSE_S = 0.05  # of the bare loop, whose steps would be over before the killer looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=["deepspeed", "torch"], default="deepspeed")
    parser.add_argument("--only", choices=["ours", "bare"])
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    from mutirao.core.recipe import Ray
    from mutirao.run.session import ray_session

    rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    with ray_session(Ray(cpus=2, object_store_mb=200)):
        for number in range(options.rounds):
            for name, one in (("ours", ours), ("bare", bare)):
                if options.only in (None, name):
                    with tempfile.TemporaryDirectory() as folder:
                        found = one(Path(folder), options.engine)
                    print(number, name, json.dumps(found), flush=True)
                    rounds[name].append(found)
    medians = {name: median(rows) for name, rows in rounds.items() if rows}
    record = {"format": 1, "load": os.getloadavg(), "median": medians, "rounds": rounds}
    print(json.dumps(medians, indent=1))
    if options.result:
        options.result.write_text(json.dumps(record, indent=1) + "\n")


def median(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def ours(root: Path, engine: str) -> dict[str, Any]:
    from mutirao.core.job import StageJob
    from mutirao.core.metrics import read_metrics
    from mutirao.core.progress import Progress
    from mutirao.core.stop import request_stop
    from tiny_train import make_pack, make_recipe, make_tokenizer
    from train_jobs import signs
    from train_jobs.fit import fit
    from train_jobs.launch import reached_step, resolve, shape_record

    recipe = make_recipe(
        engine=engine,
        workers=2,
        tokens=STEPS * 8 * 16,
        max_epochs=1e6,
        log_every=1,
        checkpoint_every=EVERY,
        eval_every=10**6,
    )
    inputs = {"pack": make_pack(root / "pack"), "tokenizer": make_tokenizer(root / "tokenizer")}
    run_dir = root / "run"
    run_dir.mkdir()
    job = StageJob("train", recipe, root / "train", inputs, run_dir, Progress(quiet=True))
    plan = {
        "recipe": recipe.model_dump(by_alias=True),
        "shape": shape_record(resolve(recipe.model, 300)),
        "pack_dir": str(root / "pack"),
        "run_dir": str(run_dir),
        "tokenizer_dir": str(root / "tokenizer"),
        "threads": 1,
    }

    def last_step() -> int:
        rows = read_metrics(run_dir)
        return rows[-1]["step"] if rows else 0

    def watch(found: dict[str, Any]) -> None:
        wait_for(lambda: reached_step(run_dir) > 0)
        first, victim = signs.read_signs(run_dir, 2)
        done = last_step()
        killed = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        wait_for(lambda: signs.read_signs(run_dir, 1)[0].pid not in (0, first.pid))
        begun = time.time()
        started = signs.read_signs(run_dir, 1)[0].started
        wait_for(lambda: len(read_metrics(run_dir, "attempt")) == 2)
        restored, cpu = time.time(), cpu_s(signs.read_signs(run_dir, 1)[0].pid)
        wait_for(lambda: last_step() > done)
        found.update(phases(killed, started, begun, restored, time.time()), cpu=cpu)
        found["steps_again"] = done - read_metrics(run_dir, "attempt")[-1]["step"]
        request_stop(run_dir, "measured")

    return watched(watch, lambda: fit(job, plan))


def bare(root: Path, engine: str) -> dict[str, Any]:
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    trainer = TorchTrainer(
        bare_loop,
        train_loop_config={"root": str(root)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name="bare", storage_path=str(root), failure_config=FailureConfig(max_failures=3)
        ),
    )

    def note(name: str) -> dict[str, Any]:
        try:
            return json.loads((root / name).read_text())
        except (OSError, ValueError):
            return {"pid": 0, "step": 0}

    def watch(found: dict[str, Any]) -> None:
        wait_for(lambda: (root / "saved.pt").exists() and note("rank-1")["pid"])
        first, done = note("rank-0")["pid"], note("rank-0")["step"]
        killed = time.time()
        os.kill(note("rank-1")["pid"], signal.SIGKILL)
        wait_for(lambda: note("rank-0")["pid"] not in (0, first))
        begun = time.time()
        started = psutil.Process(note("rank-0")["pid"]).create_time()
        wait_for(lambda: "restored" in note("rank-0"))
        restored, cpu = time.time(), cpu_s(note("rank-0")["pid"])
        wait_for(lambda: note("rank-0")["step"] > done)
        found.update(phases(killed, started, begun, restored, time.time()), cpu=cpu)
        found["steps_again"] = done - note("rank-0")["restored"]
        (root / "stop").touch()

    return watched(watch, trainer.fit)


def bare_loop(config: dict[str, Any]) -> None:
    """DDP, AdamW, torch.save every few steps, and the newest file after a restart."""
    import torch
    import torch.distributed as dist

    root, rank = Path(config["root"]), dist.get_rank()
    about: dict[str, Any] = {"pid": os.getpid(), "step": 0}

    def note(**more: Any) -> None:
        about.update(more)
        temporary = root / f".rank-{rank}"
        temporary.write_text(json.dumps(about))
        temporary.replace(root / f"rank-{rank}")

    note()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, num_attention_heads=4, **shape))
    optimizer = torch.optim.AdamW(model.parameters())
    saved = root / "saved.pt"
    step = 0
    if saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    replica = torch.nn.parallel.DistributedDataParallel(model)
    note(restored=step, step=step)
    while step < STEPS:
        stop = torch.tensor(float((root / "stop").exists()))
        dist.all_reduce(stop)
        if stop:
            return
        ids = torch.randint(300, (4, 17))
        replica(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        note(step=step)
        time.sleep(PAUSE_S)
        if step % EVERY == 0 and rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step}, root / ".saved.pt")
            (root / ".saved.pt").replace(saved)


def cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


def phases(killed: float, started: float, begun: float, restored: float, new: float) -> dict:
    return {
        "detect": started - killed,
        "start": begun - started,
        "engine": restored - begun,
        "step": new - restored,
        "all": new - killed,
    }


def watched(watch: Any, work: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    thread = threading.Thread(target=watch, args=(found,), daemon=True)
    thread.start()
    work()
    thread.join(timeout=5)
    if not found:
        raise SystemExit("the training ended before the measurement")
    return found


def wait_for(condition: Any, limit_s: float = 900.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


if __name__ == "__main__":
    main()
