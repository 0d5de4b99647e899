"""The index of a text shard as files: band keys by key range, and signatures by row.

`bands-00000.arrow`: (key uint64, row uint32), grouped by the top PART_BITS bits of the key; the
schema's metadata says where each group begins, so that a key range is one slice of one mapped file.
`signatures-00000.arrow`: for each row of the text shard the lowest byte of each minimum (b-bit
minwise hashing: Li and Konig 2010, "b-Bit Minwise Hashing"), null where there is no signature.
Both are parts of the result: later crawls are compared with them.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs.kernels import numba
from mutirao.core.errors import DataError
from mutirao.core.manifest import Part, write_part
from mutirao.core.schemas import BANDS, read_ipc, signatures_schema, write_ipc

PART_BITS = 12
PARTS = 1 << PART_BITS
OFFSETS = b"mutirao.offsets"  # uint32[PARTS + 1], little endian, base64


def bands_name(shard: int) -> str:
    return f"bands-{shard:05d}.arrow"


def signatures_name(shard: int) -> str:
    return f"signatures-{shard:05d}.arrow"


def write_bands(directory: Path, name: str, keys: np.ndarray, rows: np.ndarray) -> Part:
    """keys: uint64[documents, bands], rows: their rows in the text shard, rising."""
    grouped, at, offsets = by_part(keys, rows.astype(np.uint32))
    metadata = {**BANDS.metadata, OFFSETS: base64.b64encode(offsets.astype("<u4").tobytes())}
    schema = BANDS.with_metadata(metadata)
    batch = pa.RecordBatch.from_arrays([pa.array(grouped), pa.array(at)], schema=schema)
    return write_part(directory, name, lambda s: write_ipc(s, schema, [batch]))


def read_bands(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys uint64, rows uint32, offsets int64[PARTS + 1]) of a band file, mapped into memory.
    Raises DataError if it is damaged."""
    table = read_ipc(Path(path), "bands")
    raw = base64.b64decode((table.schema.metadata or {}).get(OFFSETS, b""))
    offsets = np.frombuffer(raw, "<u4").astype(np.int64)
    if len(offsets) != PARTS + 1 or offsets[-1] != table.num_rows:
        raise DataError("The band file does not fit its own index", str(path), REDO)
    return table.column("key").to_numpy(), table.column("row").to_numpy(), offsets


REDO = "Run `mutirao store verify`, then the same command with --redo."


@numba.njit(cache=True, nogil=True)
def by_part(keys, rows):
    """(keys, rows, offsets) grouped by the top bits of the key, in row order inside a group."""
    shift = np.uint64(64 - PART_BITS)
    offsets = np.zeros(PARTS + 1, np.int64)
    for k in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            offsets[np.int64(keys[k, band] >> shift) + 1] += 1
    for k in range(PARTS):
        offsets[k + 1] += offsets[k]
    at = offsets.copy()
    out = np.empty(keys.size, np.uint64)
    out_rows = np.empty(keys.size, np.uint32)
    for k in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            part = np.int64(keys[k, band] >> shift)
            out[at[part]] = keys[k, band]
            out_rows[at[part]] = rows[k]
            at[part] += 1
    return out, out_rows, offsets


def write_signatures(directory: Path, name: str, signatures: np.ndarray, has: np.ndarray) -> Part:
    """signatures: uint8[rows, permutations]; rows where `has` is False are null."""
    schema = signatures_schema(signatures.shape[1])
    validity = pa.py_buffer(np.packbits(has, bitorder="little").tobytes())
    buffers = [validity, pa.py_buffer(np.ascontiguousarray(signatures))]
    column = pa.Array.from_buffers(schema.field(0).type, len(has), buffers)
    batch = pa.RecordBatch.from_arrays([column], schema=schema)
    return write_part(directory, name, lambda s: write_ipc(s, schema, [batch]))


def read_signatures(path: str | Path) -> np.ndarray:
    """uint8[rows, permutations], mapped into memory; rows without a signature are zeros."""
    column = read_ipc(Path(path), "signatures").column("signature")
    width = column.type.byte_width
    if len(column) == 0:
        return np.zeros((0, width), np.uint8)
    array = column.chunk(0)
    data = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width :]
    return data[: len(array) * width].reshape(len(array), width)
