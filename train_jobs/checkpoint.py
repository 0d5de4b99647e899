"""Checkpoints in our own layout: fp32 weights and Adam moments by parameter name, not by engine.

`checkpoints/step-00000100/` holds one safetensors file per rank with its 1-D slices of every
parameter, and `manifest.json`, written last by one rename (saver.py): a kill at any moment leaves
the checkpoint before. In: such a folder. Out: parameters, whole or in any other slices. Any ZeRO
stage and number of workers reads what any other wrote (81 of 81 combinations bit for bit,
docs/decisions/0001). The newest that verifies is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mutirao.core.errors import DataError, UserError
from mutirao.core.files import read_json, sha256_file
from mutirao.core.manifest import check_format
from mutirao.core.run_steps import checkpoint_folder, kept_steps

FORMAT = 2  # 1: file names without the attempt, `skipped` for `guard` in the state
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


def newest(run_dir: Path, say: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """The newest checkpoint that verifies; an older one, and a line that says so, otherwise."""
    for found in readable(run_dir, say):
        problems = found.problems()
        if not problems:
            return found
        say(f"  checkpoint {found.folder.name} is damaged ({problems[0]}); trying the one before")
    return None


def readable(run_dir: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[Checkpoint]:
    """Those whose manifest can be read, the newest first; their files are not looked at. A line
    for each other one. Raises UserError for one of a newer version."""
    for folder in reversed(committed(run_dir)):
        try:
            yield Checkpoint(folder)
        except Torn as error:
            say(f"  checkpoint {folder.name} is damaged ({error.problem}); trying the one before")


def hold(folder: Path) -> Checkpoint:
    """The checkpoint in `folder` with its files open, so a training that drops it while we read
    takes nothing away. Verified. Raises DataError where it is damaged or was dropped just now."""
    try:
        found = Checkpoint(folder)
        for file in found.record["files"]:
            found._handle(file["path"])
        problems = found.problems()
    except Torn as error:
        problems = [error.problem]
    except (FileNotFoundError, SafetensorError) as error:
        problems = ["it was removed just now"] if not folder.exists() else [str(error)]
    if problems:
        there = ", ".join(map(str, steps(folder.parent.parent))) or "none"
        raise DataError(
            f"The checkpoint can't be read: {problems[0]}",
            str(folder),
            f"Take another one of this run; steps that are there: {there}.",
            "damaged-checkpoint",
        )
    return found


class Torn(DataError):
    """A manifest that is there and is no JSON: half of it lies on the disk."""


class Checkpoint:
    """A committed checkpoint. Reads map the files; nothing is loaded until it is asked for. Raises
    Torn."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = read_manifest(folder)
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises Torn, FileNotFoundError."""
    try:
        record = read_json(folder / "manifest.json")
    except UserError:
        record = None
    if not isinstance(record, dict):
        hint = "Take another checkpoint of this run."
        raise Torn("manifest.json cannot be read", str(folder), hint, "damaged-checkpoint")
    return record


def checkpoints(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def steps(run_dir: Path) -> list[int]:
    """Steps of the committed checkpoints, oldest first (not verified)."""
    return kept_steps(run_dir)


def step_of(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def committed(run_dir: Path) -> list[Path]:
    """Folders of the committed checkpoints, oldest first."""
    return [checkpoint_folder(run_dir, step) for step in kept_steps(run_dir)]
