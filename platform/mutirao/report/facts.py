"""One run as plain values: what the page and its plots know, and the only place that reads the run.

In: the run's folder, the committed manifests of its stages, the recipe. Out: `Facts`. Every piece may
be missing (a run that stopped early, a stage that was never asked for); it is then None or empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutirao.core import carbon
from mutirao.core.errors import UserError
from mutirao.core.ledger import totals
from mutirao.core.manifest import Manifest
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.model_size import parameter_count, resolve
from mutirao.core.recipe import Recipe
from mutirao.core.recipe_file import dump_recipe
from mutirao.core.runs import RECORD
from mutirao.core.stages import BY_NAME, DECISION_STAGES, STAGE_NAMES
from mutirao.report.masking import mask_pair

LN2 = 0.6931471805599453
Points = tuple[tuple[int, float], ...]  # (optimizer step, value)


@dataclass(frozen=True)
class Drop:
    stage: str
    reason: str
    documents: int


@dataclass(frozen=True)
class SourceRow:
    name: str
    bytes_in: int | None
    documents_in: int | None
    kept: int | None
    heldout: int | None
    licenses: tuple[tuple[str, float], ...]  # (SPDX id, share of the kept documents)


@dataclass(frozen=True)
class StageEnergy:
    stage: str
    measured_j: float
    estimated_j: float
    wasted_j: float  # lies within the two above
    wall_s: float | None
    cpu_s: float | None
    co2e_g: float | None

    @property
    def energy_j(self) -> float:
        return self.measured_j + self.estimated_j


@dataclass(frozen=True)
class Energy:
    energy_j: float
    measured_share: float
    wasted_j: float
    unattributed_j: float | None  # of the machine while the run was on it
    co2e_g: float | None
    stages: tuple[StageEnergy, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    prompt: str
    continuation: str


@dataclass(frozen=True)
class StageRow:
    name: str
    what: str
    key: str
    content_hash: str
    wall_s: float | None
    run: str  # the run that made the result


@dataclass(frozen=True)
class Facts:
    run_id: str
    language: str
    status: str
    reason: str = ""
    created: float | None = None  # UTC, seconds
    attempts: int = 0
    wall_s: float | None = None
    documents_in: int | None = None
    documents_kept: int | None = None
    corpus_tokens: int | None = None
    trained_tokens: int | None = None
    parameters: int | None = None
    bits_per_byte: float | None = None
    unigram_bits_per_byte: float | None = None
    drops: tuple[Drop, ...] = ()
    drops_overlap: bool = False  # a document may have been dropped by more than one stage
    sources: tuple[SourceRow, ...] = ()
    losses: Points = ()  # nats per token
    heldout: Points = ()  # nats per token
    unigram_loss: float | None = None  # nats per token on the held-out text
    speed: Points = ()  # tokens per second
    learning_rate: Points = ()
    restarts: tuple[int, ...] = ()  # steps at which a later attempt went on
    skipped_steps: int = 0
    energy: Energy | None = None
    country: str = ""
    factors: tuple[carbon.Factor, ...] = ()  # the one used, then others for the same grid
    samples: tuple[Sample, ...] = ()
    stages: tuple[StageRow, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    machines: tuple[str, ...] = ()
    recipe_yaml: str = ""


def gather(run_dir: Path, manifests: dict[str, Manifest], recipe: Recipe) -> Facts:
    """Read all there is. Raises UserError only for files of a newer format."""
    record = _json(run_dir / RECORD)
    return Facts(
        run_id=record.get("id", run_dir.name),
        language=recipe.language,
        status=_status(record, manifests),
        reason=record.get("reason", ""),
        created=record.get("created"),
        attempts=record.get("attempts", 0),
        wall_s=record.get("wall_s"),
        **_documents(manifests),
        **_model(manifests, recipe),
        **_training(run_dir, _evaluation(manifests)),
        energy=_energy(run_dir),
        country=recipe.energy.country,
        factors=tuple(carbon.factors(recipe.energy.country)),
        samples=_samples(manifests),
        **_provenance(manifests),
        recipe_yaml=dump_recipe(recipe),
    )
