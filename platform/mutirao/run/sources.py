"""Fingerprints of a recipe's sources, for its run id and the key of `ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutirao.core.recipe import Recipe, Source


def fingerprints(recipe: Recipe, base: Path, cache: Path | None) -> list[dict[str, Any]]:
    """One entry a file: source, file, format, bytes, sha256 (and path, which is never hashed); the
    token files of `tokenized` are marked so, and come last.

    Raises RecipeError where a source is not there. Hashes are cached by path, size and time.
    """
    from data_jobs.read.fingerprints import source_fingerprints
    from data_jobs.token_files.files import token_fingerprints

    remember_hashes(cache)
    return source_fingerprints(recipe, base, cache) + token_fingerprints(recipe, base)


def remember_hashes(cache: Path | None) -> None:
    """From now on keep the hashes of token files in this folder: stages' keys ask for them."""
    from data_jobs.token_files import files

    if cache is not None:
        files.remember_hashes(cache)


def local_part(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with those sources alone that lie on this machine, and the URLs of the others.

    Raises RecipeError for a kind of URL that is not known.
    """
    remote = [url for source in recipe.sources for url in _urls(source)]
    local = tuple(source for source in recipe.sources if not _urls(source))
    return recipe.model_copy(update={"sources": local}), remote


def _urls(source: Source) -> list[str]:
    from data_jobs.read.sources import SAMPLE
    from data_jobs.read.stores import is_url

    paths = [source.path] if isinstance(source.path, str) else source.path
    return [path for path in paths if not path.startswith(SAMPLE) and is_url(path)]
