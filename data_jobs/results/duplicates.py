"""Which document stays in a dropped one's place: beside it, and at the end of a chain.

In: {stage: committed Manifest} of a run; decisions of `exact` and `neardup`. Out: plain dicts.
`exact` and `neardup` judge one after the other, so the document that `exact` keeps may resemble
another and be dropped by `neardup`; what that one resembles is kept by both. Memory: the decisions
of one text shard; `edges_of` maps all edges, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.shards import decision_paths, text_paths
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc

SNIPPET = 200  # characters
CHAIN = 8  # exact, neardup, and what commands over an earlier result may have added
JUDGES = ("exact", "neardup")


def mapped(path: Path, kind: str) -> pa.Table:
    """`read_ipc` of a file that is asked for row by row: opened once, until it is rewritten."""
    return _mapped(str(path), kind, path.stat().st_mtime_ns)


@lru_cache(16)
def _mapped(path: str, kind: str, changed: int) -> pa.Table:
    return read_ipc(Path(path), kind)


def place_of(manifests: dict[str, Manifest], shard: int, row: int) -> dict[str, Any]:
    """A document in short: where it is, its id, source, name, URL and first words."""
    table = mapped(text_paths(manifests["clean"])[shard], "text")
    document = table.slice(row, 1).to_pylist()[0]
    return {
        "shard": shard,
        "row": row,
        "id": document["id"].hex(),
        **{name: document[name] for name in ("source", "name", "url")},
        "snippet": document["text"][:SNIPPET],
    }


def duplicate_of(
    manifests: dict[str, Manifest],
    here: tuple[int, int],
    values: dict[str, Any],
    against: Sequence[str] = (),
) -> dict[str, Any] | None:
    """The document that stays in the place of the one at `here` (shard, row), by the values of its
    decision: as `place_of`, or {id, against, shard, row} where it stands in an earlier result:
    against: its folder, else its number; shard and row there (None where two are as much alike)."""
    shard, row = values.get("duplicate_of_shard"), values.get("duplicate_of_row")
    if shard is not None and row is not None:
        return place_of(manifests, shard, row)
    known, number = values.get("duplicate_of_id"), values.get("against")
    if known is None:
        return None
    known = known.hex() if isinstance(known, bytes) else known
    place = _place_there(manifests["neardup"], here, number, values["jaccard"])
    return {"id": known, "against": _folder(against, number), "shard": place[0], "row": place[1]}


def jaccard_of(stage: str, values: dict[str, Any]) -> float | None:
    """With the document that stays; 1 where both are equal after normalisation."""
    if stage == "exact" and values.get("duplicate_of_shard") is not None:
        return 1.0
    return values.get("jaccard")


def in_the_end(
    manifests: dict[str, Manifest], other: dict[str, Any] | None, against: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Where the document that stayed was dropped as a duplicate itself: the one after it, and so
    on; None where `other` (of `duplicate_of`) is the end already."""
    end = other
    for _ in range(CHAIN):
        further = _after(manifests, end, against) if end and "against" not in end else None
        if further is None:
            break
        end = further
    return None if end is other else end


def _after(
    manifests: dict[str, Manifest], other: dict[str, Any], against: Sequence[str]
) -> dict[str, Any] | None:
    for stage in JUDGES:
        if stage in manifests:
            path = decision_paths(manifests[stage])[other["shard"]]
            values = mapped(path, f"decision.{stage}").slice(other["row"], 1).to_pylist()[0]
            if values["reason"] is not None:
                return duplicate_of(manifests, (other["shard"], other["row"]), values, against)
    return None


def edges_of(
    manifests: dict[str, Manifest], shard: int, row: int, limit: int, against: Sequence[str] = ()
) -> tuple[int, list[dict[str, Any]]]:
    """(how many verified edges the document has, `limit` of them, the most alike first), each
    {jaccard, shard, row, id, name} or, to an earlier result, {jaccard, shard, row, against}."""
    found: list[dict[str, Any]] = []
    for path in manifests["neardup"].paths("edges"):
        for batch in read_ipc(path, "edges").to_batches():
            columns = {n: batch.column(n).to_numpy() for n in batch.schema.names}
            here = (columns["shard"] == shard) & (columns["row"] == row)
            there = (columns["other_shard"] == shard) & (columns["other_row"] == row)
            for k in np.flatnonzero(here | (there & (columns["against"] < 0))).tolist():
                found.append(_edge({n: c[k].item() for n, c in columns.items()}, bool(here[k])))
    found.sort(key=lambda edge: (-edge["jaccard"], edge["against"], edge["shard"], edge["row"]))
    return len(found), [_named(manifests, edge, against) for edge in found[:limit]]


def _edge(row: dict[str, Any], first: bool) -> dict[str, Any]:
    end = "other_" if first else ""
    return {
        "jaccard": round(row["jaccard"], 6),
        "shard": row[f"{end}shard"],
        "row": row[f"{end}row"],
        "against": row["against"],
    }


def _named(
    manifests: dict[str, Manifest], edge: dict[str, Any], against: Sequence[str]
) -> dict[str, Any]:
    if (number := edge["against"]) >= 0:
        return {**edge, "against": _folder(against, number)}
    other = place_of(manifests, edge["shard"], edge["row"])
    return {"jaccard": edge["jaccard"], **{n: other[n] for n in ("shard", "row", "id", "name")}}


def _place_there(
    neardup: Manifest, here: tuple[int, int], number: int | None, jaccard: float
) -> tuple[int | None, int | None]:
    """By the edges of a document to earlier result `number` the one with this Jaccard."""
    shard, row = here
    paths = neardup.paths("edges-")
    known = _edges_to_earlier(str(paths[shard])) if shard < len(paths) else {}
    found = {
        (edge["other_shard"], edge["other_row"])
        for edge in known.get(row, ())
        if edge["against"] == number and round(edge["jaccard"], 6) == round(jaccard, 6)
    }
    return found.pop() if len(found) == 1 else (None, None)


@lru_cache(2)
def _edges_to_earlier(path: str) -> dict[int, list[dict[str, Any]]]:
    """By row, the edges of one text shard's documents that lead to earlier results."""
    found: dict[int, list[dict[str, Any]]] = {}
    for batch in read_ipc(Path(path), "edges").to_batches():
        for edge in batch.filter(pc.greater_equal(batch.column("against"), 0)).to_pylist():
            found.setdefault(edge["row"], []).append(edge)
    return found


def _folder(against: Sequence[str], number: int | None) -> str | int | None:
    """As the recipe names it; the number alone where the recipe is not at hand."""
    known = number is not None and 0 <= number < len(against)
    return against[number] if known and number is not None else number
