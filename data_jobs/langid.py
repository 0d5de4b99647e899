"""Stage langid: identify each document's language and variety; what is not wanted is dropped.

In: text shards, a fastText model (the bundled one, or `langid.model`). Out: decision shards
`langid-00000.arrow` with the language (our ISO 639-3 label), confidence and variety of every row;
with `langid.mode: paragraph` also the byte ranges of a document that are in a wanted language.
Reading order: langid_windows (what is looked at), langid_engine (how it is judged),
langid_paragraphs, variety. Memory: the model and a batch.
"""

from __future__ import annotations

import difflib
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_jobs.language.langid_engine import identify_views, load
from data_jobs.language.langid_paragraphs import Verdict, judge_paragraphs
from data_jobs.language.langid_windows import windows
from data_jobs.language.variety import UNDECIDED, decide_varieties, varieties_of, variety_sha256
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
from mutirao.core.files import sha256_file, sha256_hex
from mutirao.core.job import StageJob, StageResult
from mutirao.core.language_codes import labels_of
from mutirao.core.languages import load_pack, pack_folder
from mutirao.core.recipe import LangId, Recipe
from mutirao.core.schemas import LANGID

BUNDLED = "lid.ftz"


def run(job: StageJob) -> StageResult:
    """Raises RecipeError as `check` does."""
    check(job.recipe, job.base)
    config = job.recipe.langid
    keep = kept_labels(job.recipe)
    model = model_path(config.model, job.base)
    common: dict[str, Any] = {
        "directory": str(job.directory),
        "model": str(model),
        "keep": keep,
        "confusable": confusable_labels(job.recipe, job.base),
        **config.model_dump(mode="json", exclude={"model", "keep"}),
    }
    items = [{**item, **common} for item in shard_items(job.inputs, ())]
    results = run_units(job, items, langid_unit, "identifying languages")
    info = {
        "languages": add_counts([r["part"]["info"]["languages"] for r in results]),
        "varieties": add_counts([r["part"]["info"]["varieties"] for r in results]),
        "keep": keep,
        "model_sha256": sha256_file(model),
    }
    notes = {"cpu_s": cpu_seconds(results)}
    return StageResult(parts_of(results), decision_counts(results), info, notes)


def check(recipe: Recipe, base: Path) -> None:
    """Raises RecipeError for a model that is not there, or a language or variety nobody knows."""
    _check_known(str(model_path(recipe.langid.model, base)), recipe)
    _check_varieties(recipe.langid, kept_labels(recipe))


def langid_unit(item: Item) -> Item:
    """The decision shard of one text shard."""
    directory, name = Path(item["directory"]), decision_name("langid", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    verdicts: list[Verdict] = []
    varieties: list[str] = []
    for batch in text_batches(Path(item["text"])):
        views = windows(batch.column("text"), item["window_bytes"])
        found = judge(batch, views, item)
        verdicts += found
        varieties += varieties_for(views, found, item["keep"])
    table = decide(verdicts, varieties, item)
    info = reason_info(table.column("reason").combine_chunks())
    info["languages"] = dict(sorted(Counter(v.label for v in verdicts).items()))
    info["varieties"] = dict(sorted(Counter(filter(None, varieties)).items()))
    return {"part": vars(write_table(directory, name, table, info))}


def judge(batch: pa.RecordBatch, views: list[bytes], item: Item) -> list[Verdict]:
    """Language, confidence, share and spans of each row of a batch of text."""
    confusable = frozenset(item["confusable"])
    if item["mode"] == "paragraph":
        return judge_paragraphs(batch, item, confusable)
    found = identify_views(views, item["model"], item["engine"], confusable)
    return [Verdict(label, sure, float(label in item["keep"])) for label, sure in found]


def varieties_for(views: list[bytes], found: list[Verdict], keep: list[str]) -> list[str]:
    """The variety of the rows in a wanted language that has varieties, '' for the others."""
    answers = [""] * len(views)
    for language in sorted({v.label for v in found} & set(keep)):
        if varieties_of(language):
            rows = [row for row, verdict in enumerate(found) if verdict.label == language]
            names = decide_varieties([views[row] for row in rows], language)
            for row, name in zip(rows, names, strict=True):
                answers[row] = name
    return answers


def decide(verdicts: list[Verdict], varieties: list[str], item: Item) -> pa.Table:
    """'language' where another one was found, 'language-unsure' below min_confidence, 'variety'
    where it is none of those wanted."""

    def reason(verdict: Verdict, variety: str) -> str | None:
        least = item["min_share"] if item["mode"] == "paragraph" else 1.0
        if verdict.share < least or not verdict.share:
            return "language"
        if verdict.confidence < item["min_confidence"]:
            return "language-unsure"
        unwanted = item["varieties"] and variety and variety not in item["varieties"]
        return "variety" if unwanted else None

    reasons = [reason(*pair) for pair in zip(verdicts, varieties, strict=True)]
    columns: list[list[Any]] = [
        reasons,
        [v.label for v in verdicts],
        [v.confidence for v in verdicts],
        varieties,
        [v.share for v in verdicts],
        [v.spans if why is None else None for v, why in zip(verdicts, reasons, strict=True)],
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, LANGID, strict=True)]
    return pa.Table.from_arrays(arrays, schema=LANGID)


def identify(
    texts: list[str], model: str, engine: str = "fast", window_bytes: int = 1200
) -> list[tuple[str, float]]:
    """(our ISO 639-3 label, confidence) for each text; ('und', 0) where there is no letter."""
    column = pa.array([text.encode("utf-8", "ignore") for text in texts], pa.large_binary())
    return identify_views(windows(column.cast(pa.large_string()), window_bytes), model, engine)


def kept_labels(recipe: Recipe) -> list[str]:
    """Our labels of the wanted languages, sorted: `gug` is wanted as `grn` too."""
    return sorted({label for code in _wanted(recipe) for label in labels_of(code)})


def confusable_labels(recipe: Recipe, base: Path) -> list[str]:
    """Labels of the languages that the pack says are taken for its own, and its own."""
    named = load_pack(recipe.language, pack_folder(recipe, base)).confusable
    return sorted({label for code in (*named, recipe.language) for label in labels_of(code)})


def langid_assets(recipe: Recipe, base: Path) -> dict[str, str]:
    """By name, the sha256 of everything besides text and recipe that decides."""
    codes = (resources.files("mutirao.languages") / "codes.yaml").read_bytes()
    found = {
        "model": sha256_file(model_path(recipe.langid.model, base)),
        "codes": sha256_hex(codes),
        "confusable": sha256_hex(" ".join(confusable_labels(recipe, base)).encode()),
    }
    varieties = {f"varieties {one}": variety_sha256(one) for one in kept_labels(recipe)}
    return found | {name: value for name, value in varieties.items() if value}


def model_path(model: str, base: Path) -> Path:
    """Raises RecipeError if the file is not there."""
    if model == "builtin":
        return bundled_model()
    path = base / Path(model).expanduser()
    if not path.is_file():
        hint = "Correct `langid.model`, or leave it out for the bundled model."
        raise RecipeError("There is no such language model", str(path), hint, "no-model")
    return path


@cache
def bundled_model() -> Path:
    return Path(str(resources.files("mutirao.assets") / BUNDLED))


def _wanted(recipe: Recipe) -> tuple[str, ...]:
    return recipe.langid.keep or (recipe.language,)


def _check_known(model: str, recipe: Recipe) -> None:
    known = load(model).known
    unknown = [code for code in _wanted(recipe) if not labels_of(code) & known]
    if unknown:
        raise RecipeError(
            f"The language model does not know {', '.join(unknown)}",
            "langid.keep" if recipe.langid.keep else "language",
            "Give a fastText model that knows it (`langid.model`), or keep what the model takes "
            "it for (`langid.keep: [..]`).",
            "unknown-language",
        )


def _check_varieties(config: LangId, keep: list[str]) -> None:
    known = [UNDECIDED]
    for language in keep:
        own = varieties_of(language)
        known += own.names if own else ()
    for name in config.varieties:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."
            raise RecipeError(f"Unknown variety {name!r}", "langid.varieties", hint, "no-variety")
