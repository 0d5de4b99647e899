"""Which runs were trained on forgotten documents, and in which steps; and which began from those.

The order of training is arithmetic (train_jobs/loader.py), so the steps follow from the places of
the tokens without reading anything. What a fork began with stands in its origin.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mutirao.core.errors import UserError
from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.model_size import resolve
from mutirao.core.run_steps import origin_record
from mutirao.core.runs import Run
from mutirao.core.workdir import Workdir

MOST_SEQUENCES = 20_000_000  # beyond it (2 s, 160 MB), whole runs are named


def trained_on(
    workdir: Workdir, runs: list[Run], actions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """[{run, finished, checkpoints, heldout_only, steps: [first, last] or None, times}] of the
    runs that trained, or began to, on a pack in which tokens are taken out. Of those that began
    from the weights of such a run, {through: that run} too."""
    found = _on_the_tokens(workdir, runs, actions)
    return found + list(_through(workdir, runs, found))


def _on_the_tokens(
    workdir: Workdir, runs: list[Run], actions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
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


def _through(
    workdir: Workdir, runs: list[Run], found: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Forks, and forks of forks, that are not among `found` as trained on the tokens themselves. A
    fork from a step before the first of those did not learn from them."""
    known = {row["run"]: row for row in found if not row["heldout_only"]}
    before = -1
    while before < len(known):
        before = len(known)
        for run in runs:
            name, step = _origin(workdir, runs, run)
            origin = known.get(name)
            if run.id in known or origin is None:
                continue
            first = origin["steps"][0] if origin["steps"] else 0
            if step is not None and step < first:
                continue
            known[run.id] = {**_about(run), "heldout_only": False, "through": name}
            yield known[run.id]


def _origin(workdir: Workdir, runs: list[Run], run: Run) -> tuple[str, int | None]:
    """(the run whose weights this one began with, the step of the checkpoint; None for the
    exported model); ('', None) where it began from its seed or from elsewhere."""
    record = origin_record(run.directory)
    if not record:
        return "", None
    folder = Path(record["folder"])
    for one in runs:
        key = one.stages.get("export", {}).get("key")
        exported = workdir.artefact("export", str(key)) if key else one.directory / "model"
        inside = one.directory.resolve() in folder.resolve().parents
        if inside or folder.resolve() == exported.resolve():
            return one.id, record["step"]
    return "", None


def _about(run: Run) -> dict[str, Any]:
    checkpoints = sorted((run.directory / "checkpoints").glob("step-*"))
    return {
        "run": run.id,
        "finished": run.stages.get("train", {}).get("status") == "done",
        "steps": None,
        "times": None,
        "checkpoints": [path.name for path in checkpoints],
    }


def _row(run: Run, pack: Manifest, spans: dict[str, Any]) -> dict[str, Any]:
    row = {
        **_about(run),
        "heldout_only": all(part.startswith("heldout") for part in spans),
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
