"""Fingerprints of a recipe's sources, for its run id and the key of `ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutirao.core.recipe import Recipe


def fingerprints(recipe: Recipe, base: Path, cache: Path | None) -> list[dict[str, Any]]:
    """One entry a file: source, file, format, bytes, sha256 (and path, which is never hashed).

    Raises RecipeError where a source is not there. Hashes are cached by path, size and time.
    """
    from data_jobs.sources import source_fingerprints

    return source_fingerprints(recipe, base, cache)
