"""Views over a finished run's data: what was kept, what was dropped and by which stage.

In: {stage: committed Manifest} of a run, as far as it went. Out: plain dicts for the command line,
the export and the report. "Dropped" is a join of the decision shards with the text, made when
somebody looks; it is stored nowhere. Memory: the decisions of one text shard, a batch of text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from data_jobs.language.spans import cut
from data_jobs.results.duplicates import SNIPPET, duplicate_of, jaccard_of, mapped
from data_jobs.results.kept_text import KeptTexts, spans_at
from data_jobs.shards import decision_paths, text_paths
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc
from mutirao.core.stages import DECISION_STAGES
from mutirao.core.takedown import REASON

NOBODY = bytes(16)  # the id of a document that was taken out afterwards
COPIED = ("source", "name", "url", "license", "kind", "genre")


def show(
    manifests: dict[str, Manifest],
    dropped: bool = False,
    limit: int | None = None,
    whole: bool = False,
    against: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Kept or dropped documents in the order of the text shards, `limit` at most.

    Each: id, shard, row, source, name, url, license, kind, genre, lang, lang_score, variety, stage
    and drop_reason ('' and None where kept), duplicate_of and jaccard (None where it is none), text
    (its first 200 characters unless `whole`). Where `split` is done, kept ones also have stream and
    side, and their text is what it wrote; dropped ones have the stage's values. Rejects of `clean`
    come last: stage 'clean', file, position, and as text what was kept of it. against: folders of
    the recipe's `neardup.against`, to name the one in which a duplicate stands.
    """
    left = limit if limit is not None else -1
    for row in _rows(manifests, dropped, whole, against):
        if left == 0:
            return
        yield row
        left -= 1


def tally(manifests: dict[str, Manifest], before: tuple[str, ...] = ()) -> dict[str, Any]:
    """{documents_in, kept, dropped: {stage: {reason: documents}}}, each document counted once, by
    the first stage that dropped it. Documents that a stage of `before` dropped did not come in.

    Memory: the decisions of one text shard.
    """
    stages = sorted(decision_stages(manifests), key=lambda name: name not in before)
    dropped: dict[str, Counter[str]] = {}
    counts = Counter[str]()
    rejected = {} if before else manifests["clean"].counts.get("rejected", {})
    if rejected:
        dropped["clean"] = Counter(rejected)
        counts["documents_in"] = sum(rejected.values())
    for shard in range(len(text_paths(manifests["clean"]))):
        stage, reason = first_reasons(manifests, shard, stages)
        for name, why in zip(stage, reason, strict=True):
            if name in before:
                continue
            counts["documents_in"] += 1
            if why is None:
                counts["kept"] += 1
            else:
                dropped.setdefault(name, Counter())[why] += 1
    order = ("clean", *DECISION_STAGES)
    return {
        "documents_in": counts["documents_in"],
        "kept": counts["kept"],
        "dropped": {s: dict(dropped[s].most_common()) for s in order if s in dropped},
    }


def dropped_examples(
    manifests: dict[str, Manifest], each: int, shards: int
) -> dict[tuple[str, str], list[str]]:
    """{(stage, reason): the first 2 SNIPPET characters of `each` documents} of the first text
    shards and of as many files of rejects."""
    found: dict[tuple[str, str], list[str]] = {}
    if "clean" not in manifests:
        return found
    stages = decision_stages(manifests)
    for shard, path in enumerate(text_paths(manifests["clean"])[:shards]):
        texts = read_ipc(path, "text").column("text")
        for row, (stage, why) in enumerate(
            zip(*first_reasons(manifests, shard, stages), strict=True)
        ):
            if why is None or why == REASON:
                continue
            some = found.setdefault((stage, why), [])
            if len(some) < each:
                some.append(texts[row].as_py()[: 2 * SNIPPET])
    for path in manifests["clean"].paths("rejects-")[:shards]:
        for row in read_ipc(path, "reject").to_pylist():
            some = found.setdefault(("clean", row["reason"]), [])
            if len(some) < each and row["snippet"].strip():
                some.append(row["snippet"])
    return found


def first_reasons(
    manifests: dict[str, Manifest], shard: int, stages: list[str]
) -> tuple[list[str], list[str | None]]:
    """For each row of a text shard the first stage that dropped it and why ('', None: kept).

    Documents that were taken down count for `clean`.
    """
    ids = read_ipc(text_paths(manifests["clean"])[shard], "text").column("id")
    gone = np.array([one == NOBODY for one in ids.to_pylist()], dtype=bool)
    stage: list[str] = ["clean" if g else "" for g in gone]
    reason: list[str | None] = [REASON if g else None for g in gone]
    for name in stages:
        column = decision(manifests, name, shard).column("reason")
        found = column.to_pylist() if column.null_count < len(column) else []
        for row, why in enumerate(found):
            if why is not None and reason[row] is None:
                stage[row], reason[row] = name, why
    return stage, reason


def decision_stages(manifests: dict[str, Manifest]) -> list[str]:
    return [stage for stage in DECISION_STAGES if stage in manifests]


def decision(manifests: dict[str, Manifest], stage: str, shard: int) -> pa.Table:
    return mapped(decision_paths(manifests[stage])[shard], f"decision.{stage}")


def document_id(source: str, file: str, position: int) -> bytes:
    """The 16 bytes that name a document, as `clean` makes them."""
    return xxhash.xxh3_128_digest(f"{source}\0{file}\0{position}".encode())


def rejects(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """What `clean` could not or would not keep, file after file: source, file, position, ..."""
    for path in manifest.paths("rejects-"):
        for batch in read_ipc(path, "reject").to_batches():
            yield from batch.to_pylist()


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON-able: hashes as hex, floats at the 6 digits that float32 holds."""
    found = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, float):
            value = round(value, 6)
        elif isinstance(value, list) and value and isinstance(value[0], tuple):
            value = {key: round(number, 6) for key, number in value}  # an Arrow map
        found[name] = value
    return found


def _rows(
    manifests: dict[str, Manifest], dropped: bool, whole: bool, against: Sequence[str]
) -> Iterator[dict[str, Any]]:
    stages = decision_stages(manifests)
    written = KeptTexts(manifests["split"]) if "split" in manifests and not dropped else None
    for shard, path in enumerate(text_paths(manifests["clean"])):
        stage, reason = first_reasons(manifests, shard, stages)
        languages = _languages(manifests, shard)
        spans = None if dropped or written else spans_at(manifests, shard, len(reason))
        wanted = np.array([(why is not None) == dropped for why in reason], dtype=bool)
        for row, document in _documents(path, wanted):
            language = languages[row] if languages else NO_LANGUAGE
            found = _row(document, language, shard, row, whole and not dropped)
            found |= {"stage": stage[row], "drop_reason": reason[row]}
            text = document["text"]
            if written is not None:
                kept = written.at((shard, row))
                if kept is None:
                    continue
                found |= {"side": kept.side, "stream": kept.stream}
                text = kept.text
            elif spans is not None and (ranges := spans[row]) is not None:
                text = cut(text.encode(), ranges).decode()
            found["text"] = text if whole else text[:SNIPPET]
            yield found | _why(manifests, stage[row], shard, row, against)
    if dropped:
        yield from _reject_rows(manifests["clean"])


def _documents(path: Path, wanted: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    start = 0
    for batch in read_ipc(path, "text").to_batches():
        here = np.flatnonzero(wanted[start : start + batch.num_rows])
        for k, document in zip(here.tolist(), batch.take(pa.array(here)).to_pylist(), strict=True):
            yield start + k, document
        start += batch.num_rows


def _row(
    document: dict[str, Any], language: dict[str, Any], shard: int, row: int, whole: bool
) -> dict[str, Any]:
    found = {"id": document["id"].hex(), "shard": shard, "row": row}
    found |= {name: document[name] for name in COPIED}
    found |= {"lang": language["lang"], "lang_score": language["confidence"]}
    found["variety"] = language["variety"]
    if whole:
        found |= {name: document[name] for name in ("position", "meta", "messages")}
    return found


NO_LANGUAGE: dict[str, Any] = {"lang": None, "confidence": None, "variety": ""}


def _languages(manifests: dict[str, Manifest], shard: int) -> list[dict[str, Any]]:
    if "langid" not in manifests:
        return []
    columns = list(NO_LANGUAGE)
    return [plain(row) for row in decision(manifests, "langid", shard).select(columns).to_pylist()]


def _why(
    manifests: dict[str, Manifest], stage: str, shard: int, row: int, against: Sequence[str]
) -> dict[str, Any]:
    """duplicate_of and jaccard; where a decision stage dropped the document, also its values."""
    if stage not in DECISION_STAGES:
        return dict(NO_DUPLICATE)
    values = plain(decision(manifests, stage, shard).slice(row, 1).to_pylist()[0])
    values.pop("reason")
    other = duplicate_of(manifests, (shard, row), values, against)
    return {"duplicate_of": other, "jaccard": jaccard_of(stage, values), "values": values}


NO_DUPLICATE: dict[str, Any] = {"duplicate_of": None, "jaccard": None}


def _reject_rows(clean: Manifest) -> Iterator[dict[str, Any]]:
    for row in rejects(clean):
        known = document_id(row["source"], row["file"], row["position"])
        yield {
            "id": known.hex(),
            "source": row["source"],
            "name": "",
            "url": "",
            "license": "",
            "kind": "",
            "genre": "",
            "lang": None,
            "lang_score": None,
            "variety": "",
            "stage": "clean",
            "drop_reason": row["reason"],
            **NO_DUPLICATE,
            "text": row["snippet"],
            **{name: row[name] for name in ("file", "position", "offset", "bytes")},
        }
