"""Train a fastText classifier so that the same text gives the same model, in any process.

With one thread fastText 0.9 fills only the first tenth of its input matrix (`uniformThread` takes a
tenth for each of ten threads) and leaves the rest as the allocator gave it: zeros in a fresh
process, in an older one what was there, so models differ from run to run and now and then training
ends in "Encountered NaN". Memory that is mapped anew is zero, so large blocks are always mapped;
and since glibc takes a freed block where one is large enough, freed pages are given back before.
"""

from __future__ import annotations

import ctypes
from typing import Any

M_MMAP_THRESHOLD, MAPPED_BYTES = -3, 1 << 20  # mallopt(3) of glibc; fixed, it no longer adapts


def train_supervised(text: str, seed: int, **settings: Any) -> Any:
    """The trained model; `text` is a file in fastText's format. One thread. Steady where the input
    matrix, (words + `bucket`) x `dim` x 4 bytes, is larger than MAPPED_BYTES."""
    import fasttext

    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # elsewhere than glibc large blocks are mapped as a rule
        library.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        library.malloc_trim(ctypes.c_size_t(0))
    return fasttext.train_supervised(text, thread=1, seed=seed, verbose=0, **settings)
