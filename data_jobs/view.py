"""Views over a finished run's data: what was kept, what was dropped and why, one document's story.

In: {stage: committed Manifest} of a run, as far as it went. Out: plain dicts for the command line
and the report. "Dropped" is a join of the decision shards with the text, made when somebody looks;
it is stored nowhere. Memory: the decisions of one text shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_jobs.clean import iter_rejects
from data_jobs.shards import decision_paths, text_paths
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc
from mutirao.core.stages import DECISION_STAGES

SNIPPET = 200  # characters


def show(
    manifests: dict[str, Manifest], dropped: bool = False, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Kept or dropped documents in the order of the text shards, `limit` at most.

    Each: shard, row, id, source, name, url, snippet; for dropped ones stage, reason, values and,
    for duplicates, duplicate_of. Rejects of `clean` come last: stage 'clean', file, position,
    reason.
    """
    left = limit if limit is not None else -1
    for row in _rows(manifests, dropped):
        if left == 0:
            return
        yield row
        left -= 1


def explain(manifests: dict[str, Manifest], key: str) -> dict[str, Any]:
    """Everything decided about one document: `key` is its id (32 hex digits, or the first 8 at
    least), SHARD:ROW, or the name that its source gave it.

    {shard, row, id, ..., kept, stage, reason, decisions: {stage: {column: value}}, duplicates:
    [...]}. Raises RecipeError if no document has this key.
    """
    shard, row = find(manifests, key)
    table = read_ipc(text_paths(manifests["clean"])[shard], "text")
    decisions = {
        stage: _plain(_decision(manifests, stage, shard).slice(row, 1).to_pylist()[0])
        for stage in _stages(manifests)
    }
    stage = next((s for s, found in decisions.items() if found["reason"] is not None), "")
    return {
        **_document(table, shard, row),
        "license": table.column("license")[row].as_py(),
        "position": table.column("position")[row].as_py(),
        "meta": table.column("meta")[row].as_py(),
        "kept": not stage,
        "stage": stage,
        "reason": decisions[stage]["reason"] if stage else None,
        "duplicate_of": _duplicate_of(manifests, decisions.get(stage, {})),
        "decisions": decisions,
    }


def find(manifests: dict[str, Manifest], key: str) -> tuple[int, int]:
    """(shard, row) of a document. Raises RecipeError if there is none, or more than one."""
    paths = text_paths(manifests["clean"])
    shard, _, row = key.partition(":")
    if shard.isdecimal() and row.isdecimal():
        place = int(shard), int(row)
        if place[0] < len(paths) and place[1] < read_ipc(paths[place[0]], "text").num_rows:
            return place
    prefix = key.lower()
    is_hex = len(prefix) >= 8 and all(c in "0123456789abcdef" for c in prefix)
    found = []
    for number, path in enumerate(paths):
        table = read_ipc(path, "text").select(["id", "name"])
        for row_number, document in enumerate(table.to_pylist()):
            by_id = is_hex and document["id"].hex().startswith(prefix)
            if by_id or document["name"] == key:
                found.append((number, row_number))
    if len(found) == 1:
        return found[0]
    places = ", ".join(f"{s}:{r}" for s, r in found[:5])
    problem = f"{len(found)} documents are called {key} ({places})" if found else "No such document"
    hint = "Give the id, or SHARD:ROW; `mutirao data show` lists both."
    raise RecipeError(problem, key, hint, "no-document")


def _rows(manifests: dict[str, Manifest], dropped: bool) -> Iterator[dict[str, Any]]:
    stages = _stages(manifests)
    for shard, path in enumerate(text_paths(manifests["clean"])):
        decisions = {stage: _decision(manifests, stage, shard) for stage in stages}
        reasons = {s: table.column("reason").to_pylist() for s, table in decisions.items()}
        table = read_ipc(path, "text")
        for row in range(table.num_rows):
            stage = next((s for s in stages if reasons[s][row] is not None), "")
            if bool(stage) != dropped:
                continue
            document = _document(table, shard, row)
            if stage:
                values = _plain(decisions[stage].slice(row, 1).to_pylist()[0])
                document |= {"stage": stage, "reason": values.pop("reason"), "values": values}
                document["duplicate_of"] = _duplicate_of(manifests, values)
            yield document
    if dropped:
        for reject in iter_rejects(manifests["clean"].paths("rejects-")):
            yield {"stage": "clean", **reject}


def _stages(manifests: dict[str, Manifest]) -> list[str]:
    return [stage for stage in DECISION_STAGES if stage in manifests]


def _decision(manifests: dict[str, Manifest], stage: str, shard: int) -> pa.Table:
    return read_ipc(decision_paths(manifests[stage])[shard], f"decision.{stage}")


def _document(table: pa.Table, shard: int, row: int) -> dict[str, Any]:
    def value(column: str) -> Any:
        return table.column(column)[row].as_py()

    return {
        "shard": shard,
        "row": row,
        "id": value("id").hex(),
        "source": value("source"),
        "name": value("name"),
        "url": value("url"),
        "snippet": value("text")[:SNIPPET],
    }


def _duplicate_of(manifests: dict[str, Manifest], values: dict[str, Any]) -> dict[str, Any] | None:
    """The document that stays in this one's place, with its snippet."""
    shard, row = values.get("duplicate_of_shard"), values.get("duplicate_of_row")
    if shard is None or row is None:
        return None
    path: Path = text_paths(manifests["clean"])[shard]
    return _document(read_ipc(path, "text"), shard, row)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON-able: hashes as hex, floats at the 6 digits that float32 holds."""
    plain = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, float):
            value = round(value, 6)
        plain[name] = value
    return plain
