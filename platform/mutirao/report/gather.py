"""Read a run into `Facts`: the only place that knows what the stages call their counts.

In: the run's folder, the committed manifests of its stages, the recipe. Out: `Facts`; what is not
there yet stays empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutirao.core import carbon
from mutirao.core.errors import DataError
from mutirao.core.language_codes import GENERIC
from mutirao.core.languages import load_pack
from mutirao.core.ledger import totals
from mutirao.core.manifest import Manifest
from mutirao.core.model_size import parameter_count, resolve
from mutirao.core.recipe import Recipe
from mutirao.core.recipe_file import dump_recipe
from mutirao.core.runs import RECORD
from mutirao.core.stages import BY_NAME, DECISION_STAGES, STAGE_NAMES
from mutirao.report.facts import (
    Drop,
    Energy,
    Facts,
    License,
    Sample,
    SourceRow,
    StageEnergy,
    StageRow,
    TextShare,
)
from mutirao.report.masking import mask_pair
from mutirao.report.rules import gather_rules
from mutirao.report.tokenizer_facts import gather_fertility
from mutirao.report.training import gather_training


def gather(run_dir: Path, manifests: dict[str, Manifest], recipe: Recipe) -> Facts:
    """Read all there is. Raises UserError only for files of a newer format."""
    record = _json(run_dir / RECORD)
    return Facts(
        run_id=record.get("id", run_dir.name),
        language=recipe.language,
        language_name=_language_name(recipe.language),
        status=_status(record, manifests),
        reason=record.get("reason", ""),
        created=record.get("created"),
        attempts=record.get("attempts", 0),
        wall_s=record.get("wall_s"),
        **_documents(manifests),
        **_model(manifests, recipe),
        **_training(run_dir, manifests),
        **_ledger(run_dir, recipe),
        country=recipe.energy.country,
        factors=tuple(carbon.factors(recipe.energy.country)),
        samples=_samples(manifests),
        **_provenance(manifests),
        recipe_yaml=dump_recipe(recipe),
    )


def _language_name(code: str) -> str:
    pack = load_pack(code)
    return "" if pack.code == GENERIC else f"{pack.name} ({code})"


def _status(record: dict[str, Any], manifests: dict[str, Manifest]) -> str:
    """The page is written just before the record says so: a run with its last stage is done."""
    status = record.get("status", "unknown")
    return "done" if status == "running" and STAGE_NAMES[-1] in manifests else status


def _documents(manifests: dict[str, Manifest]) -> dict[str, Any]:
    drops, overlap = _drops(manifests)
    tokens = _info(manifests, "pack").get("tokens")
    return {
        "documents_in": _counts(manifests, "clean").get("documents_in"),
        "documents_kept": _counts(manifests, "split").get("documents_out"),
        "corpus_tokens": sum(tokens.values()) if tokens else None,
        "drops": drops,
        "drops_overlap": overlap,
        "rules": gather_rules(manifests, drops),
        "sources": _sources(manifests),
        "licenses": _licenses(_info(manifests, "split").get("licenses", {})),
        "shares": _shares(_info(manifests, "split").get("shares", {})),
        "fertility": gather_fertility(manifests),
    }


def _drops(manifests: dict[str, Manifest]) -> tuple[tuple[Drop, ...], bool]:
    """What each stage dropped, in the order of stages, and whether documents may count twice.

    `split` joins the decisions and knows each document's first reason; before it has run, the
    stages' own counts stand in.
    """
    found = _reasons("clean", _counts(manifests, "clean").get("rejected", {}))
    joined = _info(manifests, "split").get("dropped")
    for stage in DECISION_STAGES:
        own = _counts(manifests, stage).get("reasons", {})
        found += _reasons(stage, own if joined is None else joined.get(stage, {}))
    return tuple(found), joined is None and any(drop.stage != "clean" for drop in found)


def _reasons(stage: str, reasons: Mapping[str, Any]) -> list[Drop]:
    numbers = {why: n["documents"] if isinstance(n, Mapping) else n for why, n in reasons.items()}
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return [Drop(stage, reason, documents) for reason, documents in ordered if documents]


def _sources(manifests: dict[str, Manifest]) -> tuple[SourceRow, ...]:
    """By name of the source; documents of a source without a name may bring a name of their own."""
    sizes = _info(manifests, "ingest").get("bytes_per_source", {})
    read = _info(manifests, "clean").get("sources", {})
    kept = _info(manifests, "split").get("kept_per_source", {})
    tokens = _info(manifests, "pack").get("sources", {})
    packed = {name for side in tokens.values() for name in side}
    return tuple(
        SourceRow(
            name,
            sizes.get(name),
            read.get(name, {}).get("documents_in"),
            kept.get(name, {}).get("documents", 0 if name in {*sizes, *read} and kept else None),
            tokens.get("train", {}).get(name, 0 if tokens else None),
            tokens.get("heldout", {}).get(name, 0 if tokens else None),
        )
        for name in sorted({*sizes, *read, *kept, *packed})
    )


def _licenses(found: Mapping[str, Any]) -> tuple[License, ...]:
    rows = [License(name, n["documents"], n["text_bytes"]) for name, n in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.text_bytes, row.name)))


def _shares(found: Mapping[str, Any]) -> tuple[TextShare, ...]:
    """The largest first; a text that a licence rule dropped stands here under its licence."""
    rows = [
        TextShare(
            source,
            license,
            genre,
            sides["kept"]["documents"],
            sides["kept"]["text_bytes"],
            sides["dropped"]["documents"],
            sides["dropped"]["text_bytes"],
        )
        for source, licenses in found.items()
        for license, genres in licenses.items()
        for genre, sides in genres.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.text_bytes, row.source, row.license)))


def _model(manifests: dict[str, Manifest], recipe: Recipe) -> dict[str, Any]:
    """Size of the model that the recipe asks for, as soon as the vocabulary is known."""
    trained = _info(manifests, "train")
    vocabulary = _info(manifests, "tokenizer").get("vocab_size")
    parameters = trained.get("parameters")
    if parameters is None and vocabulary:
        parameters = parameter_count(resolve(recipe.model, vocabulary))
    return {"parameters": parameters, "trained_tokens": trained.get("tokens")}


def _training(run_dir: Path, manifests: dict[str, Manifest]) -> dict[str, Any]:
    result = _result_file(manifests, "evaluation.json")
    unigram_bits = _info(manifests, "train").get("unigram_bits_per_byte")
    return {
        "bits_per_byte": result.get("bits_per_byte"),
        "unigram_bits_per_byte": unigram_bits,
        "unigram_loss": _nats_per_token(unigram_bits, _info(manifests, "pack")),
        **gather_training(run_dir, result),
    }


def _nats_per_token(bits_per_byte: float | None, pack: Mapping[str, Any]) -> float | None:
    """The unit of the loss curve, on the held-out text."""
    tokens = pack.get("tokens", {}).get("heldout")
    if bits_per_byte is None or not tokens:
        return None
    return bits_per_byte * math.log(2) * pack["text_bytes"]["heldout"] / tokens


def _result_file(manifests: dict[str, Manifest], name: str) -> Mapping[str, Any]:
    return _json(manifests["evaluate"].directory / name) if "evaluate" in manifests else {}


def _samples(manifests: dict[str, Manifest]) -> tuple[Sample, ...]:
    rows = _result_file(manifests, "samples.json").get("samples", [])
    return tuple(
        Sample(*mask_pair(row.get("prompt", ""), row.get("continuation", "").rstrip()))
        for row in rows
    )


def _ledger(run_dir: Path, recipe: Recipe) -> dict[str, Any]:
    """A damaged ledger is said on the page and doesn't fail a run that has done its work."""
    try:
        return {"energy": _energy(run_dir, recipe)}
    except DataError as error:
        return {"energy_problem": error.problem}


def _energy(run_dir: Path, recipe: Recipe) -> Energy | None:
    found = totals(run_dir, country=recipe.energy.country)
    if not found.get("energy_j"):
        return None
    stages = found["stages"]
    order = [name for name in STAGE_NAMES if name in stages]
    order += [name for name in stages if name not in STAGE_NAMES]
    return Energy(
        found["energy_j"],
        found["measured_share"],
        found["wasted_j"],
        found.get("machine", {}).get("unattributed_j"),
        found.get("co2e_g"),
        tuple(_stage_energy(name, stages[name]) for name in order),
        tuple(found.get("methods", {}).items()),
        found.get("gap_s", 0.0),
        tuple(found.get("notes", ())),
    )


def _stage_energy(name: str, row: Mapping[str, Any]) -> StageEnergy:
    measured = row["measured_j"]
    return StageEnergy(
        name,
        measured,
        max(0.0, row["energy_j"] - measured),
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


def _json(path: Path) -> dict[str, Any]:
    """The object in a file, empty where the file is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
