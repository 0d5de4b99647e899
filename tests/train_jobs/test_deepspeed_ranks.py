"""DeepSpeed with two ranks on gloo, in processes of their own (one start for all of the file)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from mutirao.core.files import read_json
from mutirao.core.manifest import read_manifest
from mutirao.core.metrics import step_losses
from mutirao.core.stop import clear_stop, request_stop
from tiny_train import make_pack, make_plan, make_recipe
from train_jobs import checkpoint, loop, ranks
from train_jobs.worker import prepare

RUNS = {  # run -> ZeRO stage of the first part, stop in between, stage of the second part
    "straight": (2, False, 2),
    "stopped": (2, True, 2),
    "other-stage": (1, True, 3),
}


def rank_main(number: int, world: int, rendezvous: str, root: Path) -> None:
    prepare(1)
    pack = read_manifest(root / "pack")
    with ranks.group(number, world, rendezvous):
        for name, (first, stop, second) in RUNS.items():
            plan = plan_of(pack, root / name, first)

            def stop_at_4(row, plan=plan, stop=stop):
                if row["step"] == 4 and stop and ranks.rank() == 0:
                    request_stop(plan.run_dir, "test")

            loop.train(plan, stop_at_4)
            ranks.barrier()
            if stop:
                clear_stop(plan.run_dir)
                ranks.barrier()
                loop.train(plan_of(pack, root / name, second))


def plan_of(pack, run_dir: Path, stage: int):
    options = {"engine": "deepspeed", "workers": 2, "zero_stage": stage, "micro_batch": 2}
    return make_plan(make_recipe(**options), pack, run_dir)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    pack = make_pack(root / "pack")
    mp.start_processes(
        rank_main, (2, str(root / "rendezvous"), root), nprocs=2, start_method="spawn"
    )
    loop.train(make_plan(make_recipe(), pack, root / "alone"))
    return root


def test_stop_and_resume_gives_the_weights_of_no_stop_bit_for_bit(runs):
    one, other = (checkpoint.newest(runs / name) for name in ("straight", "stopped"))
    assert one.step == other.step == 10
    for name in one.shapes:
        for kind in checkpoint.KINDS:
            assert torch.equal(one.full(name, kind), other.full(name, kind)), (name, kind)
    assert step_losses(runs / "straight") == step_losses(runs / "stopped")


def test_a_run_continues_under_another_zero_stage(runs):
    one, other = (checkpoint.newest(runs / name) for name in ("straight", "other-stage"))
    assert one.step == other.step == 10
    for name in one.shapes:
        assert torch.allclose(one.full(name), other.full(name), atol=1e-4), name


def test_two_ranks_with_deepspeed_learn_what_one_process_with_torch_learns(runs):
    alone, together = step_losses(runs / "alone"), step_losses(runs / "straight")
    assert list(alone) == list(together)
    for step, loss in alone.items():
        assert together[step] == pytest.approx(loss, abs=1e-4)


def test_each_rank_wrote_its_slice_and_the_config_is_kept(runs):
    record = checkpoint.newest(runs / "straight").record
    assert [f["path"] for f in record["files"]] == [
        "rank-00000-of-00002.safetensors",
        "rank-00001-of-00002.safetensors",
    ]
    held = [sum(numel for _, numel in f["slices"].values()) for f in record["files"]]
    assert sum(held) == sum(torch.Size(s).numel() for s in record["shapes"].values())
    assert abs(held[0] - held[1]) < 0.1 * sum(held)
    config = read_json(runs / "straight" / "deepspeed.json")
    assert config["zero_optimization"]["stage"] == 2
    assert config["gradient_accumulation_steps"] == 2
