"""Checkpoints in our own layout: fp32 weights and Adam moments by parameter name, not by engine.

In: slices, this rank's 1-D pieces of every parameter. Out: `checkpoints/step-00000100/` with one
safetensors file per rank and `manifest.json`, written last by one rename: a kill at any moment
leaves the checkpoint before. Any ZeRO stage and number of workers reads what any other wrote
(81 of 81 combinations bit for bit, docs/decisions/0001). The newest that verifies is loaded.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mutirao.core.errors import DataError, UserError
from mutirao.core.files import read_json, sha256_file, write_atomic, write_json
from mutirao.core.manifest import check_format
from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.weights import Entry, write_safetensors

FORMAT = 1
KINDS = ("master", "exp_avg", "exp_avg_sq")


@dataclass
class Slice:
    """Elements [start, start + numel) of a flattened parameter; the tensors are live fp32 views."""

    name: str
    start: int
    master: torch.Tensor
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor

    @property
    def numel(self) -> int:
        return self.master.numel()


class Saver:
    """Saves checkpoints of one attempt. `failed`: this rank's last write did not succeed, which
    `finish` raises on every rank."""

    def __init__(self, run_dir: Path, train: Train):
        self.run_dir, self.train = run_dir, train
        self.failed = False

    def begin(
        self,
        step: int,
        slices: list[Slice],
        shapes: dict[str, list[int]],
        state: dict[str, Any],
    ) -> float:
        """Called by every rank; returns the seconds for which the training stood still."""
        started = time.monotonic()
        save(self.run_dir, step, slices, shapes, state, self.train.keep_last)
        return time.monotonic() - started

    def finish(self) -> None:
        """Wait until what was begun is whole; a collective. Raises UserError on every rank."""

    def close(self) -> None:
        pass


def save(
    run_dir: Path,
    step: int,
    slices: list[Slice],
    shapes: dict[str, list[int]],
    state: dict[str, Any],
    keep_last: int,
) -> Path:
    """Called by every rank; returns when the checkpoint is whole. state: adam_step, cursor, rng,
    identity and what else the loop needs. Raises UserError on every rank if one could not write."""
    folder = checkpoints(run_dir) / f"step-{step:08d}"
    if ranks.rank() == 0:
        _unpublish(folder)
    ranks.barrier()
    files = ranks.gather(_write_slices(folder, slices))
    for record in files:
        if isinstance(record, UserError):
            raise record
    if ranks.rank() == 0:
        manifest = {"format": FORMAT, "kind": "checkpoint", "step": step, "shapes": shapes}
        write_json(folder / "manifest.json", {**manifest, "files": files, "state": state})
        _drop_old(run_dir, keep_last)
    ranks.barrier()
    return folder


def newest(run_dir: Path, say: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """The newest checkpoint that verifies; an older one, and a line that says so, otherwise."""
    for folder in sorted(_committed(run_dir), reverse=True):
        found = Checkpoint(folder)
        problems = found.problems()
        if not problems:
            return found
        say(f"  checkpoint {folder.name} is damaged ({problems[0]}); trying the one before")
    return None


class Checkpoint:
    """A committed checkpoint. Reads map the files; nothing is loaded until it is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = read_json(folder / "manifest.json")
        check_format(self.record, FORMAT, folder / "manifest.json")
        self.step: int = self.record["step"]
        self.state: dict[str, Any] = self.record["state"]
        self.shapes: dict[str, list[int]] = self.record["shapes"]
        self._open: dict[str, Any] = {}

    def problems(self) -> list[str]:
        """One line per file that is missing, short or altered; reads every byte once."""
        found = []
        for file in self.record["files"]:
            path = self.folder / file["path"]
            if not path.exists():
                found.append(f"{file['path']} is missing")
            elif path.stat().st_size != file["bytes"]:
                found.append(f"{file['path']} has {path.stat().st_size} of {file['bytes']} bytes")
            elif sha256_file(path) != file["sha256"]:
                found.append(f"{file['path']} does not match its hash")
        return found

    def fill(self, slices: Iterable[Slice]) -> None:
        """Copy weights and moments into this rank's live slices, whoever wrote them."""
        for piece in slices:
            for kind in KINDS:
                getattr(piece, kind).copy_(self.read(piece.name, kind, piece.start, piece.numel))

    def full(self, name: str, kind: str = "master") -> torch.Tensor:
        """A whole parameter (or moment) in fp32 and its shape."""
        shape = self.shapes[name]
        return self.read(name, kind, 0, torch.Size(shape).numel()).view(shape)

    def read(self, name: str, kind: str, start: int, numel: int) -> torch.Tensor:
        """Elements [start, start + numel) of a flattened parameter, fp32 on the CPU.

        Raises DataError if the checkpoint does not hold all of them.
        """
        out = torch.empty(numel, dtype=torch.float32)
        copied = 0
        for file in self.record["files"]:
            if name not in file["slices"]:
                continue
            begin, count = file["slices"][name]
            low, high = max(start, begin), min(start + numel, begin + count)
            if low < high:
                part = self._handle(file["path"]).get_slice(f"{name}/{kind}")
                out[low - start : high - start] = part[low - begin : high - begin]
                copied += high - low
        if copied != numel:
            raise DataError(
                f"The checkpoint holds {copied} of {numel} elements of {name}", str(self.folder)
            )
        return out

    def _handle(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, framework="pt")
        return self._open[name]


def checkpoints(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def steps(run_dir: Path) -> list[int]:
    """Steps of the committed checkpoints, oldest first (not verified)."""
    return sorted(int(folder.name.split("-")[1]) for folder in _committed(run_dir))


def _write_slices(folder: Path, slices: list[Slice]) -> dict[str, Any] | UserError:
    name = f"rank-{ranks.rank():05d}-of-{ranks.world():05d}.safetensors"
    pieces = sorted(slices, key=lambda piece: piece.name)
    entries = [
        Entry(f"{p.name}/{kind}", (p.numel,), torch.float32, partial(getattr, p, kind))
        for p in pieces
        for kind in KINDS
    ]
    path = folder / name
    try:
        write_atomic(path, lambda stream: write_safetensors(stream, entries) and None)
        size, digest = path.stat().st_size, sha256_file(path)
    except UserError as error:
        return error
    where = {p.name: [p.start, p.numel] for p in pieces}
    return {"path": name, "bytes": size, "sha256": digest, "slices": where}


def _committed(run_dir: Path) -> list[Path]:
    return [path.parent for path in checkpoints(run_dir).glob("step-*/manifest.json")]


def _unpublish(folder: Path) -> None:
    (folder / "manifest.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _drop_old(run_dir: Path, keep_last: int) -> None:
    """Manifest first: a kill halfway leaves files that no reader takes for a checkpoint."""
    for folder in sorted(_committed(run_dir))[:-keep_last]:
        _unpublish(folder)
        shutil.rmtree(folder, ignore_errors=True)
