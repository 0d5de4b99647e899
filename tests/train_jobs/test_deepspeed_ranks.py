"""Both engines with several ranks on gloo, in processes of their own (one start for all cases).

Each case is trained straight to the end, and once more from a copy of its checkpoint at step 4.
Measured across engines, stages and 1, 2, 4 ranks (fp32, ten steps): losses differ by at most 1e-6.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from mutirao.core.files import read_json, write_json
from mutirao.core.manifest import read_manifest
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.stop import clear_stop, request_stop
from tiny_train import make_pack, make_plan, make_recipe
from train_jobs import checkpoint, loop, loss_scale, ranks
from train_jobs.torch_engine import TorchEngine
from train_jobs.worker import prepare

TOLERANCE = 1e-5  # nats per token
HALF = 5e-3  # the same with bf16 or fp16 passes against fp32


def stage(number: int, **more):
    return {"engine": "deepspeed", "zero_stage": number, "micro_batch": 2} | more


QUICK = {
    "torch": {"engine": "torch", "micro_batch": 2},
    "stage 1": stage(1),
    "stage 2": stage(2),
    "stage 3": stage(3, micro_batch=4),  # one pass, for the time it takes
    "stage 2, bf16, offload": stage(2, dtype="bf16", offload="optimizer"),
}
MORE = {
    **{f"stage {n}, bf16": stage(n, dtype="bf16") for n in (1, 2, 3)},
    **{f"stage {n}, fp16": stage(n, dtype="fp16") for n in (1, 2, 3)},
    **{f"stage {n}, offload": stage(n, offload="optimizer") for n in (1, 2, 3)},
    "torch, bf16": {"engine": "torch", "dtype": "bf16"},
    "torch, fp16": {"engine": "torch", "dtype": "fp16"},
}
HIGH = {f"{name}, high scale": o for name, o in MORE.items() if o.get("dtype") == "fp16"}
FOUR = {name: QUICK[name] for name in ("torch", "stage 1", "stage 2", "stage 3")}
PARTS = {"quick": (2, QUICK), "more": (2, MORE), "four": (4, FOUR)}


def rank_main(number: int, world: int, rendezvous: str, root: Path, part: str) -> None:
    prepare(1)
    if part == "more":
        allow_fp16_on_cpu()
    pack = read_manifest(root / "pack")
    with ranks.group(number, world, rendezvous):
        for name, options in PARTS[part][1].items():
            plan = plan_of(pack, root / name, world, options)
            loop.train(plan)
            again(plan, root / f"{name}, again")
            loop.train(plan_of(pack, root / f"{name}, again", world, options))
        if part == "more":
            too_high_a_scale(pack, root)
        if part == "quick":
            stop_and_go_on(pack, root / "stopped")
            again(plan_of(pack, root / "stage 1", 2, {}), root / "1 then 3")
            loop.train(plan_of(pack, root / "1 then 3", world, QUICK["stage 3"]))
            one_bad_replica(plan_of(pack, root / "bad replica", world, QUICK["torch"]))


def plan_of(pack, run_dir: Path, world: int, options: dict):
    keep = {"workers": world, "keep_last": 9}
    return make_plan(make_recipe(**keep, **options), pack, run_dir)


def again(plan, run_dir: Path) -> None:
    """A run that has of `plan` the checkpoint of step 4 alone."""
    if ranks.rank() == 0:
        name = "step-00000004"
        shutil.copytree(
            checkpoint.checkpoints(plan.run_dir) / name, checkpoint.checkpoints(run_dir) / name
        )
    ranks.barrier()


def stop_and_go_on(pack, run_dir: Path) -> None:
    plan = plan_of(pack, run_dir, 2, QUICK["stage 2"])

    def stop_at_4(row):
        if row["step"] == 4 and ranks.rank() == 0:
            request_stop(run_dir, "test")

    loop.train(plan, stop_at_4)
    ranks.barrier()
    clear_stop(run_dir)
    ranks.barrier()
    loop.train(plan)


def too_high_a_scale(pack, root: Path) -> None:
    """fp16 whose first loss scale overflows, and which grows again every third good step."""
    loss_scale.INITIAL, loss_scale.WINDOW = 2.0**30, 3
    for name, options in HIGH.items():
        plan = plan_of(pack, root / name, 2, options)
        loop.train(plan)
        again(plan, root / f"{name}, again")
        loop.train(plan_of(pack, root / f"{name}, again", 2, options))


def one_bad_replica(plan) -> None:
    """A gradient of rank 1 goes bad between its reduction and the fifth step."""
    real, seen = TorchEngine.step, []

    def step(self, lr, loss):
        if len(seen) == 4 and ranks.rank() == 1:
            self.parameters[0].grad.view(-1)[0] = float("nan")
        outcome = real(self, lr, loss)
        seen.append([outcome.verdict, outcome.verdict or outcome.grad_norm])
        return outcome

    TorchEngine.step = step
    try:
        loop.train(plan)
    finally:
        TorchEngine.step = real
    write_json(plan.run_dir / f"seen-{ranks.rank()}.json", {"format": 1, "seen": seen})


def allow_fp16_on_cpu() -> None:
    """DeepSpeed runs it (slowly) where the CPU has no instruction for it, but does not offer to."""
    from train_jobs.engine import import_deepspeed

    import_deepspeed()
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True


def run_part(root: Path, part: str) -> Path:
    pack = make_pack(root / "pack")
    world = PARTS[part][0]
    arguments = (world, str(root / "rendezvous"), root, part)
    mp.start_processes(rank_main, arguments, nprocs=world, start_method="spawn")
    loop.train(make_plan(make_recipe(), pack, root / "alone"))
    return root


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return run_part(tmp_path_factory.mktemp("quick"), "quick")


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    return run_part(tmp_path_factory.mktemp("more"), "more")


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return run_part(tmp_path_factory.mktemp("four"), "four")


def check_equal_bits(one: Path, other: Path) -> None:
    a, b = checkpoint.newest(one), checkpoint.newest(other)
    assert a.step == b.step == 10
    for name in a.shapes:
        for kind in checkpoint.KINDS:
            assert torch.equal(a.full(name, kind), b.full(name, kind)), (name, kind)
    losses, later = step_losses(one), step_losses(other)
    assert later == {step: losses[step] for step in later}
    assert a.state["scaler"] == b.state["scaler"]


def check_losses(root: Path, name: str, options: dict) -> None:
    alone, together = step_losses(root / "alone"), step_losses(root / name)
    most = HALF if "dtype" in options else TOLERANCE
    assert list(alone) == list(together)
    for step, loss in alone.items():
        assert together[step] == pytest.approx(loss, abs=most), (name, step)


@pytest.mark.parametrize("name", QUICK)
def test_n_steps_then_m_more_are_n_plus_m_steps_bit_for_bit(quick, name):
    check_equal_bits(quick / name, quick / f"{name}, again")


@pytest.mark.parametrize("name", QUICK)
def test_every_engine_learns_with_two_ranks_what_one_process_learns(quick, name):
    check_losses(quick, name, QUICK[name])


@pytest.mark.soak
@pytest.mark.parametrize("name", MORE)
def test_so_in_every_precision_and_offloaded(more, name):
    check_equal_bits(more / name, more / f"{name}, again")
    check_losses(more, name, MORE[name])


@pytest.mark.soak
@pytest.mark.parametrize("name", HIGH)
def test_a_loss_scale_that_is_too_high_costs_steps_and_no_bits(more, name):
    check_equal_bits(more / name, more / f"{name}, again")
    skips = [row["step"] for row in read_metrics(more / name, "event") if row["what"] == "scaler"]
    assert skips == [row["step"] for row in events_of_torch(more) if row["what"] == "scaler"]
    assert len(skips) > 1
    assert checkpoint.newest(more / name).state["guard"]["skipped"] == 0


def events_of_torch(root: Path) -> list[dict]:
    return read_metrics(root / "torch, fp16, high scale", "event")


@pytest.mark.soak
@pytest.mark.parametrize("name", FOUR)
def test_so_with_four_ranks(four, name):
    check_equal_bits(four / name, four / f"{name}, again")
    check_losses(four, name, FOUR[name])


def test_asking_to_stop_and_going_on_gives_the_weights_of_no_stop(quick):
    check_equal_bits(quick / "stage 2", quick / "stopped")
    assert step_losses(quick / "stage 2") == step_losses(quick / "stopped")


def test_a_run_continues_under_another_zero_stage(quick):
    one, other = (checkpoint.newest(quick / name) for name in ("stage 1", "1 then 3"))
    assert one.step == other.step == 10
    for name in one.shapes:
        assert torch.allclose(one.full(name), other.full(name), atol=1e-4), name


def test_all_ranks_leave_out_the_step_in_which_one_replica_is_bad(quick):
    seen = [read_json(quick / "bad replica" / f"seen-{rank}.json")["seen"] for rank in (0, 1)]
    assert seen[0] == seen[1]
    assert [verdict for verdict, _ in seen[0]].index("not-finite") == 4
    assert sum(bool(verdict) for verdict, _ in seen[0]) == 1


def test_each_rank_wrote_its_slice_and_the_config_is_kept(quick):
    record = checkpoint.newest(quick / "stage 2").record
    names = [f["path"] for f in record["files"]]
    assert [name.split(".")[0] for name in names] == ["rank-00000-of-00002", "rank-00001-of-00002"]
    held = [sum(numel for _, numel in f["slices"].values()) for f in record["files"]]
    assert sum(held) == sum(torch.Size(s).numel() for s in record["shapes"].values())
    assert abs(held[0] - held[1]) < 0.1 * sum(held)
    config = read_json(quick / "stage 2" / "deepspeed.json")
    assert config["zero_optimization"]["stage"] == 2
    assert config["gradient_accumulation_steps"] == 2
