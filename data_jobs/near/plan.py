"""What all units of neardup know: parameters, text shards, and the shards of earlier results.

It stands in one small file of the stage's folder, so that an item of a unit holds two names only.
Shards are numbered through: those of this corpus from 0, then those of the earlier results; a
document's name is (number << 32) | row, so earlier documents have the larger names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_jobs.minhash import bands_and_rows
from data_jobs.shards import shard_items
from data_jobs.streams import shard_ranks
from mutirao.core.earlier import open_earlier
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_hex, write_bytes
from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Recipe
from mutirao.core.stages import DECISION_STAGES

BEFORE = ("langid", "filter", "exact")


@dataclass(frozen=True)
class Shard:
    """A text shard, with paths of what belongs to it."""

    text: str
    rows: int
    decisions: dict[str, str]
    prefer: int = 0  # place of its source in `exact.prefer`
    against: int = -1  # number of the earlier result, and its place there
    number: int = 0
    bands: str = ""
    signatures: str = ""


@dataclass(frozen=True)
class Plan:
    directory: str
    bands: int
    rows: int
    ngram: int
    threshold: float
    survivors: str
    quality: str
    shards: list[Shard]
    earlier: list[Shard]

    def shard(self, number: int) -> Shard:
        own = len(self.shards)
        return self.shards[number] if number < own else self.earlier[number - own]


def make_plan(job: StageJob) -> Plan:
    """Raises RecipeError for bands that the permutations do not allow, and for an earlier result
    that is not there or has another layout."""
    config = job.recipe.neardup
    bands, rows = layout(job.recipe)
    prefer = shard_ranks(job.inputs["clean"], job.recipe)
    lengths = [part.rows for part in job.inputs["clean"].parts if part.path.startswith("text-")]
    shards = [
        Shard(item["text"], rows_in, item["decisions"], place)
        for item, rows_in, place in zip(
            shard_items(job.inputs, BEFORE), lengths, prefer, strict=True
        )
    ]
    return Plan(
        directory=str(job.directory),
        bands=bands,
        rows=rows,
        ngram=config.ngram,
        threshold=config.threshold,
        survivors=config.survivors,
        quality=config.quality,
        shards=shards,
        earlier=earlier_shards(job.recipe, job.base),
    )


def layout(recipe: Recipe) -> tuple[int, int]:
    """(bands, rows). Raises RecipeError if they need more than `neardup.permutations`."""
    config = recipe.neardup
    bands, rows = bands_and_rows(
        config.threshold, config.recall, config.permutations, config.bands, config.rows
    )
    if bands * rows > config.permutations or bands * rows == 0:
        raise RecipeError(
            f"{bands} bands of {rows} rows need {bands * rows} permutations",
            f"neardup.permutations: {config.permutations}",
            "Raise neardup.permutations, or leave out bands and rows.",
            "bands",
        )
    return bands, rows


def earlier_shards(recipe: Recipe, base: Path) -> list[Shard]:
    """The text shards of the results that `neardup.against` names, in order.

    Raises RecipeError where one is not there, has no index, or one of another layout."""
    found = []
    for against, folder in enumerate(recipe.neardup.against):
        stages = open_earlier(base / folder)
        refuse_other_layout(recipe, stages, folder)
        near = stages["neardup"]
        items = shard_items(stages, DECISION_STAGES)
        lengths = [p.rows for p in stages["clean"].parts if p.path.startswith("text-")]
        indexes = zip(near.paths("bands-"), near.paths("signatures-"), strict=True)
        for item, rows, (bands, signatures) in zip(items, lengths, indexes, strict=True):
            place = Shard(
                item["text"], rows, item["decisions"], 0, against, item["shard"],
                str(bands), str(signatures),
            )  # fmt: skip
            found.append(place)
    return found


def refuse_other_layout(recipe: Recipe, stages: dict[str, Manifest], folder: str) -> None:
    bands, rows = layout(recipe)
    mine = {"bands": bands, "rows": rows, "ngram": recipe.neardup.ngram}
    theirs = stages["neardup"].content.get("info", {})
    if not stages["neardup"].paths("bands-") and stages["clean"].paths("text-"):
        raise RecipeError(
            "The earlier result has no band index: an older version made it",
            folder,
            "Run its command again with --redo neardup.",
            "no-index",
        )
    wrong = [f"{name} {theirs.get(name)} there, {mine[name]} here" for name in mine
             if theirs.get(name) != mine[name]]  # fmt: skip
    if wrong:
        same = ", ".join(f"neardup.{name}={theirs.get(name)}" for name in mine)
        raise RecipeError(
            f"The earlier result has another index: {'; '.join(wrong)}",
            folder,
            f"Set {same} (and neardup.permutations to at least bands x rows).",
            "other-index",
        )


def write_plan(plan: Plan) -> dict[str, Any]:
    """Write the plan; returns what an item needs to read it."""
    raw = canonical_json(asdict(plan))
    name = f"plan-{sha256_hex(raw)[:16]}.json"
    write_bytes(Path(plan.directory) / name, raw)
    return {"plan": str(Path(plan.directory) / name)}


def read_plan(item: dict[str, Any]) -> Plan:
    return _plan(item["plan"])


@lru_cache(2)  # the name holds the hash of the content
def _plan(path: str) -> Plan:
    fields = json.loads(Path(path).read_bytes())
    for name in ("shards", "earlier"):
        fields[name] = [Shard(**one) for one in fields[name]]
    return Plan(**fields)
