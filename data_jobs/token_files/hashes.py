"""sha256 of token files, read again only where a file has changed.

Kept in this process, and in a cache folder once one is named: a stage's key asks for the hashes
several times, and the files may be terabytes. About 1.3 GB/s a core, 1 MiB of memory.
"""

from __future__ import annotations

import json
from pathlib import Path

from mutirao.core.files import sha256_file, write_json

NAME = "token_fingerprints.json"


class FileHashes:
    """{path|size|time of change: sha256}."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._file: Path | None = None

    def open(self, folder: Path) -> None:
        """Use what the folder remembers, and keep there what is new."""
        self._file = folder / NAME
        try:
            self._known |= dict(json.loads(self._file.read_bytes()))
        except (OSError, ValueError):
            pass

    def of(self, paths: list[Path]) -> list[str]:
        """Raises OSError for a file that cannot be read."""
        stamps = [f"{p}|{p.stat().st_size}|{p.stat().st_mtime_ns}" for p in paths]
        new = [(s, p) for s, p in zip(stamps, paths, strict=True) if s not in self._known]
        for stamp, path in new:
            self._known[stamp] = sha256_file(path)
        if new and self._file:
            write_json(self._file, self._known)
        return [self._known[stamp] for stamp in stamps]
