"""Run a pure unit function over many small descriptions of work, on Ray Data or in this process.

In: items, each a JSON-able dict that says all a unit needs (paths, options, where to write).
Out: the units' results, in item order. A unit writes its own parts and first looks whether an
earlier attempt finished them, so a restart, a killed worker or a retry repeats unfinished units
only. Memory of the driver: the items and results, about 2 kB a unit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from mutirao.core.errors import DataError, EnvironmentProblem, RecipeError, Stopped, UserError
from mutirao.core.job import StageJob

Item = dict[str, Any]
Unit = Callable[[Item], Item]

MAX_BLOCKS = 2_000  # Ray Data tasks of one call; beyond it, a task runs several units
ERRORS = {kind.__name__: kind for kind in (UserError, RecipeError, DataError, EnvironmentProblem)}
ERRORS["Stopped"] = Stopped


def run_units(
    job: StageJob, items: list[Item], function: Unit, label: str, cpus: float = 1
) -> list[Item]:
    """Results of `function(item)` for all items, in item order, each with `cpu_s` of its process.

    A UserError raised inside a unit comes out as that same error, without a wrapper of Ray.
    """
    job.progress.start(len(items), label)
    runner = _on_ray if job.use_ray and len(items) > 0 else _here
    results: list[Item | None] = [None] * len(items)
    try:
        for outcome in runner(items, function, cpus):
            results[outcome["index"]] = _unwrap(outcome)
            job.progress.advance()
    finally:
        job.progress.finish()
    return [result for result in results if result is not None]


def cpu_seconds(results: list[Item]) -> float:
    """Sum of the units' CPU time, for the attribution of energy (never hashed)."""
    return round(sum(result.get("cpu_s", 0.0) for result in results), 3)


def _here(items: list[Item], function: Unit, cpus: float) -> Iterator[Item]:
    for index, item in enumerate(items):
        yield _guarded(function, index, item)


def _on_ray(items: list[Item], function: Unit, cpus: float) -> Iterator[Item]:
    """Items and results travel as JSON text: Arrow would guess a type for each nested field."""
    import ray

    rows = [{"index": i, "item": json.dumps(item)} for i, item in enumerate(items)]

    def call(row: dict[str, Any]) -> dict[str, Any]:
        outcome = _guarded(function, int(row["index"]), json.loads(row["item"]))
        return {"outcome": json.dumps(outcome)}

    blocks = min(len(rows), MAX_BLOCKS)
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map(call, num_cpus=cpus)
    for row in dataset.iter_rows():
        yield json.loads(row["outcome"])


def _guarded(function: Unit, index: int, item: Item) -> Item:
    """A UserError becomes a value, so that Ray neither wraps nor retries it."""
    began = time.process_time()
    try:
        result = function(item)
    except UserError as error:
        fields = (error.problem, error.where, error.hint, error.code)
        return {"index": index, "error": type(error).__name__, "fields": fields}
    return {"index": index, "result": {**result, "cpu_s": time.process_time() - began}}


def _unwrap(outcome: Item) -> Item:
    if "error" in outcome:
        raise ERRORS.get(outcome["error"], UserError)(*outcome["fields"])
    return outcome["result"]
