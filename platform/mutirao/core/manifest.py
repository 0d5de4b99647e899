"""A manifest says what a finished stage wrote. It is written last, so its presence is the commit.

In: the directory of an artefact (`store/<stage>/<key>/`), its parts and counts.
Out: `manifest.json` with a content part (hashed: the same input and config give the same bytes,
whatever the number of workers, kills and retries) and a provenance part (host, times, versions).
Readers open only what a manifest names and never list a directory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mutirao.core.errors import DataError, UserError
from mutirao.core.files import (
    canonical_json,
    read_json,
    sha256_file,
    sha256_hex,
    write_atomic,
    write_json,
)

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Part:
    """One immutable file of an artefact. `path` is relative to the artefact; `info` is per-part
    content that is hashed with it (counts, ranges); `bytes` and `rows` are of this file."""

    path: str
    rows: int
    bytes: int
    sha256: str
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    directory: Path
    content: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def content_hash(self) -> str:
        return content_hash(self.content)

    @property
    def parts(self) -> list[Part]:
        return [Part(**part) for part in self.content["parts"]]

    @property
    def counts(self) -> dict[str, Any]:
        return self.content.get("counts", {})

    @property
    def redacted(self) -> dict[str, dict[str, Any]]:
        """{part: {bytes, sha256}} of parts from which documents were taken out afterwards
        (`mutirao data forget`). The content part keeps what the stage wrote: it is the identity,
        and nothing that was made from it runs again."""
        return self.provenance.get("redacted", {})

    def paths(self, prefix: str = "") -> list[Path]:
        """Absolute paths of the parts whose name starts with `prefix`, in manifest order."""
        return [self.directory / p.path for p in self.parts if p.path.startswith(prefix)]


def content_hash(content: dict[str, Any]) -> str:
    return sha256_hex(canonical_json(content))


def commit(directory: Path, content: dict[str, Any], provenance: dict[str, Any]) -> Manifest:
    """Write the manifest by one rename; from then on the artefact exists for every reader."""
    record = {
        "format": FORMAT,
        "kind": "manifest",
        "content": content,
        "content_hash": content_hash(content),
        "provenance": provenance,
    }
    write_json(directory / MANIFEST, record)
    return Manifest(directory, content, provenance)


def read_manifest(directory: Path) -> Manifest | None:
    """The committed manifest, or None if the stage has not finished.

    Raises UserError for a newer format, DataError if the content does not match its own hash.
    """
    path = directory / MANIFEST
    try:
        record = read_json(path)
    except FileNotFoundError:
        return None
    check_format(record, FORMAT, path)
    if content_hash(record["content"]) != record["content_hash"]:
        raise DataError(
            "The manifest does not match its hash", str(path), f"Remove {directory} and run again."
        )
    return Manifest(directory, record["content"], record["provenance"])


def check_format(record: dict[str, Any], newest: int, path: Path | str) -> None:
    """Readers accept `newest` and the one before it; anything newer names the cure."""
    number = record.get("format")
    if not isinstance(number, int) or number < newest - 1 or number < 1:
        raise UserError(f"Unknown format {number!r}", str(path), code="bad-format")
    if number > newest:
        raise UserError(
            f"Written by a newer mutirao (format {number}, this version reads up to {newest})",
            str(path),
            "Upgrade mutirao: pip install --upgrade mutirao",
            "newer-format",
        )


def write_part(
    directory: Path,
    name: str,
    write: Callable[[BinaryIO], int],
    info: dict[str, Any] | None = None,
) -> Part:
    """Write one file atomically, then its sidecar `<name>.part.json`, which lets a restarted stage
    skip it. `write` gets a binary stream and returns the number of rows."""
    path = directory / name
    rows = 0

    def writer(stream: BinaryIO) -> None:
        nonlocal rows
        rows = write(stream)

    write_atomic(path, writer)
    part = Part(name, rows, path.stat().st_size, sha256_file(path), info or {})
    write_json(directory / f"{name}.part.json", asdict(part))
    return part


def redact(directory: Path, names: list[str]) -> None:
    """Note the present bytes of parts that were rewritten in place, so that `verify` and
    `finished_part` accept them. The content part and its hash stay as they are."""
    manifest = read_manifest(directory)
    assert manifest is not None, "only committed results are rewritten"
    rewritten = dict(manifest.redacted)
    for name in names:
        path = directory / name
        now = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        rewritten[name] = now
        sidecar = directory / f"{name}.part.json"
        if sidecar.exists():
            write_json(sidecar, {**read_json(sidecar), **now})
    commit(directory, manifest.content, {**manifest.provenance, "redacted": rewritten})


def finished_part(directory: Path, name: str) -> Part | None:
    """The part if an earlier attempt finished it and its bytes still match, else None."""
    try:
        part = Part(**json.loads((directory / f"{name}.part.json").read_bytes()))
        path = directory / name
        if path.stat().st_size == part.bytes and sha256_file(path) == part.sha256:
            return part
    except (OSError, ValueError, TypeError):
        pass
    return None


def verify(manifest: Manifest) -> list[str]:
    """Check every part's size and hash; returns one line per problem (empty: all is well)."""
    problems = []
    for part in manifest.parts:
        path = manifest.directory / part.path
        now = manifest.redacted.get(part.path, {"bytes": part.bytes, "sha256": part.sha256})
        if not path.exists():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != now["bytes"]:
            problems.append(f"{path}: {path.stat().st_size} bytes, manifest says {now['bytes']}")
        elif sha256_file(path) != now["sha256"]:
            problems.append(f"{path}: content does not match its hash")
    return problems
