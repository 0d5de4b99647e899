"""Which function makes which stage: the one table that joins the jobs."""

from __future__ import annotations

from collections.abc import Callable

from mutirao.core.job import StageJob, StageResult
from mutirao.core.stages import DATA_STAGES


def stage_function(name: str) -> Callable[[StageJob], StageResult]:
    """The stage's function; its module is imported here, since torch takes seconds."""
    if name in DATA_STAGES:
        from data_jobs.pipeline import STAGES as data_stages

        return data_stages[name]
    from train_jobs.launch import STAGES as train_stages

    return train_stages[name]
