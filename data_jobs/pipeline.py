"""The data stages, in their order: one function `(StageJob) -> StageResult` each.

Text is written twice, by `clean` and by `split`; the stages between write narrow decision shards
aligned to the text shards, and a row is kept where no stage gave a reason. A stage plans small
units (`units.run_units` runs them on Ray Data, or in this process), and a unit skips what is
finished.
Reading order: units, shards, keyed; sources, ingest, readers, clean; then any stage.
"""

from __future__ import annotations

from collections.abc import Callable

from data_jobs import (
    clean,
    decontaminate,
    exact,
    filter,
    ingest,
    langid,
    neardup,
    pack,
    split,
    tokenizer,
)
from mutirao.core.job import StageJob, StageResult

STAGES: dict[str, Callable[[StageJob], StageResult]] = {
    "ingest": ingest.run,
    "clean": clean.run,
    "langid": langid.run,
    "filter": filter.run,
    "exact": exact.run,
    "neardup": neardup.run,
    "decontaminate": decontaminate.run,
    "split": split.run,
    "tokenizer": tokenizer.run,
    "pack": pack.run,
}
