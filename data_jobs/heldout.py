"""Which documents are held out: by the smallest hash of their duplicate cluster, fixed for ever.

A document's key is the first half of its `exact.hash`, or the smallest of those of the documents
that verified near-duplicate edges join to it. Held out are the keys under `split.heldout` of all
2**64: no seed, no order, no count enters, and a cluster that grows only gets a smaller key. So near
duplicates stay on one side, and more data never moves a held-out document to training.
Besides, a source of at least MIN_DOCUMENTS with no such key gives its smallest one (`forced`). That
one is fixed as long as its own source gets none that is smaller; no rule can do better, since a
twentieth of all documents would have to be held out. Of n documents none lies under a share of 2 %
with probability 0.98**n: 67 % for 20, 2e-9 for 1,000.
Memory: one number a source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.normal_text import text_hashes
from data_jobs.shards import halves
from data_jobs.units import Item
from mutirao.core.schemas import read_ipc

MIN_DOCUMENTS = 20
DEFAULT_NORMALIZE = "casefold"  # where `exact` is no part of the run


def heldout_keys(table: pa.Table, decisions: dict[str, str]) -> np.ndarray:
    """uint64[rows]: the key of each row of a text shard; decisions: {stage: decision shard}."""
    if "exact" in decisions:
        keys = halves(read_ipc(Path(decisions["exact"]), "decision.exact").column("hash"))[0]
    else:
        keys = text_hashes(table.column("text"), DEFAULT_NORMALIZE)[:, 0]
    if "neardup" in decisions:
        clusters = read_ipc(Path(decisions["neardup"]), "decision.neardup").column("cluster")
        keys = np.minimum(keys, pc.fill_null(clusters, 2**64 - 1).to_numpy())
    return keys


def heldout_rule(marked: list[Item], share: float) -> dict[str, Any]:
    """{below: a key under it is held out, forced: keys held out besides}.

    marked: results of units whose part info has, by source, `smallest` (the smallest key of a kept
    document, as text) and `kept_per_source`. Forced is the smallest key of a source that has at
    least MIN_DOCUMENTS and none under `below`; of the whole corpus where no source has one.
    """
    below = int(share * 2**64)
    smallest: dict[str, int] = {}
    kept: dict[str, int] = {}
    for result in marked:
        for source, least in result["part"]["info"]["smallest"].items():
            smallest[source] = min(int(least), smallest.get(source, 1 << 64))
        for source, numbers in result["part"]["info"]["kept_per_source"].items():
            kept[source] = kept.get(source, 0) + numbers["documents"]
    forced = {
        least
        for source, least in smallest.items()
        if kept[source] >= MIN_DOCUMENTS and least >= below
    }
    if not forced and min(smallest.values()) >= below and sum(kept.values()) > 1:
        forced = {min(smallest.values())}
    return {"below": below, "forced": sorted(forced)}


def is_heldout(keys: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
    forced = np.array(rule["forced"], np.uint64)
    return (keys < np.uint64(rule["below"])) | np.isin(keys, forced)
