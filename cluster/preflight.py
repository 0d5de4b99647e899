"""What `mutirao doctor` checks on this machine: one list of small functions.

In: the workdir. Out: a verdict per check, with the value found and, where needed, the cure.
Nothing heavy is imported: versions come from package metadata, so the whole list takes less than a
second. `fail` means that a run will not work on this machine; `warn` that something is missing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cluster import machine
from mutirao.core.distribution import check_one_distribution
from mutirao.core.errors import UserError
from mutirao.core.files import sha256_file

GB = 1e9
PYTHON_FIRST, PYTHON_LAST = (3, 11), (3, 13)
MIN_RAY = (2, 54)  # 2.52 and 2.54 closed holes through which a web page could run commands
FASTTEXT_WHEELS = (  # all of them write the same module `fasttext`
    "fasttext",
    "fasttext-numpy2",
    "fasttext-community",
    "fasttext-predict",
    "fasttext-wheel",
    "fasttext-numpy2-wheel",
)


@dataclass(frozen=True)
class Verdict:
    name: str
    ok: Literal["ok", "warn", "fail"]
    value: str
    cure: str = ""


def doctor(workdir: Path) -> list[Verdict]:
    """All checks in order; one that breaks itself is a warning, never a traceback."""
    verdicts = []
    for check in CHECKS:
        try:
            verdicts.append(check(workdir))
        except Exception as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            verdicts.append(Verdict(name, "warn", f"could not be checked: {error}"))
    return verdicts


def check_python(workdir: Path) -> Verdict:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = PYTHON_FIRST <= sys.version_info[:2] <= PYTHON_LAST
    cure = "" if fits else "Use Python 3.11, 3.12 or 3.13."
    return Verdict("Python", "ok" if fits else "fail", f"{version} ({sys.executable})", cure)


def check_platform(workdir: Path) -> Verdict:
    system, processor = machine.system()
    value = f"{system} {processor}"
    if (system, processor) == ("Linux", "x86_64"):
        return Verdict("platform", "ok", value)
    if (system, processor) == ("Darwin", "arm64"):
        cure = "Here: data commands, plan, report and train.engine: torch; the rest needs Linux."
        return Verdict("platform", "warn", value, cure)
    cure = "Supported: Linux on x86-64, macOS on Apple silicon; on Windows use WSL2."
    return Verdict("platform", "fail", value, cure)


def check_packages(workdir: Path) -> Verdict:
    try:
        root = check_one_distribution()
    except UserError as error:
        return Verdict("packages", "fail", f"{error.problem} ({error.where})", error.hint)
    return Verdict("packages", "ok", f"mutirao {metadata.version('mutirao')} from {root}")


def check_cpus(workdir: Path) -> Verdict:
    count = machine.usable_cpus()
    if count >= 2:
        return Verdict("CPUs", "ok", f"{count:g} usable")
    cure = "Two or more are better: with one, data stages and training workers take turns."
    return Verdict("CPUs", "warn", f"{count:g} usable", cure)


def check_memory(workdir: Path) -> Verdict:
    total, limit = machine.memory_bytes()
    usable = min(total, limit or total)
    where = "limit of the container" if usable < total else "of this machine"
    value = f"{usable / GB:.1f} GB ({where})"
    if usable >= 4 * GB:
        return Verdict("memory", "ok", value)
    return Verdict("memory", "warn", value, "The demo takes about 3 GB; give 4 GB or more.")


def check_disk(workdir: Path) -> Verdict:
    place = machine.existing_parent(workdir)
    free = shutil.disk_usage(place).free
    value = f"{free / GB:.1f} GB free for {workdir}"
    if not os.access(place, os.W_OK):
        return Verdict("workdir", "fail", f"no permission to write {place}", "Choose --workdir.")
    if free < 1 * GB:
        cure = "Free space (`mutirao store gc`) or choose another --workdir."
        return Verdict("workdir", "fail", value, cure)
    cure = "" if free >= 10 * GB else "Enough for the demo; a corpus needs about 3 times its size."
    return Verdict("workdir", "ok" if not cure else "warn", value, cure)


def check_temporary(workdir: Path) -> Verdict:
    """Ray refuses new objects where its temporary disk is over 95 % full."""
    place = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    usage = shutil.disk_usage(machine.existing_parent(place))
    share = 1 - usage.free / usage.total
    value = f"{place} {share:.0%} full, {usage.free / GB:.1f} GB free"
    if share < 0.95:
        return Verdict("Ray's disk", "ok", value)
    cure = "Ray stops taking data at 95 %: free space or set RAY_TMPDIR to another disk."
    return Verdict("Ray's disk", "fail", value, cure)


def check_shared_memory(workdir: Path) -> Verdict:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Verdict("/dev/shm", "ok", "not used on this platform")
    size = shutil.disk_usage(place).total
    if size >= 0.6 * GB:
        return Verdict("/dev/shm", "ok", f"{size / GB:.1f} GB")
    cure = "Ray falls back to the disk, slowly: docker run --shm-size=1g, or a larger emptyDir."
    return Verdict("/dev/shm", "warn", f"{size / GB:.2f} GB", cure)


def check_ray(workdir: Path) -> Verdict:
    version = machine.version("ray")
    if version is None:
        return Verdict("Ray", "fail", "not installed", "Install mutirao again with pip.")
    mode = os.environ.get("RAY_AUTH_MODE", "")
    value = f"{version}, RAY_AUTH_MODE {mode or 'not set'}"
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_RAY:
        return Verdict("Ray", "fail", value, "pip install --upgrade 'ray[data,train,default]'")
    if not mode and (Path.home() / ".ray" / "auth_token").exists():
        cure = "`ray start` uses ~/.ray/auth_token: export RAY_AUTH_MODE=token to submit to it."
        return Verdict("Ray", "warn", value, cure)
    return Verdict("Ray", "ok", value)


def check_torch(workdir: Path) -> Verdict:
    version, gpus = machine.version("torch"), machine.gpus()
    if version is None:
        return Verdict("PyTorch", "fail", "not installed", "Install mutirao again with pip.")
    value = f"{version}, {', '.join(gpus) if gpus else 'no NVIDIA GPU'}"
    if gpus and version.endswith("+cpu"):
        return Verdict("PyTorch", "warn", value, "The CPU build: install torch with CUDA.")
    return Verdict("PyTorch", "ok", value)


def check_deepspeed(workdir: Path) -> Verdict:
    version = machine.version("deepspeed")
    if version is None or find_spec("deepspeed") is None:
        cure = "Recipes need train.engine: torch (--set train.engine=torch)."
        return Verdict("DeepSpeed", "warn", "not installed", cure)
    if machine.gpus() or machine.built_extensions():
        return Verdict("DeepSpeed", "ok", version)
    value = f"{version}, communication extension not built"
    if machine.compiler() is None:
        cure = "Install g++, or use --set train.engine=torch."
        return Verdict("DeepSpeed", "fail", f"{value}, no g++", cure)
    cure = "The first training builds it (about a minute): python -m train_jobs.build_extensions"
    return Verdict("DeepSpeed", "warn", value, cure)


def check_compiler(workdir: Path) -> Verdict:
    compiler = machine.compiler()
    if compiler:
        return Verdict("C++ compiler", "ok", compiler)
    cure = "Needed once, to build DeepSpeed's extensions (apt install g++)."
    return Verdict("C++ compiler", "warn", "none", cure)


def check_fasttext(workdir: Path) -> Verdict:
    found = [name for name in FASTTEXT_WHEELS if machine.version(name)]
    if len(found) == 1:
        return Verdict("fastText", "ok", f"{found[0]} {machine.version(found[0])}")
    if not found:
        cure = "pip install fasttext-numpy2"
        return Verdict("fastText", "fail", "not installed", cure)
    cure = (
        f"They overwrite one another: pip uninstall {' '.join(found)}; pip install fasttext-numpy2"
    )
    return Verdict("fastText", "fail", " and ".join(found), cure)


def check_language_model(workdir: Path) -> Verdict:
    path = Path(str(resources.files("mutirao") / "assets" / "lid.ftz"))
    if not path.is_file():
        cure = "Install mutirao again, or set langid.model to a fastText model."
        return Verdict("LID model", "fail", f"{path} is missing", cure)
    value = f"{path.stat().st_size / 1e6:.1f} MB, sha256 {sha256_file(path)[:12]}"
    return Verdict("LID model", "ok", value)


def check_energy(workdir: Path) -> Verdict:
    meters = []
    if machine.gpus():
        meters.append("GPU: NVML, measured")
    rapl = machine.rapl()
    if rapl == "readable":
        meters.append("CPU: RAPL, measured")
        return Verdict("energy", "ok", "; ".join(meters))
    meters.append("CPU: codecarbon, estimated")
    if rapl == "hidden":
        cure = f"Measured after: sudo chmod a+r {machine.RAPL}/intel-rapl:*/energy_uj"
        return Verdict("energy", "warn", "; ".join(meters), cure)
    cure = "No counter here; set energy.cpu_watts if you know the power of the CPU."
    return Verdict("energy", "warn", "; ".join(meters), cure)


def check_clock(workdir: Path) -> Verdict:
    """Leases between machines compare times: a clock off by seconds takes work from its owner."""
    now = time.time()
    value = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if time.gmtime(now).tm_year < 2026:
        return Verdict("clock", "fail", value, "Set the clock (timedatectl set-ntp true).")
    skew = machine.clock_skew_s(machine.existing_parent(workdir))
    if skew is not None and abs(skew) > 5:
        cure = "The workdir's file server has another time: synchronise both (NTP)."
        return Verdict("clock", "warn", f"{value}, {skew:+.0f} s to the workdir's disk", cure)
    return Verdict("clock", "ok", value)


def check_proxies(workdir: Path) -> Verdict:
    """Names only: a proxy's address may hold a password."""
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    found = [n for n in (*names, *map(str.upper, names)) if os.environ.get(n)]
    if not found:
        return Verdict("proxies", "ok", "none set")
    bypass = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" in bypass or bypass.strip() == "*":
        return Verdict("proxies", "ok", f"{', '.join(found)}; loopback goes direct")
    cure = "Ray on this machine may go through it: export no_proxy=127.0.0.1,localhost"
    return Verdict("proxies", "warn", ", ".join(found), cure)


CHECKS: tuple[Callable[[Path], Verdict], ...] = (
    check_python,
    check_platform,
    check_packages,
    check_cpus,
    check_memory,
    check_disk,
    check_temporary,
    check_shared_memory,
    check_ray,
    check_torch,
    check_deepspeed,
    check_compiler,
    check_fasttext,
    check_language_model,
    check_energy,
    check_clock,
    check_proxies,
)
