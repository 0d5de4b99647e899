"""Stage ingest: fingerprint the sources and plan units of work, a unit for each source file.

In: the recipe's sources. Out: one part `files.json` with a row a file (source, name, format, bytes,
sha256, how to read it), in the order in which later stages number their shards. No machine path is
written: `clean` finds the files again through the recipe.
Memory: about 300 bytes a file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data_jobs.sources import SourceFile, fingerprint, resolve
from data_jobs.units import cpu_seconds, run_units
from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import write_part
from mutirao.core.recipe import Source

FILES = "files.json"


def run(job: StageJob) -> StageResult:
    """Raises RecipeError where a source is missing, unreadable or of an unknown kind."""
    files, skipped = resolve(job.recipe, job.base)
    items = [_item(file) for file in files]
    results = run_units(job, items, fingerprint_unit, "fingerprinting")
    rows = [_row(file, result) for file, result in zip(files, results, strict=True)]
    data = canonical_json({"format": 1, "kind": "files", "files": rows})

    def write(stream: Any) -> int:
        stream.write(data)
        return len(rows)

    part = write_part(job.directory, FILES, write)
    size: Counter[str] = Counter()
    for row in rows:
        size[row["source"]] += row["bytes"]
    counts = {"files": len(rows), "bytes": sum(size.values()), "skipped_files": skipped}
    info = {"bytes_per_source": dict(sorted(size.items()))}
    return StageResult([part], counts, info, {"cpu_s": cpu_seconds(results)})


def fingerprint_unit(item: dict[str, Any]) -> dict[str, Any]:
    """{bytes, sha256} of one source file, read in chunks of 1 MiB."""
    file = SourceFile(
        item["source"], True, item["file"], "", Path(item["path"]), Source(path=item["path"])
    )
    found = fingerprint(file)
    return {"bytes": found["bytes"], "sha256": found["sha256"]}


def _item(file: SourceFile) -> dict[str, Any]:
    return {"source": file.source, "file": file.file, "path": str(file.path.absolute())}


def _row(file: SourceFile, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": file.source,
        "named": file.named,
        "file": file.file,
        "format": file.format,
        "bytes": found["bytes"],
        "sha256": found["sha256"],
        "text_field": file.settings.text_field,
        "id_field": file.settings.id_field,
        "license": file.settings.license,
        "kind": file.settings.kind,
        "genre": file.settings.genre,
    }
