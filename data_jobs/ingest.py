"""Stage ingest: fingerprint the sources and plan units of work, a unit for each piece of a file.

In: the recipe's sources. Out: one part `files.json` with a row a piece (source, name, format, bytes
and sha256 of the file, where the piece lies in it, how to read it), in the order in which later
stages number their units. No machine path is written: `clean` finds the files again through
the recipe. Memory: about 500 bytes a piece.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_jobs.quality.licenses import OF_FORMAT
from data_jobs.read.documents import ReadOptions
from data_jobs.read.pieces import planned
from data_jobs.read.places import Place
from data_jobs.read.sources import SourceFile, resolve, unreadable
from data_jobs.units import cpu_seconds, run_units
from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import write_part

FILES = "files.json"
FORMAT = 2
FIELDS = (  # of the source in the recipe: how its records are read
    "kind",
    "text_field",
    "id_field",
    "url_field",
    "license_field",
    "messages_field",
    "prompt_field",
    "completion_field",
)


def run(job: StageJob) -> StageResult:
    """Raises RecipeError where a source is missing, unreadable or of an unknown kind, and
    EnvironmentProblem where a store cannot be reached or refuses."""
    files, skipped = resolve(job.recipe, job.base)
    items = [_item(file, job.recipe.ingest.piece_bytes) for file in files]
    results = run_units(job, items, plan_unit, "fingerprinting")
    both = list(zip(files, results, strict=True))
    rows = [row for file, found in both for row in _rows(file, found)]
    data = canonical_json({"format": FORMAT, "kind": "files", "files": rows})

    def write(stream: Any) -> int:
        stream.write(data)
        return len(rows)

    part = write_part(job.directory, FILES, write)
    size: Counter[str] = Counter()
    for file, found in both:
        size[file.source] += found["bytes"]
    counts = {
        "files": len(files),
        "pieces": len(rows),
        "bytes": sum(size.values()),
        "skipped_files": skipped,
    }
    info = {"bytes_per_source": dict(sorted(size.items()))}
    return StageResult([part], counts, info, {"cpu_s": cpu_seconds(results)})


def plan_unit(item: dict[str, Any]) -> dict[str, Any]:
    """{bytes, sha256, pieces: [[start, end, first]]} of one source file."""
    place = Place(item["place"])
    try:
        found = planned(place, item["format"], item["piece_bytes"], ReadOptions(**item["fields"]))
    except OSError as error:
        raise unreadable(item["source"], place.url, error) from error
    return {"bytes": found.size, "sha256": found.sha256, "pieces": found.pieces}


def _item(file: SourceFile, piece_bytes: int) -> dict[str, Any]:
    return {
        "source": file.source,
        "place": file.place.url,
        "format": file.format,
        "piece_bytes": piece_bytes,
        "fields": _fields(file),
    }


def _fields(file: SourceFile) -> dict[str, Any]:
    return {name: getattr(file.settings, name) for name in FIELDS}


def _rows(file: SourceFile, found: dict[str, Any]) -> list[dict[str, Any]]:
    about = {
        "source": file.source,
        "named": file.named,
        "number": file.number,
        "file": file.file,
        "format": file.format,
        "bytes": found["bytes"],
        "sha256": found["sha256"],
        "license": file.settings.license or OF_FORMAT.get(file.format, ""),
        "genre": file.settings.genre,
        "fields": _fields(file),
    }
    return [
        {**about, "start": start, "end": end, "first": first}
        for start, end, first in found["pieces"]
    ]
