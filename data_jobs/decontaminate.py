"""Stage decontaminate: drop documents that share word n-grams with evaluation sets.

In: text shards and the decisions before (only kept rows are looked at), the sets that the language
pack names and those of `decontaminate.against`. Out: decision shards with each row's n-grams (13
words, or a whole text of 8 to 12: Brown et al. 2020, GPT-3, arXiv:2005.14165, appendix C) that a
set has, which set and where; `found.json`: how much of each set stands in the corpus.
Two passes, both restartable: the text is searched once, shard by shard, and hits are written; then
n-grams that too many documents have are set aside (`evaluation/hits.py` says why) and the rest
decides. All of a document is looked at, also paragraphs that `split` will leave out.
Memory: a unit 16 bytes an evaluation n-gram and a batch of text; the driver 60 bytes an evaluation
n-gram and the hits of one shard. At 1T tokens (2.4 billion documents) the driver reads 77,000 small
files of hits, twice.
Reading order: evaluation/sets, texts, ngrams, scan, hits, found.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.evaluation.found import Tally, findings
from data_jobs.evaluation.hits import HIT, Judged, counted, judged, per_row
from data_jobs.evaluation.ngrams import Index, merged
from data_jobs.evaluation.scan import Lookup, batch_hits, lookup, offset_in, read_only, word_table
from data_jobs.evaluation.sets import (
    LookedFor,
    assets_of_sets,
    check_sets,
    names_without_file,
    sets_of,
)
from data_jobs.evaluation.texts import passage
from data_jobs.keyed import read_records, remove_records, write_records
from data_jobs.shards import (
    decision_counts,
    decision_name,
    finished_result,
    kept_rows,
    parts_of,
    reason_info,
    shard_items,
    utf8_buffers,
    write_table,
)
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import write_part
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import DECONTAMINATE, read_ipc

BEFORE = ("langid", "filter", "exact", "neardup")
BETWEEN = ("ngrams.npy", "verdicts.npy")  # files that the passes hand on


def run(job: StageJob) -> StageResult:
    """Raises RecipeError as `check` does."""
    config = job.recipe.decontaminate
    check(job.recipe, job.base)
    sets = sets_of(job.recipe, job.base)
    say_what_is_looked_for(job, sets)
    ngrams = [one.ngrams(config.ngram, config.min_words) for one in sets]
    index = merged(ngrams)
    searched = search(job, index)
    hits = [job.directory / part.path for part in parts_of(searched)]

    looked_at = sum(part.info["documents"] for part in parts_of(searched))
    tally = Tally.of(hits, len(index.ngrams))
    verdicts = judged(index.first_set, tally.documents, looked_at)
    decided = decide_all(job, hits, verdicts, [one.name for one in sets])

    tally.count(hits, verdicts, config.ngram, config.max_overlap)
    found = findings(job.recipe, sets, ngrams, index, tally, verdicts)
    found |= {"documents": looked_at, "not_looked_for": names_without_file(job.recipe, job.base)}
    found |= words_of_common(found, job)
    parts = parts_of(decided)
    parts.append(write_part(job.directory, "found.json", lambda stream: _json(stream, found)))
    summary = {key: found[key] for key in ("sets", "not_looked_for", "documents")}
    notes = {"cpu_s": cpu_seconds(searched) + cpu_seconds(decided)}
    remove_records(job.directory, [*searched, *({"part": {"path": name}} for name in BETWEEN)])
    return StageResult(parts, decision_counts(decided), summary, notes)


def search(job: StageJob, index: Index) -> list[Item]:
    """First pass: the results of `hits_unit`, in the order of the text shards."""
    write_records(job.directory, BETWEEN[0], index.ngrams)
    more = {"directory": str(job.directory), "ngrams": str(job.directory / BETWEEN[0])}
    items = [{**item, **more} for item in shard_items(job.inputs, BEFORE)]
    return run_units(job, items, hits_unit, "looking for evaluation texts")


def decide_all(job: StageJob, hits: list[Path], verdicts: Judged, names: list[str]) -> list[Item]:
    """Second pass: the results of `decide_unit`. names: of the sets."""
    write_records(job.directory, BETWEEN[1], verdicts)
    config = job.recipe.decontaminate
    more = {
        "directory": str(job.directory),
        "verdicts": str(job.directory / BETWEEN[1]),
        "names": names,
        "ngram": config.ngram,
        "max_overlap": config.max_overlap,
    }
    pairs = zip(shard_items(job.inputs, ()), hits, strict=True)
    items = [{**item, **more, "hits": str(path)} for item, path in pairs]
    return run_units(job, items, decide_unit, "decontaminating")


def evaluation_sets(recipe: Recipe, base: Path) -> list[str]:
    """Names of the sets that the stage looks for; where there is none, it has nothing to do."""
    return [one.name for one in sets_of(recipe, base)]


def decontaminate_assets(recipe: Recipe, base: Path) -> dict[str, str]:
    """{set: sha256 of its file}. Raises RecipeError for a file that is not there."""
    return assets_of_sets(recipe, base)


def check(recipe: Recipe, base: Path) -> None:
    """Raises RecipeError for a file of a set that is missing, damaged, without text or doubled."""
    check_sets(recipe, base)


def say_what_is_looked_for(job: StageJob, sets: list[LookedFor]) -> None:
    job.progress.say(f"  looks for: {', '.join(one.name for one in sets)}")
    if missing := names_without_file(job.recipe, job.base):
        job.progress.say(f"  not looked for: {', '.join(missing)}")
        job.progress.say("    (only their names are known: give files in decontaminate.against)")


def hits_unit(item: Item) -> Item:
    """Where the kept rows of one text shard hold n-grams of the index."""
    directory, name = Path(item["directory"]), f"hits-{item['shard']:05d}.npy"
    if (finished := finished_result(directory, name)) is not None:
        return finished
    table = read_ipc(Path(item["text"]), "text")
    kept = kept_rows(table.num_rows, item["decisions"])
    found, start = [np.zeros(0, HIT)], 0
    for batch in table.to_batches():
        looked_at = kept[start : start + batch.num_rows]
        hits = hits_of(batch.column("text"), looked_at, item["ngrams"])
        hits["row"] += start
        found.append(hits)
        start += batch.num_rows
    info = {"documents": int(kept.sum())}
    return {"part": vars(write_records(directory, name, np.concatenate(found), info))}


def hits_of(texts: pa.Array, looked_at: np.ndarray, ngrams: str) -> np.ndarray:
    """HIT records of a batch of texts; offsets are bytes of the texts as they are."""
    found = batch_hits(*utf8_buffers(texts), looked_at, word_table(), *_lookup(ngrams))
    odd = found[:, 4] < 0
    every = [found[~odd], *(_hits_of_folded(texts, row, ngrams) for row in found[odd, 0])]
    joined = np.concatenate(every)
    hits = np.zeros(len(joined), HIT)
    for column, field in enumerate(("row", "words", "word", "offset", "gram")):
        hits[field] = joined[:, column]
    return hits


def _hits_of_folded(texts: pa.Array, row: int, ngrams: str) -> np.ndarray:
    """int64[hits, 5] of one text that Python must lower-case: that may move its bytes."""
    text = texts[row].as_py()
    one = read_only(pa.array([text], pa.large_string()))
    found = batch_hits(*one, np.ones(1, bool), word_table(), *_lookup(ngrams))
    found[:, 0] = row
    found[:, 3] = [offset_in(text, place) for place in found[:, 3]]
    return found


def decide_unit(item: Item) -> Item:
    """The decision shard of one text shard, from its hits; the text is not read again."""
    directory, name = Path(item["directory"]), decision_name("decontaminate", item["shard"])
    if (finished := finished_result(directory, name)) is not None:
        return finished
    verdicts = read_records(item["verdicts"])
    hits = read_records(item["hits"])
    hits = hits[counted(hits, verdicts, item["ngram"])]
    rows = read_ipc(Path(item["text"]), "text").num_rows
    table = decide(rows, hits, verdicts, item)
    info = reason_info(table.column("reason").combine_chunks())
    return {"part": vars(write_table(directory, name, table, info))}


def decide(rows: int, hits: np.ndarray, verdicts: Judged, item: Item) -> pa.Table:
    """'evaluation-text' where more than max_overlap of a document's n-grams stand in a set."""
    found = per_row(hits, verdicts, item["ngram"])
    overlap, ngrams = np.zeros(rows, np.float32), np.zeros(rows, np.int32)
    matched, offset = np.full(rows, -1), np.zeros(rows, np.int64)
    at = found["row"]
    overlap[at], ngrams[at] = found["overlap"], found["ngrams"]
    matched[at], offset[at] = found["set"], found["offset"]
    dropped = (ngrams > 0) & (overlap > np.float32(item["max_overlap"]))
    names = np.array([*item["names"], ""], dtype=object)
    columns: list[Any] = [
        pa.array(np.where(dropped, "evaluation-text", ""), pa.string(), mask=~dropped),
        pa.array(overlap),
        pa.array(ngrams),
        pa.array(names[matched], pa.string(), mask=matched < 0),
        pa.array(offset, mask=matched < 0),
    ]
    return pa.Table.from_arrays(columns, schema=DECONTAMINATE)


def words_of_common(found: dict[str, Any], job: StageJob) -> dict[str, Any]:
    """The n-grams that too many documents have, in the words of the first of them."""
    paths = [item["text"] for item in shard_items(job.inputs, ())]
    told = []
    for one in found["common"]:
        text = read_ipc(Path(paths[one["shard"]]), "text").column("text")[one["row"]].as_py()
        told.append({**one, "words": passage(text, one["offset"], job.recipe.decontaminate.ngram)})
    return {"common": told}


@lru_cache(2)
def _lookup(path: str) -> Lookup:
    records = read_records(path)
    return lookup(records["hash"], records["words"])


def _json(stream: Any, value: dict[str, Any]) -> int:
    stream.write(canonical_json(value) + b"\n")
    return 1
