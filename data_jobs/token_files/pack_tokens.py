"""Token files into token shards: find the texts in them, check the ids, hold some texts out.

In: pieces of files, about `pack.stream_bytes` of ids each. Out, for each piece, a train and a
heldout shard (token_shards.py). A text is held out iff the xxh3 hash of its ids (as uint32, without
its end of text) is under split.heldout: equal texts stay on one side, whatever file they are in,
and more data moves none. Memory of a unit: two and a half times `pack.stream_bytes` and a block; of
the driver: 500 bytes a piece (8,000 of them at 1T tokens).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from data_jobs.token_files import read_megatron, read_npy, read_parquet
from data_jobs.token_files.blocks import BLOCK_IDS, Block, IdCheck
from data_jobs.token_files.files import TokenFile, token_files
from data_jobs.token_files.texts import Texts, texts_of
from data_jobs.token_shards import SIDES, Shard, finished_shard, shard_name, write_shard
from data_jobs.units import Item
from mutirao.core.job import StageJob

NO_SHARD = -1  # these documents stand in no text shard


def token_items(job: StageJob, common: Item, names: list[str]) -> list[Item]:
    """A unit of work for each piece. Raises DataError for damaged files."""
    budget = job.recipe.pack.stream_bytes // (4 if common["wide"] else 2)
    items: list[Item] = []
    made: dict[int, int] = {}
    for file in token_files(job.recipe, job.base):
        for piece in _pieces(file, budget):
            number = made.get(file.stream, 0)
            made[file.stream] = number + 1
            items.append(
                {
                    **common,
                    "stream": names[file.stream],
                    "number": file.stream,
                    "shard": number,
                    "path": str(file.path),
                    "format": file.format,
                    "ids_field": file.settings.ids_field,
                    "eos_mode": file.settings.eos,
                    "heldout": job.recipe.split.heldout,
                    "piece": piece,
                }
            )
    return items


def pack_tokens_unit(item: Item) -> Item:
    """Both shards of one piece. Raises DataError for ids that the tokenizer does not have."""
    directory = Path(item["directory"])
    names = [shard_name(side, item["number"], item["shard"]) for side in SIDES]
    found = [finished_shard(directory, name) for name in names]
    if any(shard is None for shard in found):
        made = zip(SIDES, names, divided(item), strict=True)
        found = []
        for side, name, shard in made:
            about = {"side": side, "number": item["number"], "stream": item["stream"]}
            found.append(write_shard(directory, name, shard, about))
    return {"shards": found, "engine": "", "reason": ""}


def divided(item: Item) -> tuple[Shard, Shard]:
    """The texts of one piece: those to train on, those held out (with their bytes of text)."""
    check = IdCheck(item["path"], item["vocab_size"])
    texts = texts_of(_blocks(item), item, check)
    check.done()
    room = int(len(texts.ids) * (1 - item["heldout"])) + len(texts.ids) // 50 + 1000
    train = Shard(item["wide"], item["eos"], room)
    heldout = Shard(item["wide"], item["eos"], len(texts.ids) // 16 + 1000)
    below = int(item["heldout"] * 2**64)
    for first, end in _some(texts.offsets):
        held = np.array([key < below for key in _keys(texts, first, end)], dtype=bool)
        for shard, chosen in ((train, ~held), (heldout, held)):
            _add(shard, texts, first, chosen, item, with_bytes=shard is heldout)
    return train, heldout


def _keys(texts: Texts, first: int, end: int) -> Iterator[int]:
    borders = texts.offsets[first : end + 1].tolist()
    for start, stop in pairwise(borders):
        yield xxhash.xxh3_64_intdigest(texts.ids[start:stop].astype("<u4").tobytes())


def _add(
    shard: Shard, texts: Texts, first: int, chosen: np.ndarray, item: Item, with_bytes: bool
) -> None:
    """The chosen texts, of those that begin with number `first`."""
    offsets = texts.offsets[first : first + len(chosen) + 1]
    lengths = np.diff(offsets)
    ids = texts.ids[offsets[0] : offsets[-1]][np.repeat(chosen, lengths)]
    borders = np.concatenate([[0], np.cumsum(lengths[chosen])])
    count = len(borders) - 1
    sizes = np.zeros(count, np.int64)  # not known, where the text is not asked for
    if with_bytes and count:
        sizes = _text_bytes(item["tokenizer"], ids, borders)
    numbers = (first + np.flatnonzero(chosen)).astype(np.int32)
    places = (np.full(count, NO_SHARD, np.int32), numbers)
    shard.add(ids, borders, sizes, places, pa.array([item["stream"]] * count, pa.string()))


def _text_bytes(tokenizer: str, ids: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """The bytes in UTF-8 of the texts that the ids stand for."""
    listed = [ids[a:b].tolist() for a, b in pairwise(borders)]
    texts = _decoder(tokenizer).decode_batch(listed, skip_special_tokens=False)
    return np.array([len(text.encode()) for text in texts], np.int64)


def _some(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, end) of documents of about a block of ids together."""
    first = 0
    while first < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[first] + BLOCK_IDS, side="right")) - 1
        end = min(max(end, first + 1), first + 100_000, len(offsets) - 1)
        yield first, end
        first = end


def _pieces(file: TokenFile, budget: int) -> list[dict[str, Any]]:
    if file.format == "npy":
        return read_npy.pieces(file.path, budget, flat=file.settings.eos == "present")
    if file.format == "megatron":
        return read_megatron.pieces(file.path, budget)
    return read_parquet.pieces(file.path, budget, file.settings.ids_field)


def _blocks(item: Item) -> Iterator[Block]:
    path = Path(item["path"])
    if item["format"] == "npy":
        return read_npy.blocks(path, item["piece"])
    if item["format"] == "megatron":
        return read_megatron.blocks(path, item["piece"])
    return read_parquet.blocks(path, item["piece"], item["ids_field"])


@cache
def _decoder(folder: str) -> Any:
    from data_jobs.tokens.existing import read_tokenizer

    return read_tokenizer(Path(folder))
