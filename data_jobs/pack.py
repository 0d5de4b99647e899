"""Stage pack: encode the kept text as flat token streams with the place of each document.

In: kept text shards, the tokenizer. Out, for train and heldout: `train-00000.tokens.arrow`, one
column in one record batch, so that a memory map is one contiguous array (uint16 where every id
fits, else uint32), and `train-00000.documents.arrow`. Each document ends with `<|endoftext|>`.
A token shard takes whole documents of about `pack.stream_bytes`. Memory: twice a token shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.shards import add_counts, write_table
from data_jobs.tokenizer import load_tokenizer
from data_jobs.units import Item, cpu_seconds, run_units
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part, finished_part, write_part
from mutirao.core.schemas import DOCUMENTS, TOKENS_16, TOKENS_32, read_ipc, write_ipc

ENCODE_ROWS = 256  # documents handed to the tokenizer at once


def run(job: StageJob) -> StageResult:
    split, tokenizer = job.inputs["split"], job.inputs["tokenizer"]
    about = tokenizer.content["info"]
    wide = about["vocab_size"] > 2**16
    per_token = max(about["bytes_per_token"], 0.1) / (4 if wide else 2)
    budget = int(job.recipe.pack.stream_bytes * per_token)
    common = {
        "directory": str(job.directory),
        "tokenizer": str(tokenizer.directory / "tokenizer.json"),
        "wide": wide,
        "eos": about["eos_id"],
    }
    items = [
        {**common, "side": side, "name": f"{side}-{number:05d}", "segments": segments}
        for side in ("train", "heldout")
        for number, segments in enumerate(plan(split.paths(f"{side}-"), budget))
    ]
    results = run_units(job, items, pack_unit, "packing")
    counts = add_counts([{r["side"]: r["counts"]} for r in results])
    info = {
        "dtype": "uint32" if wide else "uint16",
        "eos_id": about["eos_id"],
        "vocab_size": about["vocab_size"],
        "tokens": {side: numbers["tokens"] for side, numbers in counts.items()},
        "text_bytes": {side: numbers["text_bytes"] for side, numbers in counts.items()},
        "sources": add_counts([{r["side"]: r["sources"]} for r in results]),
    }
    parts = [Part(**part) for result in results for part in result["parts"]]
    return StageResult(parts, counts, info, {"cpu_s": cpu_seconds(results)})


def plan(paths: list[Path], budget: int) -> Iterator[list[list[Any]]]:
    """Segments [kept shard, first row, last row + 1] of each token shard: up to `budget` bytes."""
    segments: list[list[Any]] = []
    size = 0
    for path in paths:
        lengths = pc.binary_length(read_ipc(path, "kept").column("text")).to_numpy()
        start = 0
        for row, length in enumerate(lengths.tolist()):
            if size and size + length > budget:
                yield [*segments, [str(path), start, row]] if row > start else segments
                segments, size, start = [], 0, row
            size += length
        if len(lengths) > start:
            segments.append([str(path), start, len(lengths)])
    if segments:
        yield segments


def pack_unit(item: Item) -> Item:
    """One token shard and its documents. The documents part is the last, and holds the counts."""
    directory = Path(item["directory"])
    names = [f"{item['name']}.tokens.arrow", f"{item['name']}.documents.arrow"]
    parts = [finished_part(directory, name) for name in names]
    if any(part is None for part in parts):
        tokens, documents, sources = encode(item)
        parts = [
            _write_tokens(directory, names[0], tokens),
            write_table(directory, names[1], documents, _info(documents, sources)),
        ]
    done = [part for part in parts if part]
    return {"side": item["side"], "parts": [asdict(part) for part in done], **done[1].info}


def encode(item: Item) -> tuple[np.ndarray, pa.Table, dict[str, Any]]:
    """(tokens, DOCUMENTS table, {source: tokens}) of the segments of one token shard."""
    tokenizer = _tokenizer(item["tokenizer"])
    dtype = np.uint32 if item["wide"] else np.uint16
    pieces: list[np.ndarray] = []
    rows: list[dict[str, int]] = []
    sources: dict[str, int] = {}
    offset = 0
    for batch in _batches(item["segments"]):
        columns = batch.to_pydict()
        encoded = tokenizer.encode_batch_fast(columns["text"], add_special_tokens=False)
        for k, one in enumerate(encoded):
            ids = np.array([*one.ids, item["eos"]], dtype)
            pieces.append(ids)
            size = len(columns["text"][k].encode())
            place = {"shard": columns["shard"][k], "row": columns["row"][k]}
            rows.append({"offset": offset, "tokens": len(ids), "text_bytes": size, **place})
            offset += len(ids)
            source = columns["source"][k]
            sources[source] = sources.get(source, 0) + len(ids)
    tokens = np.concatenate([np.zeros(0, dtype), *pieces])
    return tokens, pa.Table.from_pylist(rows, schema=DOCUMENTS), dict(sorted(sources.items()))


def _batches(segments: list[list[Any]]) -> Iterator[pa.Table]:
    columns = ["text", "source", "shard", "row"]
    for path, first, last in segments:
        table = read_ipc(Path(path), "kept").select(columns)
        for start in range(first, last, ENCODE_ROWS):
            yield table.slice(start, min(ENCODE_ROWS, last - start))


def _write_tokens(directory: Path, name: str, tokens: np.ndarray) -> Part:
    schema = TOKENS_32 if tokens.dtype == np.uint32 else TOKENS_16
    batch = pa.RecordBatch.from_arrays([pa.array(tokens)], schema=schema)
    return write_part(directory, name, lambda s: write_ipc(s, schema, [batch]))


def _info(documents: pa.Table, sources: dict[str, int]) -> dict[str, Any]:
    counts = {
        "documents": documents.num_rows,
        "tokens": pc.sum(documents.column("tokens")).as_py() or 0,
        "text_bytes": pc.sum(documents.column("text_bytes")).as_py() or 0,
    }
    return {"counts": counts, "sources": sources}


@cache
def _tokenizer(path: str) -> Any:
    """The tokenizer, once a process and path (a path holds its key, so it names its content)."""
    return load_tokenizer(Path(path))
