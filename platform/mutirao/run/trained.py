"""Which runs were trained on forgotten documents, and in which steps.

The order of training is arithmetic (train_jobs/loader.py), so the steps follow from the places of
the tokens without reading anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mutirao.core.errors import UserError
from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.model_size import resolve
from mutirao.core.runs import Run
from mutirao.core.workdir import Workdir

MOST_SEQUENCES = 20_000_000  # beyond it (2 s, 160 MB), whole runs are named


def trained_on(
    workdir: Workdir, runs: list[Run], actions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """[{run, finished, checkpoints, heldout_only, steps: [first, last] or None, times}] of the
    runs that trained, or began to, on a pack in which tokens are taken out."""
    found = []
    for run in runs:
        key = run.stages.get("pack", {}).get("key")
        spans = {
            action["part"]: action["spans"]
            for action in actions
            if action.get("do") == "tokens" and action["key"] == key
        }
        if not spans or "train" not in run.stages:
            continue
        pack = read_manifest(workdir.artefact("pack", str(key)))
        assert pack is not None, "its tokens are among the actions"
        found.append(_row(run, pack, spans))
    return found


def _row(run: Run, pack: Manifest, spans: dict[str, Any]) -> dict[str, Any]:
    checkpoints = sorted((run.directory / "checkpoints").glob("step-*"))
    row = {
        "run": run.id,
        "finished": run.stages["train"].get("status") == "done",
        "heldout_only": all(part.startswith("heldout") for part in spans),
        "steps": None,
        "times": None,
        "checkpoints": [path.name for path in checkpoints],
    }
    if row["heldout_only"]:
        return {**row, "times": 0, "checkpoints": []}
    steps = _steps(run, pack, spans)
    if steps is not None and len(steps):
        row |= {"steps": [int(steps.min()) + 1, int(steps.max()) + 1], "times": len(steps)}
    return row


def _steps(run: Run, pack: Manifest, spans: dict[str, Any]) -> np.ndarray | None:
    """The 0-based steps of the plan whose sequences hold the tokens; None where unknown."""
    from train_jobs.loader import Loader

    recipe = run.recipe()
    try:
        context = resolve(recipe.model, pack.content["info"]["vocab_size"]).context
        loader = Loader(pack, recipe, context, run.directory)
    except UserError:
        return None
    if loader.total > MOST_SEQUENCES:
        return None
    wanted = _sequences(pack, spans, context)
    stream, sequence, _ = loader.places(np.arange(loader.total))
    found = np.zeros(loader.total, dtype=bool)
    for number, sequences in wanted.items():
        found |= (stream == number) & np.isin(sequence, list(sequences))
    return np.flatnonzero(found) // recipe.train.global_batch


def _sequences(pack: Manifest, spans: dict[str, Any], context: int) -> dict[int, set[int]]:
    """By stream, the sequences that hold a token of the spans."""
    from train_jobs.loader import TOKEN_FILE

    wanted: dict[int, set[int]] = {}
    begins: dict[int, int] = {}  # of the stream's next file
    for part in pack.parts:
        named = TOKEN_FILE.fullmatch(part.path)
        if not named or named["side"] != "train":
            continue
        stream = int(named["stream"] or 0)
        base = begins.get(stream, 0)
        for start, end in spans.get(part.path, ()):
            first, last = max(0, base + start - 1), base + end - 1  # a sequence has L + 1 tokens
            wanted.setdefault(stream, set()).update(range(first // context, last // context + 1))
        begins[stream] = base + part.rows
    return wanted
