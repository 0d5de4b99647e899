"""The code that a job runs: one wheel of the four packages, made from what is running here.

In: nothing but the running code. Out: a wheel with the same bytes for the same code. In a source
tree hatchling builds it (no network, no isolated environment); an installed mutirao is packed again
from the RECORD of its wheel. `unpack` is what a job is given: Ray can take wheels itself, but it
runs `pip install --target`, which fetches every dependency (PyTorch included) on every node, and it
knows a wheel by its file name alone, so changed code of the same version would not arrive.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from mutirao.core.distribution import PACKAGES, check_one_distribution, is_source_tree
from mutirao.core.errors import EnvironmentProblem, UserError

MAX_BYTES = 50 * 2**20  # some job servers refuse bodies above 100 MiB, and say so only afterwards
LARGEST_SHOWN = 10
TIMESTAMP = (2020, 2, 2, 0, 0, 0)  # hatchling's own constant: content alone decides the bytes
INSTALLERS_OWN = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")

__all__ = ["MAX_BYTES", "build_wheel", "check_one_distribution", "check_size", "unpack"]


def build_wheel(directory: Path) -> Path:
    """Write the wheel of the running code into `directory`.

    Raises EnvironmentProblem if the packages are not from one distribution.
    """
    root = check_one_distribution()
    if is_source_tree(root):
        return _build_from_source(root, directory)
    return _repack(_distribution_at(root), directory)


def unpack(wheel: Path, directory: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)


def check_size(directory: Path, limit: int = MAX_BYTES) -> int:
    """Bytes of all files below `directory`, which is what Ray uploads (it does not compress).

    Raises UserError with the largest files if they exceed `limit`.
    """
    files = [(p.stat().st_size, p) for p in sorted(directory.rglob("*")) if p.is_file()]
    total = sum(size for size, _ in files)
    if total > limit:
        rows = sorted(files, key=lambda row: (-row[0], row[1]))[:LARGEST_SHOWN]
        table = "\n".join(f"  {size:>13,}  {p.relative_to(directory)}" for size, p in rows)
        raise UserError(
            f"The package has {total:,} bytes, the limit is {limit:,}",
            hint=f"Keep data out of it. The largest files, in bytes:\n{table}",
            code="package-too-large",
        )
    return total


def _build_from_source(root: Path, directory: Path) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    built = list(WheelBuilder(str(root)).build(directory=str(directory), versions=["standard"]))
    return Path(built[-1])


def _distribution_at(root: Path) -> metadata.Distribution:
    """The installed distribution whose files stand in `root`, even if another is found first."""
    for distribution in metadata.distributions(name="mutirao", path=[str(root)]):
        if distribution.files:
            return distribution
    raise EnvironmentProblem(
        "mutirao was not installed from a wheel, so it cannot be packed for the cluster",
        str(root),
        "Install it with pip (pip install mutirao), or run from a source tree.",
        "no-distribution",
    )


def _repack(distribution: metadata.Distribution, directory: Path) -> Path:
    """Zip what the wheel had installed, in the order of names, with a RECORD of our own."""
    info = f"mutirao-{distribution.version}.dist-info"
    wheel = directory / f"mutirao-{distribution.version}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _shipped(distribution.files or (), info):
            data = Path(str(distribution.locate_file(name))).read_bytes()
            _add(archive, name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
        _add(archive, f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]).encode())
    return wheel


def _shipped(files: Iterable[metadata.PackagePath], info: str) -> list[str]:
    names = []
    for path in files:
        top = path.parts[0]
        if path.suffix == ".pyc" or (top == info and path.name in INSTALLERS_OWN):
            continue
        if top == info or top in PACKAGES:
            names.append(path.as_posix())
    return sorted(names)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, TIMESTAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data)
