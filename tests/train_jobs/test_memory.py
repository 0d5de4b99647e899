"""What is said when memory runs out, and how a micro-batch is found that fits."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from mutirao.core.errors import EnvironmentProblem
from mutirao.core.files import read_json
from mutirao.core.model_size import memory_per_worker, resolve
from mutirao.core.recipe import Model, Train
from tiny_train import MODEL, VOCAB, make_pack, make_plan, make_recipe
from train_jobs import loop, memory, micro_batch
from train_jobs.memory import Place, check_host_memory, out_of_memory, settings_that_fit
from train_jobs.micro_batch import by_estimate, largest, passes_per_step, probe
from train_jobs.model import TrainingLlama, build_model

LARGE = resolve(Model(preset="ttl-460m"), 32_000)
TINY = resolve(Model(**MODEL), VOCAB)
GB = 10**9


def total(train: Train) -> int:
    return memory_per_worker(LARGE, train, cuda=True)["total"]


def changed(train: Train, fit: dict) -> Train:
    return train.model_copy(update=fit)


def test_the_cheapest_setting_that_fits_is_a_smaller_micro_batch_and_it_fits():
    train = Train(global_batch=256, workers=8, dtype="bf16")
    half = total(train) * 6 // 10
    fit = settings_that_fit(LARGE, train, True, half)
    assert list(fit) == ["micro_batch"]
    assert total(changed(train, fit)) <= half < total(changed(train, {"micro_batch": 32}))


def test_where_no_micro_batch_fits_the_weights_are_divided_too():
    options = {"dtype": "bf16", "zero_stage": 1, "gradient_checkpointing": True}
    train = Train(global_batch=64, workers=8, **options)
    one = memory_per_worker(LARGE, train.model_copy(update={"micro_batch": 1}), cuda=True)
    capacity = one["total"] - one["parameters"] // 2
    fit = settings_that_fit(LARGE, train, True, capacity)
    assert fit["zero_stage"] == 3
    assert total(changed(train, fit)) <= capacity


@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_what_the_engine_or_one_worker_cannot_do_is_not_proposed(engine):
    train = Train(global_batch=8, workers=1 if engine == "deepspeed" else 4, engine=engine)
    for capacity in (10 * GB, 2 * GB, 1):
        fit = settings_that_fit(LARGE, train, False, capacity) or {}
        assert "zero_stage" not in fit
        assert "offload" not in fit
    assert settings_that_fit(LARGE, train, False, 1) is None


def test_the_estimate_is_raised_by_what_was_needed_for_real():
    train = Train(global_batch=256, workers=8, dtype="bf16")
    capacity = int(total(train) * 1.1)
    plain = settings_that_fit(LARGE, train, True, capacity)
    raised = settings_that_fit(LARGE, train, True, capacity, ratio=2.0)
    assert raised["micro_batch"] < plain.get("micro_batch", 32)


def test_a_full_card_is_told_with_numbers_other_processes_and_the_command():
    train = Train(global_batch=256, workers=8, dtype="bf16")
    place = Place("NVIDIA X, card 0 of host", 60 * GB, GB, 80 * GB, ((77, "python", 18 * GB),))
    problem = out_of_memory(LARGE, train, True, place, 3 * GB)
    assert isinstance(problem, EnvironmentProblem)
    assert problem.code == "out-of-memory"
    assert "held 60.0 GB and wanted 3.0 GB more" in problem.problem
    assert "1.0 GB of 80.0 GB were free" in problem.problem
    assert "python (pid 77, 18.0 GB)" in problem.hint
    assert "--set train.micro_batch=" in problem.hint


@pytest.mark.parametrize(
    "message, expected",
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has", int(2.5 * 2**30)),
        ("Tried to allocate 512.00 MiB (GPU 0;", 512 * 2**20),
        ("something else", 0),
    ],
)
def test_bytes_wanted_are_read_from_torchs_message(message, expected):
    assert memory.wanted_bytes(message) == expected


def test_other_processes_on_a_card_are_named_without_this_one():
    running = [
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=5),
        SimpleNamespace(pid=1, usedGpuMemory=7),
        SimpleNamespace(pid=2**22 + 1, usedGpuMemory=None),
    ]
    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: running,
    )
    found = list(memory.holders("GPU-1", library))
    assert [(pid, size) for pid, _, size in found] == [(1, 7), (2**22 + 1, 0)]
    assert found[1][1] == "a process"


def test_no_driver_means_no_holders():
    assert list(memory.holders("GPU-none")) == []


def forward_of_a_card_that_holds(most: int):
    real = TrainingLlama.forward

    def forward(self, input_ids, **more):
        if len(input_ids) > most:
            raise torch.OutOfMemoryError("Tried to allocate 1.00 GiB.")
        return real(self, input_ids, **more)

    return forward


def test_a_loop_that_runs_out_of_memory_ends_with_what_fits(tmp_path, monkeypatch):
    pack = make_pack(tmp_path / "pack")
    monkeypatch.setattr(TrainingLlama, "forward", forward_of_a_card_that_holds(2))
    with pytest.raises(EnvironmentProblem) as ended:
        loop.train(make_plan(make_recipe(), pack, tmp_path / "run"))
    assert ended.value.code == "out-of-memory"
    assert "wanted 1.1 GB more" in ended.value.problem
    monkeypatch.undo()
    assert loop.train(make_plan(make_recipe(micro_batch=2), pack, tmp_path / "run")) == 10


def test_the_probe_finds_what_fits_and_leaves_no_trace(monkeypatch):
    model = build_model(TINY, 3)
    before = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    monkeypatch.setattr(TrainingLlama, "forward", forward_of_a_card_that_holds(5))
    cpu = torch.device("cpu")
    assert probe(model, TINY, 16, cpu) == 4
    assert probe(model, TINY, 5, cpu) == 5
    assert torch.equal(torch.rand(3), expected)
    same = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(a, b) and b.grad is None for a, b in same)


def test_a_probe_in_which_nothing_fits_says_so(monkeypatch):
    monkeypatch.setattr(TrainingLlama, "forward", forward_of_a_card_that_holds(0))
    with pytest.raises(torch.OutOfMemoryError):
        probe(build_model(TINY, 3), TINY, 4, torch.device("cpu"))


def test_the_largest_is_found_by_doubling():
    assert [largest(12, lambda n, most=most: n <= most) for most in (0, 1, 3, 11, 12)] == [
        0,
        1,
        2,
        8,
        12,
    ]


def test_passes_are_made_equal_so_that_none_is_filled_up_in_vain():
    auto = Train(global_batch=24, micro_batch="auto")
    assert passes_per_step(auto, 2, 8) == (6, 2)
    assert passes_per_step(Train(global_batch=24, micro_batch=8), 2, 8) == (8, 2)


def test_on_cpu_the_estimate_stays_under_half_of_what_is_free():
    train = Train(global_batch=64, workers=1, engine="torch")
    one = memory_per_worker(LARGE, train.model_copy(update={"micro_batch": 1}))["total"]
    assert by_estimate(LARGE, train, 64, 1) == 1
    assert by_estimate(LARGE, train, 64, 2 * (one + memory.PROCESS_BYTES)) == 1
    assert by_estimate(LARGE, train, 64, 10**14) == 64


def test_auto_is_answered_once_and_kept(tmp_path, monkeypatch):
    pack = make_pack(tmp_path / "pack")
    plan = make_plan(make_recipe(micro_batch="auto"), pack, tmp_path / "run")
    assert loop.train(plan) == 10
    record = read_json(plan.run_dir / micro_batch.NAME)
    assert record["micro_batch"] == 8
    monkeypatch.setattr(micro_batch, "by_estimate", lambda *_: 2)
    model, train = build_model(TINY, 1), plan.recipe.train
    assert micro_batch.sequences_at_once(model, TINY, train, plan.run_dir) == 8
    other = train.model_copy(update={"gradient_checkpointing": True})
    assert micro_batch.sequences_at_once(model, TINY, other, plan.run_dir) == 2


def test_workers_that_do_not_fit_into_the_machine_are_refused_before_launch():
    train = Train(global_batch=64, workers=2, engine="torch")
    check_host_memory(LARGE, train, 10**14)
    with pytest.raises(EnvironmentProblem) as refused:
        check_host_memory(LARGE, train, 60 * GB)
    assert refused.value.code == "no-memory"
    assert "this machine has 60.0 GB" in refused.value.problem
    fit = refused.value.hint.split("train.micro_batch=")[1].split()[0]
    check_host_memory(LARGE, train.model_copy(update={"micro_batch": int(fit)}), 60 * GB)


def test_this_machine_has_memory():
    assert 0 < memory.machine_bytes() < 2**50
