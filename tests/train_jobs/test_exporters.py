"""Exporters read for real: the port is scraped, the event files are read record by record."""

from __future__ import annotations

import socket
import struct
import urllib.request

import pytest

from mutirao.core.errors import EnvironmentProblem
from mutirao.core.metrics import MetricsTail, MetricsWriter
from mutirao.core.recipe import Train
from train_jobs import exporters
from train_jobs.exporters import Prometheus, TensorBoard, check_exporters, open_exporters


def train_row(step: int, tokens: int, loss: float | None = 5.0) -> dict:
    return {
        "step": step,
        "first_step": step,
        "losses": [loss],
        "loss": loss,
        "grad_norm": 0.5,
        "lr": 1e-3,
        "skipped": 0,
        "tokens": tokens,
        "tokens_per_s": 1234.5,
        "mfu": None,
        "wall_s": 1.0,
    }


HELDOUT = {
    "step": 2,
    "loss": 4.5,
    "tokens": 20,
    "streams": [{"name": 'le"is', "loss": 4.0, "bits_per_byte": 1.25, "tokens": 20}],
}


def attempt(run_dir, start: int, steps: range) -> None:
    """Rows as a training writes them, 100 tokens a step."""
    writer = MetricsWriter(run_dir)
    writer.write("attempt", {"step": start, "tokens": 100 * start})
    for step in steps:
        writer.write("train", train_row(step, 100 * step))
    writer.close()


def read_events(run_dir) -> list:
    """The records of all event files: length, its checksum, data, its checksum (TFRecord)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((run_dir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def steps_of(run_dir, tag: str) -> list[int]:
    events = read_events(run_dir)
    return [e.step for e in events for v in e.summary.value if v.tag == tag]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_event_files_hold_what_was_measured_with_its_time(tmp_path):
    attempt(tmp_path, 0, range(1, 3))
    board = TensorBoard(tmp_path)
    writer = MetricsWriter(tmp_path)
    tail = MetricsTail(tmp_path)
    tail.new_rows()
    writer.write("heldout", HELDOUT)
    writer.write("sample", {"step": 2, "texts": [{"prompt": "Era", "continuation": " uma vez"}]})
    writer.write("train", {**train_row(3, 300), "loss": None})
    board.show(tail.new_rows())
    board.close()
    values = {(v.tag, e.step): v for e in read_events(tmp_path) for v in e.summary.value if v.tag}
    assert values["train/loss", 2].simple_value == 5.0
    assert values["speed/tokens", 3].simple_value == 300
    assert ("train/loss", 3) not in values  # it was not finite
    assert values["heldout_bits_per_byte/le_is", 2].simple_value == 1.25
    text = next(v for (tag, _), v in values.items() if tag.startswith("sample/1"))
    assert b"uma vez" in text.tensor.string_val[0]
    assert all(e.wall_time > 1.7e9 for e in read_events(tmp_path))


def test_steps_that_were_done_twice_are_drawn_once(tmp_path):
    attempt(tmp_path, 0, range(1, 7))
    board, tail = TensorBoard(tmp_path), MetricsTail(tmp_path)
    tail.new_rows()
    attempt(tmp_path, 4, range(5, 6))  # a rollback to step 4 while the exporter is open
    board.show(tail.new_rows())
    assert steps_of(tmp_path, "train/loss") == [1, 2, 3, 4, 5]
    board.close()
    attempt(tmp_path, 5, range(6, 9))
    TensorBoard(tmp_path).close()  # the run was started again
    assert steps_of(tmp_path, "train/loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    starts = [e for e in read_events(tmp_path) if e.session_log.status]
    assert [e.step for e in starts] == [0]  # what TensorBoard has in memory is hidden


def test_the_port_answers_with_the_documented_names(tmp_path, port):
    attempt(tmp_path, 0, range(1, 3))
    writer = MetricsWriter(tmp_path)
    writer.write("attempt", {"step": 1, "tokens": 100})
    writer.write("train", train_row(2, 200, 4.0))
    writer.write("heldout", HELDOUT)
    writer.write("checkpoint", {"step": 2, "stall_s": 0.25})
    writer.write("checkpoint", {"step": 2, "write_s": 1.0})
    writer.write("event", {"step": 2, "what": "spike"})
    rows = MetricsTail(tmp_path).new_rows()
    exporter = Prometheus("tiny-1", port)
    assert "mutirao_train_loss" not in scrape(port)  # no value yet is no zero
    exporter.show(rows)
    found = scrape(port)
    exporter.close()
    assert found['mutirao_run_info{run="tiny-1"}'] == 1
    assert found["mutirao_train_step"] == 2 and found["mutirao_train_loss"] == 4.0
    assert found["mutirao_train_learning_rate"] == 1e-3
    assert found["mutirao_train_gradient_norm"] == 0.5
    assert found["mutirao_train_tokens_per_second"] == 1234.5
    assert "mutirao_train_mfu_ratio" not in found  # the card is not known
    assert found["mutirao_train_tokens_total"] == 300  # step 2 was done twice
    assert found["mutirao_train_attempts_total"] == 2
    assert found['mutirao_train_events_total{what="spike"}'] == 1
    assert found["mutirao_train_checkpoint_stall_seconds_count"] == 1
    assert found["mutirao_train_checkpoint_stall_seconds_sum"] == 0.25
    assert found['mutirao_train_heldout_loss{stream="all"}'] == 4.5
    assert found['mutirao_train_heldout_bits_per_byte{stream="le\\"is"}'] == 1.25
    names = {name.split("{")[0] for name in found}
    stems = {name.removesuffix("_count").removesuffix("_sum") for name in names}
    made = {stem for stem in stems if stem.endswith("_created")}  # the library's own
    assert [stem for stem in stems - made if stem not in exporters.__doc__] == []


def test_a_port_that_is_taken_is_said_before_training(tmp_path, port):
    train = Train(prometheus_port=port)
    first = open_exporters(tmp_path, train)
    with pytest.raises(EnvironmentProblem, match=f"Port {port} is taken"):
        open_exporters(tmp_path, train)
    first[0].close()
    open_exporters(tmp_path, train)[0].close()  # it is given back


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(exporters, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="needs the package tensorboardX"):
        check_exporters(Train(tensorboard=True))
    check_exporters(Train())


def test_nothing_is_opened_unless_asked_for(tmp_path):
    assert open_exporters(tmp_path, Train()) == []
    assert list(tmp_path.iterdir()) == []
