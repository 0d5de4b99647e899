"""A text shard -> its band keys and signatures, the index in which near-duplicates are found.

In: one text shard and the decisions of the stages before. Out, for the rows that all of them keep:
`bands-00000.arrow` (`near/index.py`), `signatures-00000.arrow`, and `orders-00000.npy`, what the
order of documents is made of (`near/order.py`). Texts under `ngram` words have no signature.
Memory: the index of one shard, bands x 20 + permutations + 40 bytes a document (450 bytes at
18 x 5); at 1T tokens the kept index has 0.73 TB, a sixth of the text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from data_jobs.keyed import write_records
from data_jobs.minhash import permutation_parameters
from data_jobs.near.index import bands_name, signatures_name, write_bands, write_signatures
from data_jobs.near.order import order_records, orders_name
from data_jobs.near.plan import read_plan
from data_jobs.near.shingles import lowered, raw_words, rolled, word_points
from data_jobs.shards import kept_rows, utf8_buffers
from data_jobs.units import Item
from data_jobs.words import mix
from mutirao.core.manifest import finished_part
from mutirao.core.schemas import read_ipc

ODD = 2


def sketch_unit(item: Item) -> Item:
    """The index of one text shard."""
    plan, shard = read_plan(item), item["shard"]
    directory = Path(plan.directory)
    names = [bands_name(shard), signatures_name(shard), orders_name(shard)]
    finished = [finished_part(directory, name) for name in names]
    if not all(finished):
        place = plan.shards[shard]
        table = read_ipc(Path(place.text), "text")
        kept = kept_rows(table.num_rows, place.decisions)
        keys, signatures, has = sketches(table, kept, plan.bands, plan.rows, plan.ngram)
        finished = [
            write_bands(directory, names[0], keys[has], np.flatnonzero(has)),
            write_signatures(directory, names[1], signatures, has),
            write_records(directory, names[2], order_records(table, place, plan.quality)),
        ]
    parts = [vars(part) for part in finished if part]
    return {"parts": parts[:2], "scratch": parts[2], "band_bytes": parts[0]["bytes"]}


def sketches(
    table: pa.Table, kept: np.ndarray, bands: int, rows: int, ngram: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(band keys uint64[rows, bands], signatures uint8[rows, bands * rows], has one bool[rows]) of
    the rows of a text table; those outside `kept` have none."""
    keys = np.zeros((table.num_rows, bands), np.uint64)
    signatures = np.zeros((table.num_rows, bands * rows), np.uint8)
    has = np.zeros(table.num_rows, np.uint8)
    a, b = padded(*permutation_parameters(bands * rows))
    start = 0
    for batch in table.to_batches():
        stop = start + batch.num_rows
        chosen = np.flatnonzero(kept[start:stop])
        data, offsets = utf8_buffers(batch.column("text"))
        out = keys[start:stop], signatures[start:stop], has[start:stop]
        sketch_rows(data, offsets, chosen, ngram, rows, a, b, word_points(), *out)
        for row in np.flatnonzero(out[2] == ODD):
            data, offsets = lowered(batch.column("text")[int(row)].as_py())
            one = [array[row : row + 1] for array in out]
            sketch_rows(
                data, offsets, np.zeros(1, np.int64), ngram, rows, a, b, word_points(), *one
            )
        start = stop
    return keys, signatures, has > 0


def padded(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """To a multiple of four: one pass over the shingles computes four permutations."""
    fill = -len(a) % 4
    return np.append(a, a[:1].repeat(fill)), np.append(b, b[:1].repeat(fill))


@numba.njit(cache=True, nogil=True)
def sketch_rows(data, offsets, chosen, n, rows, a, b, points, keys, signatures, has):
    """Fill keys[row], signatures[row] and has[row] (0: under n words, 1, or ODD: also to be done
    again in the lower case that Python gives) of the rows in `chosen`."""
    longest = 0
    for row in chosen:
        longest = max(longest, offsets[row + 1] - offsets[row])
    words = np.empty(longest // 2 + 2, np.uint64)
    shingles = np.empty(longest // 2 + 2, np.uint64)
    values = np.empty(longest // 2 + 2, np.uint32)
    least = np.empty(a.shape[0], np.uint32)
    for row in chosen:
        count, odd = raw_words(data, offsets[row], offsets[row + 1], points, words)
        count = rolled(words, count, n, shingles)
        has[row] = 0 if count == 0 else 2 if odd else 1
        if count == 0:
            continue
        for k in range(count):
            values[k] = np.uint32(shingles[k] >> np.uint64(32))
        minima(values, count, a, b, least)
        for j in range(signatures.shape[1]):
            signatures[row, j] = np.uint8(least[j] & np.uint32(255))
        for band in range(keys.shape[1]):
            h = np.uint64(band + 1)
            for j in range(band * rows, band * rows + rows):
                h = mix(h ^ np.uint64(least[j])) + np.uint64(0x9E3779B97F4A7C15)
            keys[row, band] = h


@numba.njit(cache=True, nogil=True)
def minima(values, count, a, b, least):
    """The least value of each permutation; repeated shingles change nothing, so none is sorted out.
    Four permutations a pass: each value is loaded once for them."""
    for j in range(0, a.shape[0], 4):
        a0, a1, a2, a3 = a[j], a[j + 1], a[j + 2], a[j + 3]
        b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
        m0 = m1 = m2 = m3 = np.uint32(0xFFFFFFFF)
        for k in range(count):
            v = values[k]
            m0 = min(m0, np.uint32(v * a0 + b0))
            m1 = min(m1, np.uint32(v * a1 + b1))
            m2 = min(m2, np.uint32(v * a2 + b2))
            m3 = min(m3, np.uint32(v * a3 + b3))
        least[j], least[j + 1], least[j + 2], least[j + 3] = m0, m1, m2, m3
