"""Held-out bits by stream, events of the guard and figures of the training, on the page."""

from __future__ import annotations

from made_up_run import RECIPE, finished_run
from mutirao.core.metrics import MetricsWriter
from mutirao.report.facts import Event
from mutirao.report.gather import gather
from mutirao.report.page import render


def write_rows(run_dir) -> None:
    """A resume at step 30 with a spike, a rollback, a checkpoint and two streams held out."""
    writer = MetricsWriter(run_dir)
    writer.write("attempt", {"step": 30, "device": "NVIDIA H200", "workers": 1})
    row = {"step": 40, "first_step": 31, "losses": [3.0] * 10, "loss": 3.0, "lr": 1e-3}
    pace = {"tokens": 4000, "tokens_per_s": 1000.0, "data_s": 0.01, "beside_s": 1.0}
    writer.write("train", {**row, **pace, "mfu": 0.4, "mfu_matrices": 0.3, "skipped": 1})
    streams = [("leis", 1.5), ("prosa", 2.5)]
    held = [{"name": n, "loss": b, "bits_per_byte": b, "tokens": 9} for n, b in streams]
    writer.write("heldout", {"step": 40, "loss": 2.0, "tokens": 18, "streams": held})
    writer.write("checkpoint", {"step": 40, "stall_s": 0.25, "write_s": 2.0, "bytes": 1000})
    writer.write("event", {"step": 35, "what": "spike", "loss": 9.0, "grad_norm": 1.0})
    writer.write("event", {"step": 36, "what": "rollback", "to_step": 30, "detail": "5 in a row"})
    writer.write("event", {"step": 37, "what": "scaler"})
    writer.close()


def test_the_page_tells_how_the_training_went(tmp_path):
    run_dir, manifests = finished_run(tmp_path)
    write_rows(run_dir)
    facts = gather(run_dir, manifests, RECIPE)
    assert {one.name: one.points for one in facts.heldout_bits} == {
        "leis": ((4000, 1.5),),
        "prosa": ((4000, 2.5),),
    }
    assert facts.events == (Event(35, "spike"), Event(36, "rollback", 30, "5 in a row"))
    words = dict(facts.training)
    assert words["MFU, median"] == (
        "40.0% of the dense peak (NVIDIA H200), 30.0% by matrices alone"
    )
    assert words["Checkpoints"] == "1 of 1 kB, standstill 0.25 s (median), written in 2 s"
    assert words["Steps left out by the guard"] == "1: spike 1"
    assert words["Rollbacks"] == "1: step 36 back to 30 (5 in a row)"
    page = render(facts)
    assert "Held-out bits per byte by stream, over tokens" in page
    assert "back to 30 (5 in a row)" in page and "a diamond for a rollback" in page


def test_a_run_of_an_earlier_version_has_neither_streams_nor_shares_of_time(tmp_path):
    words = dict(gather(*finished_run(tmp_path), RECIPE).training)
    assert "Time not on steps" not in words and words["MFU, median"].startswith("n/a")
