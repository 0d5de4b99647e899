"""What made a result, for its provenance: the machine and versions of libraries (not hashed)."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

RECORDED = ("torch", "ray", "deepspeed", "transformers", "pyarrow", "tokenizers", "numpy")


@cache
def hardware() -> str:
    """Such as '2 cores of AMD EPYC 9B14, 23 GiB, no GPU'."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    memory_gib = psutil.virtual_memory().total / 2**30
    name = f" of {model.group(1).strip()}" if model else ""
    cards = f"{gpus} NVIDIA GPUs" if gpus else "no GPU"
    return f"{len(os.sched_getaffinity(0))} cores{name}, {memory_gib:.0f} GiB, {cards}"


@cache  # 0.1 s of parsing, and every stage asks
def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("mutirao", *RECORDED):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
