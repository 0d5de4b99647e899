"""Metrics segments: attempts do not overwrite one another, readers merge them."""

from __future__ import annotations

import pytest

from mutirao.core.errors import UserError
from mutirao.core.metrics import (
    FORMAT,
    MetricsTail,
    MetricsWriter,
    read_metrics,
    segments,
    step_losses,
)


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


def attempt(run_dir, start: int, stop: int) -> MetricsWriter:
    """One that began after step `start` and wrote a row for each step up to `stop`."""
    writer = MetricsWriter(run_dir)
    writer.write("attempt", {"step": start})
    for step in range(start + 1, stop + 1):
        writer.write("train", row(step, [float(step)], step))
    return writer


def test_an_attempt_undoes_the_steps_after_the_one_where_it_began(tmp_path):
    first = attempt(tmp_path, 0, 9)
    first.write("heldout", {"step": 8, "loss": 1.0})
    first.write("event", {"step": 9, "what": "spike"})
    attempt(tmp_path, 4, 6)  # went back to a checkpoint at 4, and was stopped at 6
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert [r["attempt"] for r in read_metrics(tmp_path)] == [0, 0, 0, 0, 1, 1]
    assert list(step_losses(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert read_metrics(tmp_path, "heldout") == []
    assert [r["what"] for r in read_metrics(tmp_path, "event")] == ["spike"]  # it did happen
    assert [r["step"] for r in read_metrics(tmp_path, "attempt")] == [0, 4]


def test_steps_before_a_checkpoint_in_the_middle_of_a_row_keep_their_losses(tmp_path):
    one = attempt(tmp_path, 0, 0)
    one.write("train", row(10, [float(n) for n in range(1, 11)], 1))
    attempt(tmp_path, 7, 8)
    assert list(step_losses(tmp_path).values()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_the_saver_tells_later_joins_the_row_of_its_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write("checkpoint", {"step": 4, "stall_s": 0.1})
    writer.write("checkpoint", {"step": 4, "write_s": 2.0})
    (found,) = read_metrics(tmp_path, "checkpoint")
    assert (found["stall_s"], found["write_s"]) == (0.1, 2.0)


def test_a_tail_reads_each_row_once_and_waits_for_the_end_of_a_line(tmp_path):
    tail = MetricsTail(tmp_path)
    assert tail.new_rows() == []
    writer = attempt(tmp_path, 0, 2)
    assert [r["kind"] for r in tail.new_rows()] == ["attempt", "train", "train"]
    with open(segments(tmp_path)[0], "a") as stream:
        stream.write('{"kind": "train", "st')
        stream.flush()
        assert tail.new_rows() == []
        stream.write('ep": 3}\n')
    assert [r["step"] for r in tail.new_rows()] == [3]
    writer.close()
    attempt(tmp_path, 2, 3)
    assert [r["attempt"] for r in tail.new_rows()] == [1, 1]


def test_a_segment_of_a_newer_format_is_refused(tmp_path):
    MetricsWriter(tmp_path).write("attempt", {"step": 0, "format": FORMAT + 1})
    with pytest.raises(UserError, match="newer mutirao"):
        read_metrics(tmp_path)
