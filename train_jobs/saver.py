"""Saving: a checkpoint is written beside the training, from a copy in host memory.

In: this rank's live slices and the state of the training. Out: a committed checkpoint
(checkpoint.py says how it looks). The training stands still for the copy alone; a thread of each
rank then writes its file, hashing the bytes as they pass, and a sidecar that says so. Rank 0's
thread commits the manifest when the sidecars of all ranks are there. Threads use no collectives;
names carry the attempt, so nothing that an earlier attempt left counts.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mutirao.core.errors import UserError
from mutirao.core.files import disk_problem, read_json, write_atomic, write_json
from mutirao.core.recipe import Train
from mutirao.core.run_steps import checkpoint_folder
from train_jobs import ranks
from train_jobs.checkpoint import FORMAT, KINDS, Slice, checkpoints, committed, step_of
from train_jobs.weights import Entry, write_safetensors

LOOK_S = 0.05  # between two looks for the sidecars of the other ranks
GIVE_UP_S = 10.0  # a disk that answers no more must not keep the process
CHUNK = 1 << 24  # bytes hashed and written at a time


class Saver:
    """Saves checkpoints of one attempt. `failed`: this rank's last write did not succeed, which
    `finish` raises on every rank. Host memory: 12 bytes for each element of this rank's slices,
    kept from the first save on (none with `async_checkpoint: false`)."""

    def __init__(self, run_dir: Path, train: Train):
        self.run_dir, self.train = run_dir, train
        self.attempt = ranks.broadcast(uuid.uuid4().hex[:8])
        self.copies: list[Slice] = []
        self.writing: Writing | None = None
        self.unsaid: list[Writing] = []

    @property
    def failed(self) -> bool:
        return self.writing is not None and self.writing.problem is not None

    def begin(
        self,
        step: int,
        slices: list[Slice],
        shapes: dict[str, list[int]],
        state: dict[str, Any],
    ) -> float:
        """Called by every rank; returns the seconds for which the training stood still, with the
        wait for the write before. state: adam_step, cursor, identity and what else the loop needs.
        Raises UserError on every rank where the write before did not succeed."""
        started = time.monotonic()
        self.finish()
        beside = self.train.async_checkpoint
        pieces = self._copied(slices) if beside else slices
        record = {"format": FORMAT, "kind": "checkpoint", "step": step}
        self.writing = Writing(self.run_dir, self.attempt, pieces, self.train)
        self.unsaid.append(self.writing)
        self.writing.start({**record, "shapes": shapes, "state": state})
        if not beside:
            self.finish()
        return time.monotonic() - started

    def finish(self) -> None:
        """Wait until what was begun is whole; a collective. Raises UserError on every rank; the
        checkpoint before is then still there."""
        if self.writing is None:  # on every rank alike
            return
        problem = self.writing.wait()
        self.writing = None
        if problem:
            raise problem

    def written(self) -> list[dict[str, Any]]:
        """On rank 0, {step, write_s, bytes} of what became whole since the last call."""
        going_on = [one for one in self.unsaid if one.thread.is_alive()]
        whole = [one for one in self.unsaid if one.row]
        self.unsaid = [one for one in going_on if one not in whole]
        return [one.row for one in whole]

    def close(self) -> None:
        """Give up what is not whole. An attempt that ends well has called `finish`."""
        if self.writing is not None:
            self.writing.give_up()
            self.writing = None

    def _copied(self, slices: list[Slice]) -> list[Slice]:
        """The slices in host memory; the buffers are those of the save before."""
        if [(c.name, c.start, c.numel) for c in self.copies] != [
            (s.name, s.start, s.numel) for s in slices
        ]:
            self.copies = [_buffers(piece) for piece in slices]
        for copy, live in zip(self.copies, slices, strict=True):
            for kind in KINDS:
                getattr(copy, kind).copy_(getattr(live, kind), non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # copies to pinned memory return before they are done
        return self.copies


class Writing:
    """One checkpoint on its way to the disk: this rank's file, and on rank 0 the commit."""

    def __init__(self, run_dir: Path, attempt: str, pieces: list[Slice], train: Train):
        self.run_dir, self.attempt, self.train = run_dir, attempt, train
        self.pieces = sorted(pieces, key=lambda piece: piece.name)
        self.rank, self.world = ranks.rank(), ranks.world()
        self.problem: UserError | None = None
        self.row: dict[str, Any] = {}  # on rank 0, when the checkpoint is whole
        self.mine = threading.Event()  # this rank's file is there, or will not be
        self.given_up = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="checkpoint")

    def start(self, record: dict[str, Any]) -> None:
        """record: the manifest without its files."""
        self.record = record
        self.folder = checkpoint_folder(self.run_dir, record["step"])
        self.thread.start()

    def wait(self) -> UserError | None:
        """Until the checkpoint is whole, or some rank could not write; equal on every rank."""
        self.mine.wait()
        if any(ranks.gather(self.failed)):
            self.given_up.set()
        self.thread.join()
        return next((one for one in ranks.gather(self.problem) if one), None)

    @property
    def failed(self) -> bool:
        return self.problem is not None

    def give_up(self) -> None:
        self.given_up.set()
        self.thread.join(GIVE_UP_S)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._write_mine()
            self.mine.set()
            if self.rank == 0 and (files := self._files()):
                write_json(self.folder / "manifest.json", {**self.record, "files": files})
                self._remove_old({file["path"] for file in files})
                write_s, size = time.monotonic() - began, sum(file["bytes"] for file in files)
                self.row = {"step": self.record["step"], "write_s": write_s, "bytes": size}
        except GivenUp:
            pass
        except Exception as error:  # of any kind: the training must hear of it
            self.problem = self._sentence(error)
        finally:
            self.mine.set()

    def _write_mine(self) -> None:
        entries = [
            Entry(f"{p.name}/{kind}", (p.numel,), torch.float32, partial(getattr, p, kind))
            for p in self.pieces
            for kind in KINDS
        ]
        name, hashed = self._name(self.rank), Hashing(self.given_up)
        write_atomic(self.folder / name, lambda s: write_safetensors(hashed.into(s), entries))
        where = {p.name: [p.start, p.numel] for p in self.pieces}
        mine = {"path": name, "bytes": hashed.bytes, "sha256": hashed.hexdigest(), "slices": where}
        write_json(self._sidecar(self.rank), mine)

    def _files(self) -> list[dict[str, Any]]:
        """What all ranks wrote, in their order; [] where one of them could not."""
        sidecars = [self._sidecar(rank) for rank in range(self.world)]
        while not all(path.exists() for path in sidecars):
            if self.given_up.wait(LOOK_S):
                return []
        return [read_json(path) for path in sidecars]

    def _remove_old(self, files: set[str]) -> None:
        """Checkpoints that need not stay, and what earlier attempts left in this folder."""
        for path in self.folder.iterdir():
            if path.name not in {*files, "manifest.json"}:
                path.unlink(missing_ok=True)
        remove_old(self.run_dir, self.record["step"], self.train)

    def _name(self, rank: int) -> str:
        return f"rank-{rank:05d}-of-{self.world:05d}.{self.attempt}.safetensors"

    def _sidecar(self, rank: int) -> Path:
        return self.folder / f"{self._name(rank)}.json"

    def _sentence(self, error: Exception) -> UserError:
        if isinstance(error, OSError):
            error = disk_problem(error, self.folder)
        if not isinstance(error, UserError):
            return UserError(f"The checkpoint was not written: {error!r}", str(self.folder))
        if error.code != "disk-full":
            return error
        elements = sum(torch.Size(shape).numel() for shape in self.record["shapes"].values())
        needed = f"a checkpoint takes {4 * len(KINDS) * elements:,} bytes"
        return UserError(f"{error.problem}: {needed}", error.where, error.hint, error.code)


class GivenUp(Exception):
    """Nobody waits for this file any more."""


class Hashing:
    """A stream that hashes and counts what it passes on."""

    def __init__(self, given_up: threading.Event):
        self.given_up, self.digest, self.bytes = given_up, hashlib.sha256(), 0

    def into(self, stream: BinaryIO) -> Any:
        self.stream = stream
        return self

    def write(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            if self.given_up.is_set():
                raise GivenUp
            piece = view[start : start + CHUNK]
            self.digest.update(piece)
            self.stream.write(piece)
            self.bytes += len(piece)

    def hexdigest(self) -> str:
        return self.digest.hexdigest()


def remove_old(run_dir: Path, step: int, train: Train) -> None:
    """Keep the last `keep_last`, multiples of `keep_every`, and nothing that is newer than `step`:
    a training that saves an earlier step went back because it was damaged.

    Manifest first: a kill halfway leaves files that no reader takes for a checkpoint."""
    whole = [folder for folder in committed(run_dir) if step_of(folder) <= step]
    kept = set(whole[-train.keep_last :])
    if train.keep_every:
        kept |= {folder for folder in whole if step_of(folder) % train.keep_every == 0}
    for folder in checkpoints(run_dir).glob("step-*"):
        if folder not in kept:
            (folder / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def _buffers(piece: Slice) -> Slice:
    pinned = torch.cuda.is_available()
    empty = (torch.empty(piece.numel, pin_memory=pinned) for _ in KINDS)
    return Slice(piece.name, piece.start, *empty)
