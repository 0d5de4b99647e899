"""What the composer hands to a stage, and what a stage hands back.

A stage is a function `(StageJob) -> StageResult`. It writes its parts into `job.directory` (each by
`manifest.write_part`, so a restarted stage skips what is finished) and never commits: the composer
in `mutirao.run` holds the lease and writes the manifest when the function has returned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutirao.core.manifest import Manifest, Part
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe


@dataclass(frozen=True)
class StageJob:
    stage: str
    recipe: Recipe
    directory: Path  # where the parts go
    inputs: dict[str, Manifest]  # by stage name; only stages that are part of this run
    run_dir: Path  # runs/<id>/: checkpoints, metrics, logs
    progress: Progress
    use_ray: bool = True  # False: the same functions one after another in this process
    base: Path = field(default_factory=Path)  # relative paths in the recipe start here


@dataclass(frozen=True)
class StageResult:
    """parts in their final order; counts: what went in and out, by reason; info: further content.
    All three are hashed: no times, hosts or worker counts. notes: provenance, not hashed."""

    parts: list[Part]
    counts: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
