"""What is logged while training, what a person sees of it, samples and profiles: real tiny runs."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest

from mutirao.core.energy_rows import EnergyRow, RunUse, SegmentWriter, UsageRow
from mutirao.core.job import StageJob
from mutirao.core.lease import boot_id
from mutirao.core.metrics import MetricsWriter, read_metrics
from mutirao.core.progress import Progress
from tiny_train import make_pack, make_plan, make_recipe, make_tokenizer, write_stream
from train_jobs import heldout, loop, watch
from train_jobs.follow import Energy, following
from train_jobs.heldout import heldout_mean
from train_jobs.step_line import Eta, event_line, step_line, step_note


class Said(Progress):
    """Keeps what a terminal and the run's log would get."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.moves: list[int] = []

    def say(self, line):
        self.lines.append(line)

    def advance(self, count=1, note="", line=""):
        self.moves.append(count)
        self.lines.append(line)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with everything on: (plan, its pack)."""
    root = tmp_path_factory.mktemp("watch")
    pack, tokenizer = make_pack(root / "pack"), make_tokenizer(root / "tokenizer")
    recipe = make_recipe(sample_every=5, profile=[3])
    plan = replace(make_plan(recipe, pack, root / "run"), tokenizer_dir=tokenizer.directory)
    assert loop.train(plan) == 10
    return plan, pack


def job_of(run_dir, **train) -> StageJob:
    return StageJob("train", make_recipe(**train), run_dir, {}, run_dir, Said(), use_ray=False)


def test_a_row_says_what_its_steps_took_and_what_came_beside(made):
    rows = read_metrics(made[0].run_dir)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    for before, row in zip([{"wall_s": 0.0}, *rows], rows, strict=False):
        on_steps_s = 2 * 8 * 16 / row["tokens_per_s"]
        wall_s = row["wall_s"] - before["wall_s"]
        assert on_steps_s + row["beside_s"] == pytest.approx(wall_s, rel=1e-6)
        assert 0 < row["data_s"] < on_steps_s
    beside = [row["beside_s"] > 0 for row in rows]
    assert beside[2]  # the held-out loss of step 5 and the checkpoint of step 4
    assert not beside[0]
    assert all(row["mfu"] is None for row in rows)  # a CPU


def test_losses_are_on_disk_before_the_checkpoint_that_holds_their_steps(tmp_path, made):
    plan = make_plan(make_recipe(log_every=100, checkpoint_every=3), made[1], tmp_path / "run")
    steps = []
    loop.train(plan, lambda row: steps.append(row["step"]))
    assert steps == [3, 6, 9, 10]


def test_mfu_is_of_all_cards_and_in_both_ways_of_counting(made):
    from mutirao.core.model_size import flops_per_token

    plan = replace(made[0], recipe=make_recipe(dtype="bf16"))
    card = watch.peak(plan, "NVIDIA H200")
    assert card == pytest.approx(989e12, rel=0.01)
    assert watch.peak(plan, "") is None and watch.peak(plan, "A card of 2031") is None
    log = object.__new__(watch.Log)
    log.plan, log.peak = plan, 1e12
    found = log._mfu(1000.0)
    assert found["mfu"] == pytest.approx(1000.0 * flops_per_token(plan.shape) / 1e12)
    assert 0 < found["mfu_matrices"] < found["mfu"]


def test_samples_are_greedy_from_the_same_beginnings(made):
    rows = read_metrics(made[0].run_dir, "sample")
    assert [row["step"] for row in rows] == [5, 10]
    first, second = ([text["prompt"] for text in row["texts"]] for row in rows)
    assert first == second and len(first) == 2 and all(first)
    assert all(text["continuation"] for row in rows for text in row["texts"])


def test_the_likeliest_token_is_taken_each_time(made):
    """Against a forward of each prefix alone."""
    import torch

    from train_jobs.begin import begin_engine
    from train_jobs.prompts import fixed_prompts, greedy

    plan, pack = made
    engine, _ = begin_engine(plan, pack.content_hash)
    engine.module.eval()
    prompts = fixed_prompts(pack, 4)
    written = greedy(engine, prompts, 6)
    for prompt, text in zip(prompts, written, strict=True):
        ids = prompt
        for token in text:
            with torch.no_grad():
                logits = engine.module(input_ids=ids[None], use_cache=False).logits
            assert int(logits[0, -1].argmax()) == int(token)
            ids = torch.cat([ids, token[None]])


def test_a_profile_is_a_chrome_trace_of_the_step_and_its_busiest_operations(made):
    (row,) = read_metrics(made[0].run_dir, "profile")
    assert row["step"] == 3 and row["file"] == "profile/step-3.json"
    trace = json.loads((made[0].run_dir / row["file"]).read_text())
    assert any("mm" in event["name"] for event in trace["traceEvents"] if "name" in event)
    seconds = [own_s for _, _, own_s in row["top"]]
    assert len(seconds) == 10 and seconds == sorted(seconds, reverse=True)


def test_each_stream_has_its_held_out_curve_and_the_mean_is_by_size(tmp_path):
    streams = [
        {"name": "a", "loss": 2.0, "tokens": 100, "of_tokens": 300},
        {"name": "b", "loss": 4.0, "tokens": 100, "of_tokens": 100},
    ]
    assert heldout_mean(streams) == {"loss": 2.5, "tokens": 200}


def test_the_held_out_loss_has_a_bounded_cost(tmp_path, monkeypatch):
    from mutirao.core.manifest import commit
    from train_jobs.begin import begin_engine

    pack = make_pack(tmp_path / "one", heldout=5000)
    parts = [vars(part) for part in pack.parts]
    tokens = pack.paths("heldout")
    assert tokens
    import numpy as np

    parts += [vars(p) for p in write_stream(pack.directory, "heldout-00001-00000", np.arange(40))]
    sizes = [{"tokens": 5000, "text_bytes": 20_000}, {"tokens": 40, "text_bytes": 100}]
    train = {"tokens": 6000, "text_bytes": 24_000}
    info = {
        **pack.content["info"],
        "streams": [
            {"name": name, "train": train, "heldout": size}
            for name, size in zip(("large", "small"), sizes, strict=True)
        ],
    }
    (pack.directory / "manifest.json").unlink()
    both = commit(pack.directory, {"parts": parts, "counts": {}, "info": info}, {})
    plan = make_plan(make_recipe(), both, tmp_path / "run")
    engine, _ = begin_engine(plan, both.content_hash)
    found = {
        row["name"]: row for row in heldout.heldout_losses(engine, both, 16, plan.recipe.train)
    }
    assert found["large"]["tokens"] == 32 * 16  # of 5,000: half of 64 sequences
    assert found["small"]["tokens"] == 40  # all of them
    ratio = found["small"]["bits_per_byte"] / found["small"]["loss"]
    assert ratio == pytest.approx(40 / 100 / 0.693147, rel=1e-5)


def train_row(step: int, wall_s: float, **more) -> dict:
    row = {"kind": "train", "step": step, "first_step": step, "losses": [5.0], "loss": 5.2541}
    return {**row, "tokens": 1, "tokens_per_s": 6076.4, "mfu": None, "wall_s": wall_s, **more}


def test_a_line_holds_all_and_fits_a_terminal():
    note = step_note(train_row(120, 1.0), 6840.0, 300.0)
    line = step_line(train_row(120, 1.0), note, 489)
    assert line == "  step 120, 25%, loss 5.254, 6,076 tokens/s, MFU n/a, 1.9 Wh, 5 min left"
    large = train_row(1_200_000, 1.0, loss=9.5, tokens_per_s=1_234_567.0, mfu=0.456)
    long = step_line(large, step_note(large, 113 * 3.6e6, 12 * 86400.0), 1_200_000)
    assert "1.23M tokens/s, MFU 46%, 113 kWh, 12 d left" in long and len(long) == 79
    bad = train_row(1, 1.0, loss=None)
    assert step_note(bad, 0.0, None) == "loss not finite, 6,076 tokens/s, MFU n/a"


def test_the_time_that_is_left_comes_from_the_recent_pace_of_this_attempt():
    eta = Eta(100)
    eta.note({"kind": "attempt", "step": 0})
    eta.note(train_row(2, 60.0))  # compiled and warmed up
    assert eta.left_s() is None
    eta.note(train_row(4, 61.0))
    assert eta.left_s() is None  # too few steps
    eta.note(train_row(12, 65.0))
    assert eta.left_s() == pytest.approx(88 * 0.5)
    eta.note({"kind": "attempt", "step": 10})
    assert eta.left_s() is None


def test_events_are_said_in_words():
    spike = {"step": 7, "what": "spike", "loss": 9.123, "grad_norm": 120.0}
    assert event_line(spike) == "  step 7 is left out, a spike: loss 9.12, gradient norm 120"
    back = {
        "step": 9,
        "what": "rollback",
        "to_step": 4,
        "cause": "bad-steps",
        "detail": "5 in a row",
    }
    assert event_line(back) == "  step 9: rollback, back to step 4, bad-steps, 5 in a row"
    assert event_line({"step": 3, "what": "scaler"}) == ""


def test_progress_follows_the_rows_and_never_moves_back(tmp_path):
    old = MetricsWriter(tmp_path)
    old.write("attempt", {"step": 0, "workers": 2})
    old.write("train", train_row(4, 1.0))
    old.write("event", {"step": 3, "what": "spike", "loss": 9.0, "grad_norm": 1.0})
    job = job_of(tmp_path)
    with following(job, 10, 4) as look:
        new = MetricsWriter(tmp_path)
        new.write("attempt", {"step": 4, "workers": 2})
        new.write("train", train_row(6, 1.0))
        look()
        again = MetricsWriter(tmp_path)
        again.write("attempt", {"step": 4, "workers": 1})
        again.write("train", train_row(6, 1.0))
        again.write("train", train_row(8, 2.0))
    assert job.progress.moves == [2, 2]
    assert job.progress.lines[0].startswith("  step 6, 60%, loss 5.254")
    assert job.progress.lines[1] == "  goes on from step 4 with 1 worker"
    assert not any("spike" in line for line in job.progress.lines)  # said by the run before


def test_an_exporter_that_fails_is_given_up_and_training_goes_on(tmp_path, monkeypatch):
    def broken(self, rows):
        raise OSError(28, "No space left on device")

    job = job_of(tmp_path, tensorboard=True)
    with following(job, 10, 0) as look:
        monkeypatch.setattr("train_jobs.exporters.TensorBoard.show", broken)
        MetricsWriter(tmp_path).write("train", train_row(2, 1.0))
        look()
        MetricsWriter(tmp_path).write("train", train_row(4, 1.0))
    assert job.progress.moves == [2, 2]
    said = [line for line in job.progress.lines if "given up" in line]
    assert said == ["  tensorboard is given up: [Errno 28] No space left on device"]


def test_the_followers_thread_reads_beside_the_training(tmp_path):
    job, seen = job_of(tmp_path), threading.Event()
    job.progress.advance = lambda *about: seen.set()
    with following(job, 10, 0, every_s=0.01):
        MetricsWriter(tmp_path).write("train", train_row(2, 1.0))
        assert seen.wait(20)


def test_energy_is_that_of_the_run_in_the_ledger_and_grows_with_it(tmp_path):
    run_dir = tmp_path / "runs" / "tiny-1"
    energy, now = Energy(run_dir), time.time()
    assert energy.joules(0.0) == 0.0
    rows = SegmentWriter(tmp_path / "ledger" / boot_id())
    for second in range(2):
        interval = (boot_id(), now + second, now + second + 1.0)
        use = {"tiny-1": RunUse(cpu_s=0.75), "other-1": RunUse(cpu_s=0.25)}
        rows.append(
            [
                EnergyRow(interval[0], "cpu", *interval[1:], 40.0, "rapl", measured=True),
                UsageRow(*interval, busy_cpu_s=1.0, used_bytes=1, runs=use),
            ]
        )
        assert energy.joules(0.0) == pytest.approx(30.0 * (second + 1), rel=0.01)
    rows.close()


def test_a_damaged_ledger_costs_the_energy_figure_alone(tmp_path):
    folder = tmp_path / "ledger" / boot_id()
    folder.mkdir(parents=True)
    (folder / "00000000-1.jsonl").write_text("not json\n")
    assert Energy(tmp_path / "runs" / "tiny-1").joules(0.0) == 0.0
