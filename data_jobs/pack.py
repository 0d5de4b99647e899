"""Stage pack: the kept text, and text tokenised elsewhere, as flat token streams.

In: kept text shards and the tokenizer; `tokenized` files. Out, for train and heldout, by stream (a
source of the recipe): token shards (token_shards.py) of whole documents, about `pack.stream_bytes`
each, in the order of the text shards; conversations turn by turn (tokens/chat.py), whose markers
info.chat names. info.streams: [{name, train: {tokens, documents, text_bytes},
heldout: {...}}], in the order of `core.recipe.stream_names`; text_bytes is null where tokens came
without their text. Memory of a unit: a token shard, and one record batch of a kept shard with its
ids; of the driver: 8 bytes a document of one kept shard, 300 bytes a token shard (9,000 of them at
1T tokens).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.shards import add_counts
from data_jobs.token_files.files import token_file_hashes
from data_jobs.token_files.pack_tokens import pack_tokens_unit, token_items
from data_jobs.token_shards import SIDES, Shard, finished_shard, shard_name, write_shard
from data_jobs.tokens import chat
from data_jobs.tokens.engines import Encoder, load
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.errors import DataError
from mutirao.core.identity import stream_names
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

BYTES_PER_TOKEN = 4.0  # where the tokenizer was measured on no text
ROOM = 1.15  # ids taken room for, by the bytes per token of the held-out text


def run(job: StageJob) -> StageResult:
    """Raises DataError for ids that the tokenizer does not have, damaged token files, and where
    nothing is held out."""
    about = job.inputs["tokenizer"].content["info"]
    names = stream_names(job.recipe)
    common = {
        "directory": str(job.directory),
        "tokenizer": str(job.inputs["tokenizer"].directory),
        "engine": job.recipe.pack.engine,
        "wide": about["vocab_size"] > 2**16,
        "eos": about["eos_id"],
        "vocab_size": about["vocab_size"],
        "chat": about.get("chat", {}),
        "bytes_per_token": about.get("bytes_per_token") or BYTES_PER_TOKEN,
    }
    results = run_units(job, text_items(job, common, names), pack_unit, "packing")
    if job.recipe.tokenized:
        items = token_items(job, common, names)
        results += run_units(job, items, pack_tokens_unit, "packing token files")
    for reason in sorted({result["reason"] for result in results} - {""}):
        line = f"  packing with Hugging Face's tokenizer: {reason}"
        job.progress.say("\n".join(textwrap.wrap(line, 79, subsequent_indent="    ")))
    shards = [shard for result in results for shard in result["shards"]]
    shards.sort(key=lambda shard: (SIDES.index(shard["side"]), shard["number"]))
    info = {
        "dtype": "uint32" if common["wide"] else "uint16",
        "eos_id": about["eos_id"],
        "vocab_size": about["vocab_size"],
        **({"chat": about["chat"]} if "chat" in about else {}),
        **totals(shards, names, len(job.recipe.sources)),
    }
    parts = [Part(**part) for shard in shards for part in shard["parts"]]
    counts = add_counts([{shard["side"]: shard["counts"]} for shard in shards])
    engines = sorted({result["engine"] for result in results} - {""})
    notes = {"cpu_s": cpu_seconds(results), "engines": engines}
    check_sides(job, counts)
    return StageResult(parts, counts, info, notes)


def pack_assets(recipe: Recipe, base: Path) -> dict[str, str]:
    """{file of `tokenized`: sha256}. Raises RecipeError for one that is not there."""
    return token_file_hashes(recipe, base)


def text_items(job: StageJob, common: Item, names: list[str]) -> list[Item]:
    if "split" not in job.inputs:
        return []
    per_token = max(common["bytes_per_token"], 0.1) / (4 if common["wide"] else 2)
    budget = int(job.recipe.pack.stream_bytes * per_token)
    items = []
    for side in SIDES:
        made: dict[int, int] = {}  # token shards so far, by stream
        for number, segments in plan(job.inputs["split"].paths(f"{side}-"), budget, names):
            name = shard_name(side, number, made.get(number, 0))
            made[number] = made.get(number, 0) + 1
            about = {"side": side, "number": number, "stream": names[number]}
            items.append({**common, "about": about, "name": name, "segments": segments})
    return items


def plan(paths: list[Path], budget: int, names: list[str]) -> Iterator[tuple[int, list[list[Any]]]]:
    """(stream, segments) of each token shard of up to `budget` bytes of text, in the order of its
    stream; a segment is [kept shard, first row, last row + 1]."""
    begun: dict[int, tuple[list[list[Any]], int]] = {}
    for path in paths:
        table = read_ipc(path, "kept")
        sizes = pc.binary_length(table.column("text")).to_numpy()
        total = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        for stream, first, last in _runs(table, names):
            segments, size = begun.get(stream, ([], 0))
            while first < last:
                stop = int(np.searchsorted(total, total[first] + budget - size, "right")) - 1
                stop = min(max(stop, first if segments else first + 1), last)
                if stop > first:
                    segments.append([str(path), first, stop])
                    size += int(total[stop] - total[first])
                if stop < last:
                    yield stream, segments
                    segments, size = [], 0
                first = stop
            begun[stream] = segments, size
    for stream, (segments, _) in sorted(begun.items()):
        yield stream, segments


def _runs(table: pa.Table, names: list[str]) -> Iterator[tuple[int, int, int]]:
    """(stream, first row, last row + 1) of equal streams in a row. Shards of an older format name
    none: there the recipe's first source stands for all."""
    first = 0
    for chunk in table.column("stream").chunks:
        base = first
        encoded = pc.run_end_encode(chunk)
        for name, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
            yield (0 if name is None else names.index(name)), first, base + end
            first = base + end


def pack_unit(item: Item) -> Item:
    """One token shard of text."""
    directory, name = Path(item["directory"]), item["name"]
    if (found := finished_shard(directory, name)) is not None:
        return {"shards": [found], "engine": "", "reason": ""}
    encoder = _encoder(item["tokenizer"], item["engine"])
    found = write_shard(directory, name, encode(item, encoder), item["about"])
    return {"shards": [found], "engine": encoder.name, "reason": encoder.reason}


def encode(item: Item, encoder: Encoder) -> Shard:
    """The documents of the segments, record batch by record batch."""
    tables = [
        read_ipc(Path(path), "kept").slice(first, last - first)
        for path, first, last in item["segments"]
    ]
    size = sum(int(pc.sum(pc.binary_length(table.column("text"))).as_py()) for table in tables)
    shard = Shard(item["wide"], item["eos"], int(size / item["bytes_per_token"] * ROOM))
    for batch in (batch for table in tables for batch in table.to_batches()):
        texts = batch.column("text")
        ids, offsets = chat.encode(encoder, batch, item["chat"])
        places = tuple(batch.column(name).to_numpy() for name in ("shard", "row"))
        sizes = pc.binary_length(texts).to_numpy()
        shard.add(ids, offsets, sizes, places, batch.column("source"))
    return shard


def totals(shards: list[dict[str, Any]], names: list[str], texts: int) -> dict[str, Any]:
    """tokens and text_bytes by side, tokens by side and source, and the numbers of each stream
    (the first `texts` of which have text)."""
    counts = add_counts([{shard["side"]: shard["counts"]} for shard in shards])
    none = {"tokens": 0, "documents": 0, "text_bytes": 0}
    streams: list[dict[str, Any]] = [
        {"name": name, **{side: dict(none) for side in SIDES}} for name in names
    ]
    for shard in shards:
        row = streams[shard["number"]]
        row[shard["side"]] = add_counts([row[shard["side"]], shard["counts"]])
    for row in streams[texts:]:
        row["train"]["text_bytes"] = None
    return {
        "tokens": {side: counts.get(side, none)["tokens"] for side in SIDES},
        "text_bytes": {side: counts.get(side, none)["text_bytes"] for side in SIDES},
        "sources": add_counts([{shard["side"]: shard["sources"]} for shard in shards]),
        "streams": streams,
    }


def check_sides(job: StageJob, counts: dict[str, Any]) -> None:
    """Raises DataError where one side has no document."""
    for side in SIDES:
        if not counts.get(side, {}).get("documents"):
            other = sum(numbers["documents"] for numbers in counts.values())
            raise DataError(
                f"No document for the {side} side: all {other:,} are on the other",
                f"split.heldout {job.recipe.split.heldout:g}",
                "Held out is chosen by the hash of a document's ids: give more documents, or "
                "another share with split.heldout.",
                f"no-{side}",
            )


@cache
def _encoder(path: str, engine: str) -> Encoder:
    """The encoder, once a process and path (a path holds its key, so it names its content)."""
    return load(Path(path), engine)
