"""The store as a whole: how big it is, what no run needs any more, whether its bytes are intact."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutirao.core.errors import UserError
from mutirao.core.lease import Lease
from mutirao.core.manifest import MANIFEST, read_manifest, verify
from mutirao.core.runs import all_runs
from mutirao.core.stages import STAGE_NAMES
from mutirao.core.workdir import Workdir


@dataclass(frozen=True)
class Artefact:
    stage: str
    key: str
    directory: Path
    bytes: int
    finished: bool
    runs: tuple[str, ...]  # the runs that name it


def artefacts(workdir: Workdir) -> Iterator[Artefact]:
    """Every result in the store, finished or not, with the runs that reach it."""
    users: dict[tuple[str, str], list[str]] = {}
    for run in all_runs(workdir):
        for stage, entry in run.stages.items():
            users.setdefault((stage, entry["key"]), []).append(run.id)
    for stage in STAGE_NAMES:
        folder = workdir.store / stage
        for directory in sorted(folder.iterdir()) if folder.is_dir() else []:
            runs = tuple(users.get((stage, directory.name), ()))
            finished = (directory / MANIFEST).exists()
            yield Artefact(
                stage, directory.name, directory, folder_bytes(directory), finished, runs
            )


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def collect(workdir: Workdir, dry_run: bool) -> list[Artefact]:
    """Remove what no run reaches and nobody writes; returns what was, or would be, removed."""
    removed = []
    for artefact in artefacts(workdir):
        if artefact.runs:
            continue
        lease = Lease(artefact.directory / "lease.json", "store gc")
        if not lease.try_acquire():
            continue
        removed.append(artefact)
        if dry_run:
            lease.release()
        else:
            (artefact.directory / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(artefact.directory)
    return removed


def verify_all(workdir: Workdir) -> tuple[int, list[str]]:
    """Check sizes and hashes of every finished result: (how many were checked, problems)."""
    count, problems = 0, []
    for artefact in artefacts(workdir):
        if not artefact.finished:
            continue
        count += 1
        try:
            manifest = read_manifest(artefact.directory)
        except UserError as error:
            problems.append(str(error))
            continue
        if manifest is not None:
            problems += verify(manifest)
    return count, problems
