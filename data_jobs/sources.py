"""From the sources of a recipe to a sorted list of files with their fingerprints.

In: `recipe.sources` (a file, a folder, a glob, a list of them, or `sample://PATTERN`) and the
folder that relative paths start at. Out: one entry a file; only its content and its name inside the
source enter any hash, never where it lies.
"""

from __future__ import annotations

import glob
import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError
from mutirao.core.files import sha256_file, write_json
from mutirao.core.recipe import Recipe, Source

SAMPLE = "sample://"
COMPRESSED = (".gz", ".zst")
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".warc": "warc",
    ".wet": "warc",
}
ABOUT = {"readme", "license", "licence", "notice", "sources", "changelog"}  # not text of the corpus


@dataclass(frozen=True)
class SourceFile:
    source: str  # the recipe's name of the source, else the file's stem
    named: bool  # the recipe names the source; else a document's own `source` field counts
    file: str  # relative to the source's root, with forward slashes
    format: str
    path: Path
    settings: Source


def resolve(recipe: Recipe, base: Path) -> tuple[list[SourceFile], dict[str, int]]:
    """All files in recipe order, sorted inside a source, and by source the count of skipped files.

    Raises RecipeError for a path that is not there, a pattern that matches nothing, an unknown
    suffix of a file named in so many words, and two files that would share a name.
    """
    files: list[SourceFile] = []
    skipped: dict[str, int] = {}
    for number, source in enumerate(recipe.sources):
        found, left_out = _files_of(source, base, _label(source, number))
        files += found
        if left_out:
            skipped[_label(source, number)] = left_out
    _must_be_unique(files)
    return files, skipped


def source_fingerprints(recipe: Recipe, base: Path, cache: Path | None) -> list[dict[str, Any]]:
    """[{source, file, format, bytes, sha256, path}], a file each; `path` must not be hashed.

    With `cache` (a folder) a file is read again only if its size or time of change differs.
    """
    files, _ = resolve(recipe, base)
    store = _Cache(cache)
    entries = [fingerprint(item, store) for item in files]
    store.save()
    return entries


def fingerprint(item: SourceFile, cache: _Cache | None = None) -> dict[str, Any]:
    """Raises RecipeError if the file cannot be read."""
    try:
        status = item.path.stat()
        stamp = f"{item.path}|{status.st_size}|{status.st_mtime_ns}"
        known = cache.entries.get(stamp) if cache else None
        digest = known or sha256_file(item.path)
    except OSError as error:
        raise _unreadable(item.source, item.path, error) from error
    if cache is not None:
        cache.entries[stamp] = digest
    return {
        "source": item.source,
        "file": item.file,
        "format": item.format,
        "bytes": status.st_size,
        "sha256": digest,
        "path": str(item.path),
    }


class _Cache:
    """{path|size|mtime: sha256} in `fingerprints.json` of the cache folder."""

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


def file_format(name: str) -> str | None:
    """The format by suffix, or None: 'a.jsonl.gz' -> 'jsonl'."""
    lowered = name.lower()
    for suffix in COMPRESSED:
        lowered = lowered.removesuffix(suffix)
    return FORMATS.get("." + lowered.rsplit(".", 1)[-1] if "." in lowered else "")


def _files_of(source: Source, base: Path, label: str) -> tuple[list[SourceFile], int]:
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    files, skipped = [], 0
    for pattern in patterns:
        for root, path, chosen in _expand(pattern, base, label):
            kind = file_format(path.name) if source.format == "auto" else source.format
            about = path.name.split(".")[0].lower() in ABOUT
            if (kind is None or about) and not chosen:
                skipped += 1
                continue
            if kind is None:
                raise _unknown_suffix(label, path)
            name = path.relative_to(root).as_posix()
            stem = source.name or path.name.lstrip(".").split(".")[0] or path.name
            files.append(SourceFile(stem, bool(source.name), name, kind, path, source))
    if not files:
        where = f"source {label}, {patterns[0] if patterns else 'no path'}"
        raise RecipeError(
            "The source has no file in a known format", where, _formats_hint(), "no-files"
        )
    return sorted(files, key=lambda item: item.file), skipped


def _expand(pattern: str, base: Path, label: str) -> list[tuple[Path, Path, bool]]:
    """(root, file, named in so many words) of one path, folder or glob, sorted."""
    if pattern.startswith(SAMPLE):
        root = Path(str(resources.files("mutirao.sample")))
        found = sorted(p for p in root.glob(pattern.removeprefix(SAMPLE)) if p.is_file())
        return _or_nothing([(root, path, False) for path in found], label, pattern)
    place = Path(os.path.normpath(base / Path(pattern).expanduser()))
    if place.is_dir():
        inside = sorted(p for p in place.rglob("*") if p.is_file() and not p.name.startswith("."))
        return [(place, path, False) for path in inside]
    if place.exists():
        return [(place.parent, place, True)]
    if glob.has_magic(pattern):
        found = sorted(Path(p) for p in glob.glob(str(place), recursive=True))
        root = _glob_root(place)
        matches = [(root, path, False) for path in found if path.is_file()]
        return _or_nothing(matches, label, pattern)
    if place.is_symlink():
        raise _unreadable(label, place, OSError(0, "the link leads nowhere"))
    raise RecipeError(
        f"Source {label}: no such file or folder",
        str(place),
        "Correct `path` in the recipe; relative paths start at the recipe's folder.",
        "no-source",
    )


def _glob_root(place: Path) -> Path:
    """The deepest folder before the first wildcard."""
    root = Path(place.anchor)
    for part in place.parts[1 if place.anchor else 0 : -1]:
        if glob.has_magic(part):
            break
        root /= part
    return root


def _or_nothing(matches: list, label: str, pattern: str) -> list:
    if matches:
        return matches
    raise RecipeError(
        f"Source {label}: the pattern matches no file",
        pattern,
        "Correct `path` in the recipe; relative paths start at the recipe's folder.",
        "no-source",
    )


def _label(source: Source, number: int) -> str:
    return source.name or f"{number + 1}"


def _must_be_unique(files: list[SourceFile]) -> None:
    seen: dict[tuple[str, str], SourceFile] = {}
    for item in files:
        other = seen.setdefault((item.source, item.file), item)
        if other is not item:
            raise RecipeError(
                f"Two files would have the same name {item.source}/{item.file}",
                f"{other.path} and {item.path}",
                "Give the sources different names (`name:`), or list the file once.",
                "same-name",
            )


def _unreadable(label: str, path: Path, error: OSError) -> RecipeError:
    return RecipeError(
        f"Source {label}: cannot read the file: {error.strerror or error}",
        str(path),
        "Check that the file is there and that you may read it.",
        "unreadable",
    )


def _unknown_suffix(label: str, path: Path) -> RecipeError:
    problem = f"Source {label}: unknown kind of file {path.name}"
    return RecipeError(problem, str(path), _formats_hint(), "unknown-format")


def _formats_hint() -> str:
    suffixes = " ".join(FORMATS)
    return f"Known: {suffixes}, each also with .gz or .zst; or say `format:` in the recipe."
