"""Find one document of a run by the key that a person gives.

In: {stage: committed Manifest} and an id (32 hex digits, or the first ID_DIGITS at least),
SHARD:ROW, or the name that its source gave it. Out: its place. Memory: the ids and names of one
text shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_jobs.results.view import NOBODY, document_id, rejects
from data_jobs.shards import text_paths
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc

ID_DIGITS = 8  # of the 32, at least


def find(manifests: dict[str, Manifest], key: str) -> tuple[int, int] | dict[str, Any]:
    """(shard, row) of a document, or its row in the rejects of `clean`.

    Raises RecipeError if there is none, or more than one.
    """
    paths = text_paths(manifests["clean"])
    shard, _, row = key.partition(":")
    if shard.isdecimal() and row.isdecimal():
        place = int(shard), int(row)
        if place[0] < len(paths) and place[1] < read_ipc(paths[place[0]], "text").num_rows:
            return place
    found = [(n, row) for n, path in enumerate(paths) for row in _rows_called(path, key)]
    if len(found) == 1:
        return found[0]
    rejected = [] if found else _rejects_called(manifests["clean"], key)
    if len(rejected) == 1:
        return rejected[0]
    places = ", ".join(f"{s}:{r}" for s, r in found[:5])
    count = len(found) or len(rejected)
    problem = f"{count} documents are called {key} ({places})" if count else "No such document"
    hint = "Give the id, or SHARD:ROW; `mutirao data show` lists both."
    raise RecipeError(problem, key, hint, "no-document")


def _rows_called(path: Path, key: str) -> list[int]:
    table = read_ipc(path, "text")
    mask = pc.equal(table.column("name"), key) if key else None
    rows = set(pc.indices_nonzero(mask).to_pylist()) if mask is not None else set()
    prefix = _prefix(key)
    if prefix:
        ids = table.column("id").to_pylist()
        rows |= {i for i, one in enumerate(ids) if one != NOBODY and one.hex().startswith(prefix)}
    return sorted(rows)


def _rejects_called(clean: Manifest, key: str) -> list[dict[str, Any]]:
    prefix, found = _prefix(key), []
    for row in rejects(clean) if prefix else ():
        known = document_id(row["source"], row["file"], row["position"]).hex()
        if known.startswith(prefix):
            found.append({**row, "id": known})
    return found


def _prefix(key: str) -> str:
    lowered = key.lower()
    is_hex = len(key) >= ID_DIGITS and all(c in "0123456789abcdef" for c in lowered)
    return lowered if is_hex else ""
