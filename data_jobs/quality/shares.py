"""How much text each source, licence and genre gives, kept and dropped.

In: a text shard and what became of its rows. Out: {source: {licence: {genre: {kept|dropped:
{documents, text_bytes}}}}}, a sum over documents, so those of shards add up (`shards.add_counts`).
Memory: the columns of one shard; a table of sources times licences times genres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.quality.licenses import label

SIDES = ("dropped", "kept")


def shares(table: pa.Table, text_bytes: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """Counts of a table with source, license and genre; text_bytes: [rows], kept: bool[rows]."""
    names = table.select(["source", "license", "genre"])
    rows = pa.table(
        {
            **{name: pc.fill_null(names.column(name), "") for name in names.column_names},
            "kept": pa.array(kept.astype(bool)),
            "text_bytes": pa.array(text_bytes.astype(np.int64)),
        }
    )
    keys = ["source", "license", "genre", "kept"]
    both = [("text_bytes", "count"), ("text_bytes", "sum")]
    found: dict[str, Any] = {}
    for row in rows.group_by(keys, use_threads=False).aggregate(both).to_pylist():
        place = found.setdefault(row["source"], {}).setdefault(label(row["license"]), {})
        sides = place.setdefault(row["genre"], {side: _zero() for side in SIDES})
        side = sides[SIDES[row["kept"]]]
        side["documents"] += row["text_bytes_count"]
        side["text_bytes"] += row["text_bytes_sum"]
    return found


def _zero() -> dict[str, int]:
    return {"documents": 0, "text_bytes": 0}


def kept_by_license(found: Mapping[str, Any]) -> dict[str, Any]:
    """{licence: {documents, text_bytes}} of what is kept."""
    total: dict[str, Any] = {}
    for _, license, _, sides in entries(found):
        if sides["kept"]["documents"]:
            one = total.setdefault(license, _zero())
            for unit, count in sides["kept"].items():
                one[unit] += count
    return dict(sorted(total.items()))


def entries(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(source, licence, genre, {kept: ..., dropped: ...}), one by one."""
    for source, licenses in found.items():
        for license, genres in licenses.items():
            for genre, sides in genres.items():
                yield source, license, genre, sides
