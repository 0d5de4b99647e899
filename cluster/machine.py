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
PROC_CGROUP = Path("/proc/self/cgroup")
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
    limits = [_number(folder / "memory.max") for folder in _cgroups()]
    limits.append(_number(CGROUP / "memory" / "memory.limit_in_bytes"))
    known = [limit for limit in limits if limit is not None and limit < UNLIMITED]
    return total, min(known, default=None)


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
    """Seconds by which the disk's clock (of another machine, perhaps) is ahead of ours."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".mutirao-") as probe:
            return os.stat(probe.name).st_mtime - time.time()
    except OSError:
        return None


def _cgroups() -> list[Path]:
    """The v2 cgroups of this process up to the root: Slurm and systemd set limits on any."""
    try:
        entry = next(line for line in PROC_CGROUP.read_text().splitlines() if line[:3] == "0::")
    except (OSError, StopIteration):
        return [CGROUP]
    folder = CGROUP / entry[3:].lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(CGROUP))]


def _cpu_quota() -> float | None:
    """CPUs' worth of time that the tightest cgroup allows, None without a limit."""
    pairs = []
    for folder in _cgroups():
        try:
            pairs.append((folder / "cpu.max").read_text().split())
        except OSError:
            continue
    v1 = CGROUP / "cpu"
    pairs.append([str(_number(v1 / f"cpu.cfs_{name}_us")) for name in ("quota", "period")])
    numbers = [(int(q), int(p)) for q, p in pairs if q.isdigit() and p.isdigit() and int(p) > 0]
    return min((quota / period for quota, period in numbers), default=None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
