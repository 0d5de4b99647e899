"""Stage clean: parse the source files, clean the text, write text shards, quarantine the rest.

In: the unit list of `ingest`. Out: of unit 3 (a piece of a source file) `text-00003-000.arrow` and
so on, a new shard every `clean.shard_bytes` of text, and `rejects-00003.arrow` with what could not
or would not be kept, with place and reason (after `rejects-00003-000.arrow` and so on where there
is much of it). Reading order: this file, clean_unit, clean_sink. Memory: see clean_sink.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from data_jobs.cleaning.clean_tally import DAMAGE
from data_jobs.cleaning.clean_unit import clean_unit
from data_jobs.cleaning.cleaner import CleanSettings
from data_jobs.read.sources import resolve
from data_jobs.shards import add_counts
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.errors import DataError
from mutirao.core.files import read_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.languages import load_pack, pack_folder
from mutirao.core.manifest import Part


def run(job: StageJob) -> StageResult:
    """Raises DataError where a source is damaged beyond ingest.max_quarantined, or all is empty."""
    items = _items(job)
    results = run_units(job, items, clean_unit, "cleaning")
    parts = [Part(**part) for kind in ("text", "rejects") for r in results for part in r[kind]]
    infos = [result["rejects"][-1]["info"] for result in results]
    counts = add_counts([info["counts"] for info in infos])
    per_source = add_counts([{info["source"]: info["counts"]} for info in infos])
    _check_quarantine(job, infos, per_source)
    if not counts.get("documents_out"):
        raise DataError(
            "The sources hold no document",
            ", ".join(f"{k} {v}" for k, v in counts.get("rejected", {}).items()) or "0 documents",
            "Check `path` and `text_field` of the sources in the recipe.",
            "empty-corpus",
        )
    return StageResult(parts, counts, {"sources": per_source}, {"cpu_s": cpu_seconds(results)})


def _items(job: StageJob) -> list[Item]:
    """The unit list of `ingest`, with the places that the recipe names here and now."""
    listed = read_json(job.inputs["ingest"].paths("files")[0])["files"]
    here = {(f.source, f.file): f.place.url for f in resolve(job.recipe, job.base)[0]}
    config = job.recipe.clean
    pack = load_pack(job.recipe.language, pack_folder(job.recipe, job.base))
    common = {
        "directory": str(job.directory),
        "max_bytes": config.max_document_bytes,
        "shard_bytes": config.shard_bytes,
        "settings": asdict(CleanSettings.of(config)),
        "rules": pack.cleaning,
    }
    return [
        {**row, **common, "unit": unit, "place": here.get((row["source"], row["file"]), "")}
        for unit, row in enumerate(listed)
    ]


def _check_quarantine(job: StageJob, infos: list[Item], per_source: dict[str, Any]) -> None:
    for source, counts in per_source.items():
        share = counts["damaged_bytes"] / max(counts["bytes_in"], 1)
        if share <= job.recipe.ingest.max_quarantined:
            continue
        damage = {k: v for k, v in counts["rejected"].items() if k in DAMAGE}
        listing = ", ".join(f"{count} {reason}" for reason, count in damage.items())
        first = next(i["first"] for i in infos if i["source"] == source and i["first"])
        raise DataError(
            f"{share:.1%} of source {source} is damaged ({listing}); "
            f"{job.recipe.ingest.max_quarantined:.1%} is allowed",
            f"first: {first}",
            _cure(damage, share),
            "quarantine",
        )


def _cure(damage: dict[str, int], share: float) -> str:
    allowed = (
        f"or go on without it: `--set ingest.max_quarantined={min(1.0, round(share + 0.01, 2))}`."
    )
    if max(damage, key=lambda reason: damage[reason]) == "invalid-utf8":
        return f"Convert the file to UTF-8 (iconv -f WINDOWS-1252 -t UTF-8), {allowed}"
    if "nul-bytes" in damage:
        return f"Is it UTF-16? Convert it to UTF-8 (iconv -f UTF-16LE -t UTF-8), {allowed}"
    if "not-an-object" in damage or "invalid-json" in damage:
        return (
            "Each line must be one JSON object (`jq -c '.[]' FILE` makes lines of an array); mend "
            f"the file, {allowed}"
        )
    if "missing-field" in damage:
        return (
            "Name the field that holds the text (`text_field:` of the source, or `--set "
            f"sources.0.text_field=NAME`; for turns `kind: instruction`), {allowed}"
        )
    return f"Mend or replace the file, {allowed}"
