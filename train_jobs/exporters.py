"""What training measures, for tools that draw it: TensorBoard event files and a Prometheus port.

In: the rows of the metrics segments, read by the driver beside the training, so an exporter costs
the loop nothing. Out: `runs/<id>/tensorboard/`, and `http://127.0.0.1:<port>/metrics`. An exporter
that fails while training goes on is said and closed.

Prometheus names, as its conventions ask (base units, `_total` for what only grows):

  mutirao_run_info{run}                                     1
  mutirao_train_step, mutirao_train_loss                    gauges; loss in nats per token
  mutirao_train_tokens_per_second, mutirao_train_mfu_ratio  gauges
  mutirao_train_learning_rate, mutirao_train_gradient_norm  gauges; the norm is before clipping
  mutirao_train_heldout_loss{stream}                        gauge, nats per token
  mutirao_train_heldout_bits_per_byte{stream}               gauge
  mutirao_train_tokens_total                                work that was done again counts again
  mutirao_train_events_total{what}                          spike, not-finite, rollback, ...
  mutirao_train_attempts_total                              starts, restarts, rollbacks
  mutirao_train_checkpoint_stall_seconds_{count,sum}        checkpoints and the standstill for them
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mutirao.core.errors import EnvironmentProblem
from mutirao.core.metrics import read_metrics
from mutirao.core.recipe import Train

FOLDER = "tensorboard"
HOST = "127.0.0.1"
ALL = "all"  # the stream label of all streams together
SCALARS = {
    "loss": "train/loss",
    "grad_norm": "train/gradient_norm",
    "lr": "train/learning_rate",
    "skipped": "train/skipped_steps",
    "tokens_per_s": "speed/tokens_per_second",
    "mfu": "speed/MFU",
    "tokens": "speed/tokens",
}
GAUGES = {  # field of a train row: name, what it is
    "step": ("step", "Optimizer steps done"),
    "loss": ("loss", "Training loss of the last logged step, nats per token"),
    "tokens_per_s": ("tokens_per_second", "Tokens per second of all workers together"),
    "mfu": ("mfu_ratio", "Share of the dense peak of the GPUs"),
    "lr": ("learning_rate", "Learning rate"),
    "grad_norm": ("gradient_norm", "Global gradient norm before clipping"),
}
Row = dict[str, Any]


class Exporter(Protocol):
    name: str

    def show(self, rows: list[Row]) -> None:
        """Rows in the order in which they were written; those of earlier attempts come first."""

    def close(self) -> None: ...


def check_exporters(train: Train) -> None:
    """Raises EnvironmentProblem where a package is missing."""
    for asked, package, field in (
        (train.tensorboard, "tensorboardX", "train.tensorboard"),
        (train.prometheus_port, "prometheus_client", "train.prometheus_port"),
    ):
        if asked and find_spec(package) is None:
            raise EnvironmentProblem(
                f"{field} needs the package {package}, which is not installed",
                field,
                f"pip install {package}, or leave {field} out.",
                "no-exporter",
            )


def open_exporters(run_dir: Path, train: Train) -> list[Exporter]:
    """Those that the recipe asks for. Raises EnvironmentProblem (package missing, port taken)."""
    check_exporters(train)
    found: list[Exporter] = [TensorBoard(run_dir)] if train.tensorboard else []
    if train.prometheus_port:
        found.append(Prometheus(run_dir.name, train.prometheus_port))
    return found


class TensorBoard:
    """One event file. A new attempt writes it anew from the merged rows, since TensorBoard would
    draw the steps that were done twice twice; the first record hides what it holds in memory."""

    name = "tensorboard"

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.writer: Any = None
        self._anew()

    def show(self, rows: list[Row]) -> None:
        if any(row["kind"] == "attempt" for row in rows):
            self._anew()
        else:
            self._write(rows)

    def close(self) -> None:
        self.writer.close()

    def _anew(self) -> None:
        # Not its SummaryWriter, whose flush returns before its queue is empty.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if self.writer is not None:
            self.writer.close()
        folder = self.run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        self.writer = EventsWriter(str(folder / "events"))
        begins = SessionLog(status=SessionLog.START)
        self.writer.write_event(Event(step=0, wall_time=time.time(), session_log=begins))
        for kind in ("train", "heldout", "checkpoint", "sample"):
            self._write(read_metrics(self.run_dir, kind))

    def _write(self, rows: list[Row]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar, text

        for row in rows:
            values = [scalar(name, value) for name, value in scalars(row)]
            for number, one in enumerate(row.get("texts", []), 1):
                values.append(text(f"sample/{number}", f"**{one['prompt']}**{one['continuation']}"))
            if values:
                event = Event(step=row["step"], wall_time=row.get("utc_s", time.time()))
                event.summary.value.extend(v for summary in values for v in summary.value)
                self.writer.write_event(event)
        self.writer.flush()


def scalars(row: Row) -> list[tuple[str, float]]:
    """(name, value) of a row; a number that was not finite has no place on an axis."""
    found: list[tuple[str, float | None]] = []
    if row["kind"] == "train":
        found = [(name, row.get(field)) for field, name in SCALARS.items()]
    if row["kind"] == "heldout":
        found = [("heldout/loss", row["loss"])]
        for one in row.get("streams", []):
            found.append((f"heldout_bits_per_byte/{one['name']}", one["bits_per_byte"]))
    if row["kind"] == "checkpoint":
        found = [("speed/checkpoint_stall_s", row.get("stall_s"))]
    return [(name, value) for name, value in found if value is not None]


class Prometheus:
    """A registry of its own behind an HTTP server on loopback; see the top of this file."""

    name = "prometheus"

    def __init__(self, run: str, port: int):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Info, Summary
        from prometheus_client import start_http_server as serve

        registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "mutirao", "registry": registry}
        train: dict[str, Any] = {**options, "subsystem": "train"}
        Info("run", "The run", **options).info({"run": run})
        # Made when a value is there: a gauge without one would show 0.
        self.gauges: dict[str, Any] = {}
        self.gauge: Callable[..., Any] = lambda *about: Gauge(*about, **train)
        self.tokens = Counter("tokens", "Tokens trained on, repeated work too", **train)
        self.events = Counter("events", "Events of the guard and the machine", ["what"], **train)
        self.attempts = Counter("attempts", "Starts, restarts and rollbacks", **train)
        self.stall = Summary(
            "checkpoint_stall_seconds", "Standstill of the training for checkpoints", **train
        )
        self.position = 0  # tokens of the run at the last row
        self.server, self.thread = _listen(serve, port, registry)

    def show(self, rows: list[Row]) -> None:
        for row in rows:
            getattr(self, f"_{row['kind']}", lambda row: None)(row)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _attempt(self, row: Row) -> None:
        self.attempts.inc()
        self.position = row.get("tokens", self.position)

    def _train(self, row: Row) -> None:
        for field, about in GAUGES.items():
            self._set(row.get(field), *about)
        self.tokens.inc(max(0, row["tokens"] - self.position))
        self.position = row["tokens"]

    def _heldout(self, row: Row) -> None:
        whole = {"name": ALL, "loss": row["loss"], "bits_per_byte": None}
        for one in [whole, *row.get("streams", [])]:
            of = {"stream": one["name"]}
            self._set(one["loss"], "heldout_loss", "Held-out loss, nats per token", **of)
            self._set(one["bits_per_byte"], "heldout_bits_per_byte", "Held-out bits per byte", **of)

    def _checkpoint(self, row: Row) -> None:
        if "stall_s" in row:
            self.stall.observe(row["stall_s"])

    def _event(self, row: Row) -> None:
        self.events.labels(row["what"]).inc()

    def _set(self, value: float | None, name: str, what: str, **labels: str) -> None:
        if value is not None:
            if name not in self.gauges:
                self.gauges[name] = self.gauge(name, what, list(labels))
            one = self.gauges[name].labels(**labels) if labels else self.gauges[name]
            one.set(value)


def _listen(serve: Callable[..., Any], port: int, registry: Any) -> Any:
    try:
        return serve(port, addr=HOST, registry=registry)
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error}"
        raise EnvironmentProblem(
            f"Port {port} {why}",
            "train.prometheus_port",
            "Choose another port, or 0 for none.",
            "no-port",
        ) from error
