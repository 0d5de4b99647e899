"""numba for our kernels, without what other installed packages add to it.

At the first kernel of a process numba imports every installed package that registers an extension.
`awkward`, which comes along with the fast tokenizer and which nothing here uses, takes 1 to 2.6
CPU-seconds of each worker that way. numba has no switch for it, so its note that the extensions
are loaded already is set; a version without this note loads them as before.
"""

from __future__ import annotations

import numba
from numba.core import entrypoints

entrypoints._already_initialized = True

__all__ = ["numba"]
