"""The working folder: where results, runs and caches live.

`--workdir PATH`, else the environment variable MUTIRAO_HOME, else `./mutirao-work`.
    store/<stage>/<key>/   immutable results, shared by runs
    runs/<id>/             recipe, record, logs, metrics, ledger, checkpoints, report
    ledger/<boot id>/      machine rows of the energy meter
    cache/  tmp/           may be deleted at any time
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mutirao.core.errors import RecipeError


@dataclass(frozen=True)
class Workdir:
    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def artefact(self, stage: str, key: str) -> Path:
        return self.store / stage / key

    def run(self, run_id: str) -> Path:
        return self.runs / run_id


def find_workdir(option: str | None) -> Workdir:
    """Raises RecipeError (exit 2) for a URL: object storage is not supported yet."""
    place = option or os.environ.get("MUTIRAO_HOME") or "mutirao-work"
    if "://" in place:
        raise RecipeError(
            f"--workdir {place}: only folders are supported so far",
            hint="Give a folder on a disk that all nodes share.",
            code="bad-workdir",
        )
    path = Path(place).expanduser()
    if path.exists() and not path.is_dir():
        raise RecipeError("The workdir is not a folder", str(path), code="bad-workdir")
    return Workdir(path.absolute())
