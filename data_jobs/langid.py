"""Stage langid: identify each document's language with fastText; other languages are dropped.

In: text shards, a fastText model (the bundled one, or `langid.model`). Out: decision shards
`langid-00000.arrow` with the language (ISO 639-3) and confidence of every row.
A long document is judged by three windows (start, middle, end) of together CHARACTERS, since a page
may open in another language; all of it when it is shorter. Memory: the model and a batch.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_jobs.shards import (
    add_counts,
    decision_counts,
    decision_name,
    finished_result,
    parts_of,
    reason_info,
    shard_items,
    text_batches,
    write_table,
)
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.errors import RecipeError
from mutirao.core.job import StageJob, StageResult
from mutirao.core.language_codes import iso639_3
from mutirao.core.schemas import LANGID

CHARACTERS = 1_200
LABEL = "__label__"


def run(job: StageJob) -> StageResult:
    config = job.recipe.langid
    common: dict[str, Any] = {
        "directory": str(job.directory),
        "model": str(model_path(config.model, job.base)),
        "keep": list(config.keep) or [iso639_3(job.recipe.language)],
        "min_confidence": config.min_confidence,
    }
    _check_known(common["model"], common["keep"])
    items = [{**item, **common} for item in shard_items(job.inputs, ())]
    results = run_units(job, items, langid_unit, "identifying languages")
    languages = add_counts([r["part"]["info"]["languages"] for r in results])
    info = {"languages": languages, "keep": common["keep"]}
    notes = {"cpu_s": cpu_seconds(results)}
    return StageResult(parts_of(results), decision_counts(results), info, notes)


def langid_unit(item: Item) -> Item:
    directory, name = Path(item["directory"]), decision_name("langid", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    labels: list[str] = []
    confidences: list[float] = []
    for batch in text_batches(Path(item["text"])):
        found = identify(batch.column("text").to_pylist(), item["model"])
        labels += [label for label, _ in found]
        confidences += [confidence for _, confidence in found]
    table = decide(labels, confidences, item["keep"], item["min_confidence"])
    info = reason_info(table.column("reason").combine_chunks())
    info["languages"] = add_counts([{label: 1} for label in labels])
    return {"part": vars(write_table(directory, name, table, info))}


def identify(texts: list[str], model: str) -> list[tuple[str, float]]:
    """(ISO 639-3 code, probability) for each text; ('und', 0) where there is no letter.

    Three decimals: the rest differs between processors, and is hashed.
    """
    views = [window(text) for text in texts]
    labels, scores = load(model).predict([view or " " for view in views])
    return [
        (label[0].removeprefix(LABEL), round(float(min(score[0], 1.0)), 3))
        if any(map(str.isalpha, view)) and label
        else ("und", 0.0)
        for view, label, score in zip(views, labels, scores, strict=True)
    ]


def window(text: str) -> str:
    """What the model sees: lower case, one line, single spaces, at most CHARACTERS."""
    third = CHARACTERS // 3
    if len(text) > 4 * CHARACTERS:  # cut before normalising: documents may be megabytes long
        middle = len(text) // 2
        pieces = (text[: 2 * third], text[middle : middle + 2 * third], text[-2 * third :])
        return " ".join(" ".join(piece.lower().split())[:third] for piece in pieces)
    text = " ".join(text.lower().split())
    if len(text) <= CHARACTERS:
        return text
    middle = (len(text) - third) // 2
    return " ".join((text[:third], text[middle : middle + third], text[-third:]))


def decide(
    labels: list[str], confidences: list[float], keep: list[str], min_confidence: float
) -> pa.Table:
    """'language' where another one was found, 'language-unsure' below min_confidence."""

    def reason(label: str, confidence: float) -> str | None:
        if label not in keep:
            return "language"
        return "language-unsure" if confidence < min_confidence else None

    reasons = [reason(*pair) for pair in zip(labels, confidences, strict=True)]
    shares = [float(label in keep) for label in labels]
    nothing = [None] * len(labels)
    columns: list[Any] = [reasons, labels, confidences, [""] * len(labels), shares, nothing]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, LANGID, strict=True)]
    return pa.Table.from_arrays(arrays, schema=LANGID)


def model_path(model: str, base: Path) -> Path:
    """Raises RecipeError if the file is not there."""
    if model == "builtin":
        return Path(str(resources.files("mutirao.assets") / "lid.ftz"))
    path = base / Path(model).expanduser()
    if not path.is_file():
        hint = "Correct `langid.model`, or leave it out for the bundled model."
        raise RecipeError("There is no such language model", str(path), hint, "no-model")
    return path


@cache
def load(model: str) -> Any:
    """The fastText model, once a process. Raises RecipeError if the file is not one."""
    import fasttext

    try:
        return fasttext.load_model(model)
    except ValueError as error:
        raise RecipeError(f"Not a fastText model: {error}", model, code="bad-model") from error


def _check_known(model: str, keep: list[str]) -> None:
    known = {label.removeprefix(LABEL) for label in load(model).get_labels()}
    unknown = [code for code in keep if code not in known]
    if unknown:
        raise RecipeError(
            f"The language model does not know {', '.join(unknown)}",
            "langid.keep",
            "Keep everything with `langid.keep: [..]` of the codes it does find "
            "(`mutirao lang check` lists them), or give a model that knows it (`langid.model`).",
            "unknown-language",
        )
