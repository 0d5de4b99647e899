"""From `recipe.tokenized` to a list of files, and their content hashes.

In: the recipe and the folder that relative paths start at. Out: one entry a file, in recipe order,
sorted inside a stream; of a Megatron pair the .bin. Only the content and the name inside the stream
enter a hash, never where a file lies. Memory: 200 bytes a file.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_jobs.token_files.hashes import FileHashes
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.identity import stream_names
from mutirao.core.recipe import Recipe, Tokenized

FORMATS = {".parquet": "parquet", ".npy": "npy", ".bin": "megatron", ".idx": "megatron"}
HINT = "Correct the path; in a recipe, relative paths start at the recipe's folder."


@dataclass(frozen=True)
class TokenFile:
    stream: int  # its number in `stream_names`
    name: str  # of the file inside the stream
    path: Path
    format: str
    settings: Tokenized

    @property
    def index(self) -> Path:
        """The .idx of a Megatron pair."""
        return self.path.with_suffix(".idx")

    @property
    def paths(self) -> list[Path]:
        return [self.path, self.index] if self.format == "megatron" else [self.path]


def token_files(recipe: Recipe, base: Path) -> list[TokenFile]:
    """Raises RecipeError for a file that is not there, cannot be read, or is of another kind."""
    return [
        file
        for number, settings in enumerate(recipe.tokenized, len(recipe.sources))
        for file in _files_of(settings, number, base, stream_names(recipe)[number])
    ]


def token_file_hashes(recipe: Recipe, base: Path) -> dict[str, str]:
    """{"tokens of STREAM": sha256 over the contents of its files, in their order}."""
    listed: dict[str, list[list[str]]] = {}
    for entry in token_fingerprints(recipe, base):
        row = [Path(entry["file"]).suffix, entry["sha256"]]
        listed.setdefault(f"tokens of {entry['source']}", []).append(row)
    return {name: sha256_hex(canonical_json(rows)) for name, rows in listed.items()}


def token_fingerprints(recipe: Recipe, base: Path) -> list[dict[str, Any]]:
    """[{source, file, format, bytes, sha256, path, tokenized: True}], an entry a file."""
    names = stream_names(recipe)
    files = [(file, path) for file in token_files(recipe, base) for path in file.paths]
    hashes = _hashes().of([path for _, path in files])
    return [
        {
            "source": names[file.stream],
            "file": path.name,
            "format": file.format,
            "bytes": path.stat().st_size,
            "sha256": digest,
            "path": str(path),
            "tokenized": True,
        }
        for (file, path), digest in zip(files, hashes, strict=True)
    ]


def remember_hashes(folder: Path) -> None:
    """Keep the hashes of token files in this cache folder: they may be terabytes."""
    _hashes().open(folder)


@cache
def _hashes() -> FileHashes:
    """Those that this process knows: a stage's key asks for them several times."""
    return FileHashes()


def _files_of(settings: Tokenized, stream: int, base: Path, label: str) -> Iterator[TokenFile]:
    patterns = (settings.path,) if isinstance(settings.path, str) else settings.path
    for pattern in patterns:
        found = 0
        for path, chosen in _expand(pattern, base, label):
            kind = settings.format if settings.format != "auto" else FORMATS.get(path.suffix)
            if kind is None and not chosen:
                continue
            if kind is None:
                raise _unknown(label, path)
            if kind == "megatron":
                if path.suffix == ".idx" and not chosen:
                    continue  # its .bin is in the list, or missing and then there is no data
                path = path.with_suffix(".bin")
            file = TokenFile(stream, path.name, path, kind, settings)
            _must_be_there(file, label)
            found += 1
            yield file
        if not found:
            raise RecipeError(
                f"Tokens {label}: no file with ids",
                pattern,
                "Known: .parquet, .npy, and Megatron's .bin with its .idx; or say `format:`.",
                "no-files",
            )


def _expand(pattern: str, base: Path, label: str) -> list[tuple[Path, bool]]:
    """(file, named in so many words) of a path, folder, glob, or the common name of a pair."""
    if "://" in pattern:
        hint = "Copy the files to a disk that all workers can read, and name them there."
        raise RecipeError(f"Tokens {label}: only files of this machine", pattern, hint, "no-source")
    place = Path(os.path.normpath(base / Path(pattern).expanduser()))
    if place.is_dir():
        inside = [path for path in sorted(place.rglob("*")) if path.is_file()]
        return [(path, False) for path in inside if not path.name.startswith(".")]
    pair = place.with_name(f"{place.name}.bin")
    if place.exists() or pair.exists():
        return [(place if place.exists() else pair, True)]
    found = [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
    if not found:
        what = "the pattern matches no file" if glob.has_magic(pattern) else "no such file"
        raise RecipeError(f"Tokens {label}: {what}", str(place), HINT, "no-source")
    return [(path, False) for path in found if path.is_file()]


def _must_be_there(file: TokenFile, label: str) -> None:
    for path in file.paths:
        if not path.is_file():
            missing = "the index beside the .bin is missing" if path == file.index else "no file"
            hint = "A Megatron pair is NAME.bin with NAME.idx; a bare .bin says nothing of its ids."
            raise RecipeError(f"Tokens {label}: {missing}", str(path), hint, "no-source")
        if not os.access(path, os.R_OK):
            raise RecipeError(f"Tokens {label}: the file may not be read", str(path), HINT)


def _unknown(label: str, path: Path) -> RecipeError:
    return RecipeError(
        f"Tokens {label}: unknown kind of file {path.name}",
        str(path),
        "Known: .parquet, .npy, and Megatron's .bin with its .idx; or say `format:`.",
        "unknown-format",
    )
