"""Model scores of `filter`: a number between 0 and 1 for each document, by a fastText classifier.

In: `filter.scores` of a recipe, {name: file of a supervised fastText model with two labels}.
Out: by name one float32 a document: the probability of the label that is not `__label__0`
(`python -m data_jobs.quality.train_score` makes such models). Scores are cached per text shard and
model, so a new score leaves the measured values and the other scores alone.
"""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.quality.rules import VALUE_NAMES
from data_jobs.shards import text_batches, write_table
from data_jobs.units import Item
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_file, sha256_hex
from mutirao.core.job import StageJob
from mutirao.core.manifest import finished_part
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

VERSION = 1  # rises when the text shown to a model changes: scores are cached under it
NEGATIVE, POSITIVE = "__label__0", "__label__1"
WINDOW, WINDOWS = 1_000, 8  # characters; of a long document, evenly spread, their mean counts
SCORES_SCHEMA = pa.schema([pa.field("score", pa.float32())])


def score(model: Any, texts: list[str]) -> np.ndarray:
    """float32[texts]: the mean probability of the positive label over each text's windows."""
    cut = [windows(text) for text in texts]
    flat = [window for one in cut for window in one]
    found = np.zeros(len(flat))
    if flat:
        labels, values = model.predict(flat, k=2)
        for place, (names, shares) in enumerate(zip(labels, values, strict=True)):
            pairs = dict(zip(names, shares, strict=True))
            found[place] = pairs.get(POSITIVE, 1 - pairs.get(NEGATIVE, 1.0))
    ends = np.cumsum([0, *(len(one) for one in cut)])
    means = [found[a:b].mean() for a, b in itertools.pairwise(ends)]
    return np.clip(np.array(means), 0, 1).astype(np.float32)


def windows(text: str) -> list[str]:
    """What a model sees: lower case, single spaces, one line each (fastText refuses line ends)."""
    last = max(0, len(text) - WINDOW)
    count = min(WINDOWS, -(-len(text) // WINDOW)) or 1
    starts = [last * k // max(1, count - 1) for k in range(count)]
    return [" ".join(text[start : start + WINDOW].lower().split()) for start in starts]


@cache
def load_model(path: str) -> Any:
    """The fastText model, once a process. Raises RecipeError if the file is not one, or has other
    labels: its score would be 0 for every document."""
    import fasttext

    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise RecipeError(f"Not a fastText model: {error}", path, code="bad-model") from error
    labels = model.get_labels()
    if len(labels) != 2 or not {NEGATIVE, POSITIVE} & set(labels):
        some = ", ".join(labels[:3]) + (", ..." if labels[3:] else "")
        hint = f"It needs two labels, {NEGATIVE} and {POSITIVE}; this one has {some}."
        raise RecipeError("Not a model for scores", path, hint, "bad-model")
    return model


def model_paths(recipe: Recipe, base: Path) -> dict[str, Path]:
    """Raises RecipeError for a file that is not there, or the name of a measured value."""
    found = {}
    for name, file in sorted(recipe.filter.scores.items()):
        where = f"filter.scores.{name}"
        if name in VALUE_NAMES or not name.isidentifier():
            hint = "A score's name is one word of letters, digits and _, and no measured value's."
            raise RecipeError("Not a name for a score", where, hint, "bad-score-name")
        found[name] = base / Path(file).expanduser()
        if not found[name].is_file():
            hint = "Train one with `python -m data_jobs.quality.train_score`, or correct the path."
            raise RecipeError(f"No such score model: {found[name]}", where, hint, "no-model")
    return found


def score_items(job: StageJob) -> dict[str, dict[str, str]]:
    """By score what a unit needs: the model's file, and the folder of its cached scores."""
    cache, clean = job.directory.parents[2] / "cache" / "scores", job.inputs["clean"].content_hash
    found = {}
    for name, path in model_paths(job.recipe, job.base).items():
        identity = {"clean": clean, "model": sha256_file(path), "version": VERSION}
        folder = cache / sha256_hex(canonical_json(identity))[:32]
        found[name] = {"model": str(path), "folder": str(folder)}
    return found


def shard_scores(item: Item) -> dict[str, np.ndarray]:
    """Scores of one text shard by name, from the cache or computed now."""
    name = f"scores-{item['shard']:05d}.arrow"
    found = {}
    for score_name, one in item["scores"].items():
        folder = Path(one["folder"])
        if finished_part(folder, name) is None:
            model = load_model(one["model"])
            batches = text_batches(Path(item["text"]))
            parts = [score(model, batch.column("text").to_pylist()) for batch in batches]
            values = np.concatenate([np.zeros(0, np.float32), *parts])
            write_table(folder, name, pa.table({"score": values}, schema=SCORES_SCHEMA))
        found[score_name] = read_ipc(folder / name).column("score").to_numpy()
    return found


def scores_column(scores: dict[str, np.ndarray], rows: int) -> pa.Array:
    """map<string, float32>[rows], the names in order."""
    names = sorted(scores)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * len(names))
    keys = pa.array(names * rows, pa.string())
    table = np.stack([scores[name] for name in names], axis=1) if names else np.zeros((rows, 0))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(table.ravel(), pa.float32()))
