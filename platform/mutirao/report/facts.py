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


def _status(record: dict[str, Any], manifests: dict[str, Manifest]) -> str:
    """The page is written just before the record says so: a run with its last stage is done."""
    status = record.get("status", "unknown")
    return "done" if status == "running" and STAGE_NAMES[-1] in manifests else status


def _documents(manifests: dict[str, Manifest]) -> dict[str, Any]:
    clean, split = _counts(manifests, "clean"), _counts(manifests, "split")
    drops, overlap = _drops(manifests)
    return {
        "documents_in": clean.get("documents_in"),
        "documents_kept": _kept(split),
        "corpus_tokens": _first(_counts(manifests, "pack"), "tokens", "total_tokens"),
        "drops": drops,
        "drops_overlap": overlap,
        "sources": _sources(manifests),
    }


def _drops(manifests: dict[str, Manifest]) -> tuple[tuple[Drop, ...], bool]:
    """What each stage dropped, in the order of stages, and whether documents may count twice.

    `split` joins the decisions and knows each document's first reason; before it has run, the
    stages' own counts stand in.
    """
    found = _reasons("clean", _counts(manifests, "clean").get("rejected"))
    joined = _info(manifests, "split").get("dropped")
    for stage in DECISION_STAGES:
        own = _counts(manifests, stage)
        mine = joined.get(stage) if isinstance(joined, Mapping) else own.get("reasons")
        found += _reasons(stage, mine)
    return tuple(found), not isinstance(joined, Mapping) and bool(found)


def _reasons(stage: str, reasons: Any) -> list[Drop]:
    if not isinstance(reasons, Mapping):
        return []
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return [Drop(stage, reason, documents) for reason, documents in ordered if documents]


def _kept(counts: Mapping[str, Any]) -> int | None:
    if "kept" in counts:
        return counts["kept"]
    if "train" in counts and "heldout" in counts:
        return counts["train"] + counts["heldout"]
    return None


def _sources(manifests: dict[str, Manifest]) -> tuple[SourceRow, ...]:
    """By the source's name in the recipe; documents may carry finer names of their own."""
    sizes = _info(manifests, "ingest").get("bytes_per_source", {})
    read = _info(manifests, "clean").get("sources", {})
    kept = _info(manifests, "split").get("sources", {})
    rows = []
    for name in sorted({*sizes, *read, *kept}):
        after = kept.get(name, {})
        rows.append(
            SourceRow(
                name,
                sizes.get(name),
                read.get(name, {}).get("documents_in"),
                _kept(after),
                after.get("heldout"),
                _shares(after.get("licenses", {})),
            )
        )
    return tuple(rows)


def _shares(licenses: Mapping[str, int]) -> tuple[tuple[str, float], ...]:
    total = sum(licenses.values())
    ordered = sorted(licenses.items(), key=lambda item: (-item[1], item[0]))
    return tuple((name or "not stated", documents / total) for name, documents in ordered)


def _model(manifests: dict[str, Manifest], recipe: Recipe) -> dict[str, Any]:
    if "train" not in manifests:
        return {}
    trained = {**_info(manifests, "train"), **_counts(manifests, "train")}
    vocabulary = _first({**_info(manifests, "tokenizer"), **_counts(manifests, "tokenizer")}, "vocab_size", "vocabulary")
    parameters = trained.get("parameters")
    if parameters is None and vocabulary:
        parameters = parameter_count(resolve(recipe.model, vocabulary))
    return {
        "parameters": parameters,
        "trained_tokens": _first(trained, "tokens", "trained_tokens"),
    }


def _training(run_dir: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    rows, heldout = read_metrics(run_dir), read_metrics(run_dir, "heldout")
    attempts = sorted({row["step"] for row in read_metrics(run_dir, "attempt")})
    bits, unigram_bits = result.get("bits_per_byte"), result.get("unigram_bits_per_byte")
    loss = _first(result, "loss", "nats_per_token")
    unigram = _first(result, "unigram_loss", "unigram_nats_per_token")
    if unigram is None and loss and bits and unigram_bits:
        unigram = loss * unigram_bits / bits  # the same text: nats per token go with bits per byte
    return {
        "bits_per_byte": bits,
        "unigram_bits_per_byte": unigram_bits,
        "unigram_loss": unigram,
        "losses": tuple(step_losses(run_dir).items()),
        "heldout": tuple((row["step"], row["loss"]) for row in heldout),
        "speed": _points(rows, "tokens_per_s"),
        "learning_rate": _points(rows, "lr"),
        "restarts": tuple(step for step in attempts if step > 0),
        "skipped_steps": rows[-1].get("skipped", 0) if rows else 0,
    }


def _points(rows: list[dict[str, Any]], name: str) -> Points:
    return tuple((row["step"], row[name]) for row in rows if row.get(name) is not None)


def _evaluation(manifests: dict[str, Manifest]) -> dict[str, Any]:
    if "evaluate" not in manifests:
        return {}
    found = _json(manifests["evaluate"].directory / "evaluation.json")
    return found if isinstance(found, dict) else {}


def _samples(manifests: dict[str, Manifest]) -> tuple[Sample, ...]:
    if "evaluate" not in manifests:
        return ()
    found = _json(manifests["evaluate"].directory / "samples.json")
    rows = found.get("samples", []) if isinstance(found, dict) else found
    texts = [(row.get("prompt", ""), _first(row, "continuation", "text") or "") for row in rows]
    return tuple(Sample(*mask_pair(prompt, text)) for prompt, text in texts)


def _energy(run_dir: Path) -> Energy | None:
    found = totals(run_dir)
    if not found or not found.get("energy_j"):
        return None
    stages = found.get("stages", {})
    order = [*STAGE_NAMES, *sorted(set(stages) - set(STAGE_NAMES))]
    return Energy(
        found["energy_j"],
        found.get("measured_share", 0.0),
        found.get("wasted_j", 0.0),
        found.get("unattributed_j"),
        found.get("co2e_g"),
        tuple(_stage_energy(name, stages[name]) for name in order if name in stages),
        tuple(sorted(found.get("methods", ()))),
    )


def _stage_energy(name: str, row: Mapping[str, Any]) -> StageEnergy:
    measured = row.get("measured_j", 0.0)
    return StageEnergy(
        name or "between stages",
        measured,
        max(0.0, row.get("energy_j", 0.0) - measured),
        row.get("wasted_j", 0.0),
        row.get("wall_s"),
        row.get("cpu_s"),
        row.get("co2e_g"),
    )


def _provenance(manifests: dict[str, Manifest]) -> dict[str, Any]:
    stages, versions, machines = [], {}, []
    for name in (n for n in STAGE_NAMES if n in manifests):
        manifest, made = manifests[name], manifests[name].provenance
        key, wall_s, run = made.get("key", ""), made.get("wall_s"), made.get("run", "")
        stages.append(StageRow(name, BY_NAME[name].what, key, manifest.content_hash, wall_s, run))
        versions.update(made.get("versions", {}))
        machine = made.get("hardware") or made.get("host")
        if machine and machine not in machines:
            machines.append(machine)
    return {
        "stages": tuple(stages),
        "versions": tuple(versions.items()),
        "machines": tuple(machines),
    }


def _counts(manifests: dict[str, Manifest], stage: str) -> Mapping[str, Any]:
    return manifests[stage].counts if stage in manifests else {}


def _info(manifests: dict[str, Manifest], stage: str) -> Mapping[str, Any]:
    return manifests[stage].content.get("info") or {} if stage in manifests else {}


def _first(values: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these names that is there."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
