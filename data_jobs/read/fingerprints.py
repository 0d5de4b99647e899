"""Size and sha256 of each source file, read again only where a file has changed.

In: a recipe and the folder that relative paths start at. Out: one entry a file, for the key of
`ingest` and for the plan that `mutirao run` shows before it begins.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_jobs.read.places import Place
from data_jobs.read.sources import SourceFile, resolve, unreadable
from mutirao.core.files import CHUNK, write_json
from mutirao.core.recipe import Recipe

THREADS = 8  # files hashed at once: hashing leaves the interpreter free, and stores answer slowly


def source_fingerprints(recipe: Recipe, base: Path, cache: Path | None) -> list[dict[str, Any]]:
    """[{source, file, format, bytes, sha256, path}], a file each; `path` must not be hashed.

    With `cache` (a folder) a file is read again only if its size or time of change differs.
    """
    files, _ = resolve(recipe, base)
    store = _Cache(cache)
    with ThreadPoolExecutor(THREADS) as pool:
        entries = list(pool.map(lambda item: fingerprint(item, store), files))
    store.save()
    return entries


def fingerprint(item: SourceFile, cache: _Cache | None = None) -> dict[str, Any]:
    """Raises RecipeError if the file cannot be read, UserError of a store."""
    try:
        size, mark = item.place.status()
        stamp = f"{item.place.url}|{size}|{mark}"
        known = cache.entries.get(stamp) if cache else None
        digest = known or sha256_of(item.place)
    except OSError as error:
        raise unreadable(item.source, item.place.url, error) from error
    if cache is not None:
        cache.entries[stamp] = digest
    return {
        "source": item.source,
        "file": item.file,
        "format": item.format,
        "bytes": size,
        "sha256": digest,
        "path": item.place.url,
    }


def sha256_of(place: Place) -> str:
    """Read in chunks of 1 MiB; about 1.3 GB/s a core where the file is in memory."""
    digest = hashlib.sha256()
    with place.open() as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class _Cache:
    """{path|size|mark: sha256} in `fingerprints.json` of the cache folder."""

    def __init__(self, folder: Path | None):
        self.path = folder / "fingerprints.json" if folder else None
        self.entries: dict[str, str] = {}
        try:
            if self.path:
                self.entries = dict(json.loads(self.path.read_bytes()))
        except (OSError, ValueError):
            pass
        self._before = dict(self.entries)

    def save(self) -> None:
        if self.path and self.entries != self._before:
            write_json(self.path, self.entries)
