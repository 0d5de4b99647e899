"""Stage neardup: drop documents whose word 5-gram sets are nearly equal to one that stays.

In: text shards, and the decisions of exact, langid and filter (only rows that all of them keep take
part); with `neardup.against` the results of earlier runs, whose kept documents are compared with
and never computed again. Out: decision shards `neardup-00000.arrow` (the document that stays, the
true Jaccard, the cluster), all verified pairs `edges-00000.arrow`, and the index that a later crawl
reads, `bands-00000.arrow` and `signatures-00000.arrow`.

Passes of bounded units, each restartable; the same result for any partitioning, order and workers:
  signatures    a text shard   -> band keys by key range, signatures   near/sketch.py, near/index.py
  candidates    a key range    -> pairs of documents that share a key  near/candidates.py, groups.py
  verification  a text shard   -> edges: estimate, then true Jaccard   near/verify.py, near/sets.py
  survivors     all edges      -> components, star rule or closure     survivors.py, near/graph.py
  decisions     a text shard   -> the decision shard                   near/decide.py
The bound of each stands in its file. At 1T tokens (4.9 TB, 2.4 billion documents) at 18 x 5: an
index of 0.73 TB that stays, 0.5 TB of band rows through the shuffle, 7.5 GB in the survivors unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_jobs.keyed import remove_records
from data_jobs.near.candidates import candidate_unit, earlier_unit, range_count
from data_jobs.near.decide import decide_unit
from data_jobs.near.plan import Plan, earlier_shards, make_plan, write_plan
from data_jobs.near.sketch import sketch_unit
from data_jobs.near.verify import verify_unit
from data_jobs.paragraphs import paragraph_spans
from data_jobs.shards import decision_counts, parts_of
from data_jobs.survivors import DROPS, survivors_unit
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.earlier import earlier_hash
from mutirao.core.errors import RecipeError, nearest
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import FILTER_VALUES


def run(job: StageJob) -> StageResult:
    """Raises RecipeError for bands that the permutations do not allow, and for an earlier result
    that is not there or has another index."""
    plan = make_plan(job)
    given = write_plan(plan)
    own, everything = len(plan.shards), len(plan.shards) + len(plan.earlier)
    shards = [{**given, "shard": shard} for shard in range(own)]
    earlier = [{**given, "shard": shard} for shard in range(own, everything)]
    masks = run_units(job, earlier, earlier_unit, "earlier results") if earlier else []
    signed = run_units(job, shards, sketch_unit, "signatures")
    ranges = range_count(sum(r["band_bytes"] for r in signed) + _band_bytes(plan))
    ranged = [{**given, "range": number, "ranges": ranges} for number in range(ranges)]
    paired = run_units(job, ranged, candidate_unit, "candidates")
    tasks = [{**item, "ranges": ranges} for item in shards]
    verified = run_units(job, tasks, verify_unit, "verifying")
    chosen = run_units(job, [given], survivors_unit, "survivors")
    cut = _paragraphs(job, plan, shards)
    decided = run_units(job, cut or shards, decide_unit, "deciding")

    info = {"bands": plan.bands, "rows": plan.rows, "ngram": plan.ngram}
    cuts = [item["paragraphs"] for item in cut]
    results = [*masks, *signed, *paired, *verified, *chosen, *cuts, *decided]
    notes = {"cpu_s": cpu_seconds(results)}
    _remove_scratch(job.directory, given, [*masks, *paired, *cuts], [*signed, *verified], chosen)
    index = [Part(**part) for result in signed for part in result["parts"]]
    parts = [*parts_of(decided), *parts_of(verified), *sorted(index, key=lambda p: p.path)]
    return StageResult(parts, _counts(decided, verified), info, notes)


def neardup_assets(recipe: Recipe, base: Path) -> dict[str, str]:
    """The content hash of each earlier result, by its number.

    Raises RecipeError for one that is not there or has another index, and for an unknown quality.
    """
    quality = recipe.neardup.quality
    names = [*(name for name, _ in FILTER_VALUES), *recipe.filter.scores]
    if quality and quality not in names:
        where = f"neardup.quality: {quality}"
        raise RecipeError("No such value or score", where, nearest(quality, names), "bad-quality")
    earlier_shards(recipe, base)
    folders = recipe.neardup.against
    return {f"against {k}": earlier_hash(base / folder) for k, folder in enumerate(folders)}


def _band_bytes(plan: Plan) -> int:
    return sum(Path(place.bands).stat().st_size for place in plan.earlier)


def _paragraphs(job: StageJob, plan: Plan, shards: list[Item]) -> list[Item]:
    """Where repeated paragraphs are dropped, the items of the decisions with what stays of them."""
    if job.recipe.neardup.paragraphs == "keep":
        return []
    drops = str(job.directory / DROPS)
    items = [
        {**item, "text": place.text, "decisions": place.decisions, "drops": drops}
        for item, place in zip(shards, plan.shards, strict=True)
    ]
    results = paragraph_spans(job, items)
    return [{**item, "paragraphs": r} for item, r in zip(shards, results, strict=True)]


def _counts(decided: list[Item], verified: list[Item]) -> dict[str, Any]:
    infos = [result["part"]["info"] for result in verified]
    sums = {name: sum(info[name] for info in infos) for name in ("candidates", "edges")}
    return {**decision_counts(decided), **sums}


def _remove_scratch(
    directory: Path,
    given: Item,
    whole: list[Item],
    beside: list[Item],
    chosen: list[Item],
) -> None:
    """Give back the disk of everything that is no part of the result."""
    beside = [{"part": result["scratch"]} for result in beside]
    last = [{"part": result[name]} for result in chosen for name in ("clusters", "drops")]
    remove_records(directory, [*whole, *beside, *last])
    Path(given["plan"]).unlink(missing_ok=True)
    for stale in (*directory.glob("pairs-*"), *directory.glob("plan-*")):
        stale.unlink()  # of an attempt with another number of ranges
