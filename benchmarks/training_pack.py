"""A committed `pack` of made-up tokens for the programs that measure training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from mutirao.core import schemas
from mutirao.core.manifest import Manifest, commit, write_part


def make_token_pack(directory: Path, vocab_size: int, tokens: int) -> Manifest:
    """One train shard and a small held-out one, tokens drawn by Zipf's law; 4 bytes to a token."""
    random = np.random.default_rng(1)
    parts = []
    sizes = {"train": tokens, "heldout": 4096}
    for side, size in sizes.items():
        drawn = np.minimum(random.zipf(1.2, size), vocab_size - 1).astype(np.uint16)
        documents = [[0], [size], [4 * size], [0], [0]]
        files = {
            f"{side}-00000.tokens.arrow": (schemas.TOKENS_16, [drawn]),
            f"{side}-00000.documents.arrow": (schemas.DOCUMENTS, documents),
        }
        for name, (schema, columns) in files.items():
            arrays = [pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            parts.append(
                write_part(
                    directory, name, lambda s, b=batch, k=schema: schemas.write_ipc(s, k, [b])
                )
            )
    info = {
        "dtype": "uint16",
        "tokens": sizes,
        "text_bytes": {side: 4 * size for side, size in sizes.items()},
        "eos_id": 0,
        "vocab_size": vocab_size,
    }
    return commit(directory, {"parts": [asdict(p) for p in parts], "counts": {}, "info": info}, {})
