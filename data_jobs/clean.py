"""Stage clean: parse the source files, repair the text, write text shards, quarantine the rest.

In: the unit list of `ingest`. Out: `text-00003-000.arrow` (documents of source file 3, a new shard
every `clean.shard_bytes` of text) and `rejects-00003.arrow` (what could not or would not be kept,
with place and reason). The rejects part is a unit's last, so its presence says the unit is
finished. Memory of a unit: one text shard as Arrow arrays, the rejects of one file, one document.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import xxhash

from data_jobs.readers import Document, Reject, read
from data_jobs.repair import clean_text
from data_jobs.shards import BATCH_ROWS, add_counts
from data_jobs.sources import resolve
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.errors import DataError
from mutirao.core.files import read_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part, finished_part, write_part
from mutirao.core.schemas import REJECT, TEXT, write_ipc

DAMAGE = (  # what counts against ingest.max_quarantined: the source is broken, not just unwanted
    "invalid-json",
    "invalid-utf8",
    "missing-field",
    "not-an-object",
    "not-text",
    "nul-bytes",
    "truncated",
    "unreadable",
)


def run(job: StageJob) -> StageResult:
    """Raises DataError where a source is damaged beyond ingest.max_quarantined, or all is empty."""
    items = _items(job)
    results = run_units(job, items, clean_unit, "cleaning")
    parts = [Part(**part) for kind in ("text", "rejects") for r in results for part in r[kind]]
    infos = [result["rejects"][0]["info"] for result in results]
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


def clean_unit(item: Item) -> Item:
    """One source file. {text: [part], rejects: [part]}."""
    directory = Path(item["directory"])
    name = f"rejects-{item['unit']:05d}.arrow"
    if (finished := _finished(directory, name)) is not None:
        return finished
    _check_unchanged(item)
    sink = _Sink(directory, item["unit"], item["shard_bytes"])
    tally = _Tally()
    rejects: list[dict[str, Any]] = []
    found = read(
        Path(item["path"]), item["format"], item["text_field"], item["max_bytes"], item["html"]
    )
    for one in found:
        row = one if isinstance(one, Reject) else _judged(one, item, tally)
        if isinstance(row, Reject):
            tally.reject(row, item)
            rejects.append(_reject_row(row, item))
        else:
            tally.keep(row, one.size)
            sink.add(row)
    text = sink.finish()
    info = {"source": item["source"], "text_parts": [part.path for part in text], **tally.info()}
    table = pa.Table.from_pylist(rejects, schema=REJECT)
    batches = table.to_batches(max_chunksize=BATCH_ROWS)
    last = write_part(directory, name, lambda s: write_ipc(s, REJECT, batches), info)
    return {"text": [asdict(part) for part in text], "rejects": [asdict(last)]}


@dataclass
class _Tally:
    """Counts of one unit; `first` is the first damaged place, for the error message."""

    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    text_bytes_out: int = 0
    damaged_bytes: int = 0
    repaired: int = 0
    nul_characters: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def keep(self, row: dict[str, Any], size: int) -> None:
        self.documents_in += 1
        self.documents_out += 1
        self.bytes_in += size
        self.text_bytes_out += len(row["text"].encode())

    def reject(self, row: Reject, item: Item) -> None:
        self.documents_in += 1
        self.bytes_in += row.size
        self.rejected[row.reason] += 1
        if row.reason in DAMAGE:
            self.damaged_bytes += max(row.size, 1)
            self.first = self.first or f"{item['file']}:{row.position + 1} {row.reason}"

    def info(self) -> dict[str, Any]:
        counts: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "documents_in",
                "documents_out",
                "bytes_in",
                "text_bytes_out",
                "damaged_bytes",
                "repaired",
                "nul_characters",
            )
        }
        counts["rejected"] = dict(sorted(self.rejected.items()))
        return {"counts": counts, "first": self.first}


class _Sink:
    """Text shards of one unit; a new one each `shard_bytes` of text."""

    def __init__(self, directory: Path, unit: int, shard_bytes: int):
        self.directory, self.unit, self.shard_bytes = directory, unit, shard_bytes
        self.rows: list[dict[str, Any]] = []
        self.batches: list[pa.RecordBatch] = []
        self.size = 0
        self.parts: list[Part] = []

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.size += len(row["text"].encode())
        if len(self.rows) == BATCH_ROWS:
            self._batch()
        if self.size >= self.shard_bytes:
            self._write()

    def finish(self) -> list[Part]:
        if self.size:
            self._write()
        return self.parts

    def _batch(self) -> None:
        if self.rows:
            self.batches.append(pa.RecordBatch.from_pylist(self.rows, schema=TEXT))
            self.rows = []

    def _write(self) -> None:
        self._batch()
        batches = self.batches
        name = f"text-{self.unit:05d}-{len(self.parts):03d}.arrow"
        info = {"text_bytes": self.size}
        part = write_part(self.directory, name, lambda s: write_ipc(s, TEXT, batches), info)
        self.parts.append(part)
        self.batches, self.size = [], 0


def _judged(document: Document, item: Item, tally: _Tally) -> dict[str, Any] | Reject:
    """The row of the text shard, or why the document is not taken."""
    place = (document.position, document.offset, document.size)
    if len(document.text) > item["max_bytes"]:
        return Reject(*place, "too-long", document.text[:200])
    cleaned = clean_text(document.text, item["unicode_repair"])
    if cleaned.reason:
        return Reject(*place, cleaned.reason, cleaned.text[:200].replace("\0", ""))
    if len(cleaned.text.encode()) > item["max_bytes"]:
        return Reject(*place, "too-long", cleaned.text[:200])
    tally.repaired += cleaned.repaired
    tally.nul_characters += cleaned.nul
    return _row(cleaned.text, document, item)


def _row(text: str, document: Document, item: Item) -> dict[str, Any]:
    fields = dict(document.fields)
    name = fields.pop(item["id_field"], "")
    own = fields.get("source") if not item["named"] else None
    key = f"{item['source']}\0{item['file']}\0{document.position}"
    return {
        "id": xxhash.xxh3_128_digest(key.encode()),
        "text": text,
        "source": own if isinstance(own, str) and own else item["source"],
        "name": "" if name is None else _printable(str(name)),
        "license": _printable(str(fields.pop("license", "") or item["license"])),
        "url": _printable(str(fields.pop("url", "") or "")),
        "position": document.position,
        "meta": _meta(fields),
        "kind": item["kind"],
        "genre": item["genre"],
        "messages": "",
    }


def _meta(fields: dict[str, Any]) -> str:
    if not fields:
        return "{}"
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, orjson.JSONEncodeError):
        return _printable(json.dumps(fields, default=str, sort_keys=True, ensure_ascii=True))


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _reject_row(row: Reject, item: Item) -> dict[str, Any]:
    return {
        "source": item["source"],
        "file": item["file"],
        "position": row.position,
        "offset": row.offset,
        "bytes": row.size,
        "reason": row.reason,
        "snippet": _printable(row.snippet[:200]),
    }


def _items(job: StageJob) -> list[Item]:
    """The unit list of `ingest`, with the paths on this machine."""
    listed = read_json(job.inputs["ingest"].paths("files")[0])["files"]
    here = {(f.source, f.file): f.path for f in resolve(job.recipe, job.base)[0]}
    config = job.recipe.clean
    return [
        {
            **row,
            "unit": unit,
            "path": str(here.get((row["source"], row["file"]), Path(row["file"])).absolute()),
            "directory": str(job.directory),
            "max_bytes": config.max_document_bytes,
            "unicode_repair": config.unicode_repair,
            "html": config.html,
            "shard_bytes": config.shard_bytes,
        }
        for unit, row in enumerate(listed)
    ]


def _finished(directory: Path, name: str) -> Item | None:
    last = finished_part(directory, name)
    if last is None:
        return None
    text = [finished_part(directory, part) for part in last.info["text_parts"]]
    if any(part is None for part in text):
        return None
    return {"text": [asdict(part) for part in text if part], "rejects": [asdict(last)]}


def _check_unchanged(item: Item) -> None:
    path = Path(item["path"])
    if not path.exists() or path.stat().st_size != item["bytes"]:
        raise DataError(
            "A source file has changed since it was fingerprinted",
            item["file"],
            "Run the same command again; it takes the new content.",
            "source-changed",
        )


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
    if "not-an-object" in damage or "invalid-json" in damage:
        return (
            "Each line must be one JSON object (`jq -c '.[]' FILE` makes lines of an array); mend "
            f"the file, {allowed}"
        )
    if "missing-field" in damage:
        return f"Name the field that holds the text (`text_field:` of the source), {allowed}"
    return f"Mend or replace the file, {allowed}"


def iter_rejects(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Rows of the reject parts, file after file."""
    from mutirao.core.schemas import read_ipc

    for path in paths:
        for batch in read_ipc(path, "reject").to_batches():
            yield from batch.to_pylist()
