"""Metrics segments: attempts do not overwrite one another, readers merge them."""

from __future__ import annotations

from mutirao.core.metrics import MetricsWriter, read_metrics, segments, step_losses


def row(step, losses, first):
    return {"step": step, "loss": losses[-1], "losses": losses, "first_step": first}


def test_the_last_attempt_wins_for_a_step(tmp_path):
    one = MetricsWriter(tmp_path)
    one.write("train", row(2, [5.0, 4.0], 1))
    one.write("train", row(4, [3.0, 2.0], 3))
    two = MetricsWriter(tmp_path)
    two.write("train", row(3, [2.5], 3))
    two.write("train", row(4, [1.5], 4))
    assert [r["loss"] for r in read_metrics(tmp_path)] == [4.0, 2.5, 1.5]
    assert step_losses(tmp_path) == {1: 5.0, 2: 4.0, 3: 2.5, 4: 1.5}
    assert len(segments(tmp_path)) == 2


def test_a_line_torn_by_a_kill_is_left_out(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write("train", row(1, [5.0], 1))
    writer.close()
    with open(segments(tmp_path)[0], "a") as stream:
        stream.write('{"kind": "train", "step": 2, "lo')
    assert [r["step"] for r in read_metrics(tmp_path)] == [1]


def test_a_loss_that_is_not_finite_is_null(tmp_path):
    MetricsWriter(tmp_path).write("train", row(1, [float("nan")], 1))
    assert read_metrics(tmp_path)[0]["loss"] is None
