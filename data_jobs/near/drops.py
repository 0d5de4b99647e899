"""What the survivors pass hands on: which documents near-duplicates drop, sorted by document.

A document is named (number of its text shard << 32) | row. Shards of earlier results are numbered
after those of this corpus (`near/plan.py`), so their documents have larger names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.keyed import key_slice, read_records
from mutirao.core.schemas import read_ipc

ROW_BITS = 32
ROW_MASK = np.uint64((1 << ROW_BITS) - 1)
NOTHING = np.iinfo(np.uint64).max  # no document has this name

# other: the kept document with the highest Jaccard (NOTHING: one of an earlier result, which the
# edges of the shard name). jaccard: NaN where it is still to be computed (closure).
DROP = np.dtype([("document", "<u8"), ("other", "<u8"), ("jaccard", "<f4"), ("pad", "<u4")])


def shard_slice(records: np.ndarray, shard: int) -> np.ndarray:
    """The records of one text shard, of records sorted by `document`."""
    return key_slice(records, "document", shard << ROW_BITS, (shard + 1) << ROW_BITS)


def rows_of(documents: np.ndarray) -> np.ndarray:
    return (documents & ROW_MASK).astype(np.int64)


def shards_of(documents: np.ndarray) -> np.ndarray:
    return (documents >> np.uint64(ROW_BITS)).astype(np.int64)


def dropped_rows(item: dict[str, Any]) -> np.ndarray:
    """bool[rows] of the text shard `item["shard"]` (`item["text"]`): True where the records of
    `item["drops"]` drop the row as a near-duplicate."""
    mask = np.zeros(read_ipc(Path(item["text"]), "text").num_rows, bool)
    mask[rows_of(shard_slice(read_records(item["drops"]), item["shard"])["document"])] = True
    return mask
