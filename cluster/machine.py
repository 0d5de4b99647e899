"""Facts about this machine, read from the kernel, the drivers and package metadata.

In: nothing. Out: plain values with their unit; `None` or an empty list where a fact can't be had.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
RAPL = Path("/sys/class/powercap")
UNLIMITED = 1 << 60  # cgroup v1 writes a huge number where there is no limit


def system() -> tuple[str, str]:
    """('Linux', 'x86_64') and the like; 'Linux' within WSL2."""
    processor = platform.machine()
    return platform.system(), {"AMD64": "x86_64", "aarch64": "arm64"}.get(processor, processor)


def version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def usable_cpus() -> float:
    """Logical CPUs this process may use: affinity, cut by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cpu_quota()
    return min(float(cores or 1), quota) if quota else float(cores or 1)


def memory_bytes() -> tuple[int, int | None]:
    """(memory of the machine, the container's limit or None), in bytes."""
    import psutil

    total = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _number(CGROUP / name)
        if limit is not None:
            return total, limit if limit < UNLIMITED else None
    return total, None


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows; empty without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver: pynvml has an error class for each
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def built_extensions() -> list[Path]:
    """Shared libraries that DeepSpeed has built, in this environment's folder or torch's own."""
    roots = [Path(sys.prefix) / "torch_extensions", Path.home() / ".cache" / "torch_extensions"]
    if os.environ.get("TORCH_EXTENSIONS_DIR"):
        roots = [Path(os.environ["TORCH_EXTENSIONS_DIR"])]
    return sorted(so for root in roots if root.is_dir() for so in root.rglob("*.so"))


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")


def rapl() -> str:
    """'readable', 'hidden' (only root may read the counters) or 'none'."""
    counters = list(RAPL.glob("intel-rapl:*/energy_uj"))
    if not counters:
        return "none"
    return "readable" if all(os.access(path, os.R_OK) for path in counters) else "hidden"


def clock_skew_s(directory: Path) -> float | None:
    """Seconds by which the disk's clock is ahead of ours: another machine's, if it is a file server."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".mutirao-") as probe:
            return os.stat(probe.name).st_mtime - time.time()
    except OSError:
        return None


def _cpu_quota() -> float | None:
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _number(CGROUP / "cpu" / "cpu.cfs_quota_us")
    period_us = _number(CGROUP / "cpu" / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and quota_us > 0 and period_us else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
