"""From the sources of a recipe to a sorted list of files.

In: `recipe.sources` (a file, a folder, a glob, a list of them, here or behind `s3://`, `gs://`,
`hf://datasets/...`; or `sample://PATTERN`) and the folder that relative paths start at. Out: one
entry a file; only its content and its name inside the source enter any hash, never where it lies.
"""

from __future__ import annotations

import errno
import glob
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from data_jobs.read.datasets_folder import rows_only
from data_jobs.read.places import Place, said_of
from data_jobs.read.stores import found_at, is_url
from mutirao.core.errors import RecipeError
from mutirao.core.recipe import Recipe, Source

SAMPLE = "sample://"
COMPRESSED = (".gz", ".zst", ".bz2")
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".warc": "warc",
    ".wet": "warc",
}
PROSE = ("text", "warc", "wikipedia")  # formats without fields that could hold turns
WIKIPEDIA = "wiki"  # an .xml file with this in its name is a dump
PATH_HINT = "Correct the path; in a recipe, relative paths start at the recipe's folder."
ABOUT = {"readme", "license", "licence", "notice", "sources", "changelog"}  # not text of the corpus
ABOUT_DATASETS = {"state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}


@dataclass(frozen=True)
class SourceFile:
    source: str  # the recipe's name of the source, else the file's stem
    named: bool  # the recipe names the source; else a document's own `source` field counts
    file: str  # relative to the source's root, with forward slashes
    format: str
    place: Place
    settings: Source
    number: int  # of the source in the recipe


def resolve(recipe: Recipe, base: Path) -> tuple[list[SourceFile], dict[str, int]]:
    """All files in recipe order, sorted inside a source, and by source the count of skipped files.

    Raises RecipeError for a path that is not there, a pattern that matches nothing, an unknown
    suffix of a file named in so many words, and two files that would share a name;
    EnvironmentProblem where a store cannot be reached or refuses.
    """
    files: list[SourceFile] = []
    skipped: dict[str, int] = {}
    for number, source in enumerate(recipe.sources):
        found, left_out = _files_of(source, number, base)
        files += found
        if left_out:
            skipped[_label(source, number)] = left_out
    _must_be_unique(files)
    return files, skipped


def file_format(name: str) -> str | None:
    """The format by suffix, or None: 'a.jsonl.gz' -> 'jsonl'."""
    lowered = name.lower()
    for suffix in COMPRESSED:
        lowered = lowered.removesuffix(suffix)
    suffix = "." + lowered.rsplit(".", 1)[-1] if "." in lowered else ""
    if suffix == ".xml" and WIKIPEDIA in lowered:
        return "wikipedia"
    return FORMATS.get(suffix)


def _files_of(source: Source, number: int, base: Path) -> tuple[list[SourceFile], int]:
    label = _label(source, number)
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    files: list[SourceFile] = []
    skipped = 0
    for pattern in patterns:
        before = len(files)
        for root, url, chosen in _expand(pattern, base, label):
            place = Place(url)
            kind = _format_of(place, source, chosen, label)
            if kind is None:
                skipped += 1
                continue
            name = url[len(root) :].lstrip("/")
            stem = source.name or place.name.lstrip(".").split(".")[0] or place.name
            files.append(SourceFile(stem, bool(source.name), name, kind, place, source, number))
        if len(files) == before:
            raise _no_files(label, pattern)
    if not files:
        raise _no_files(label, "no path")
    return sorted(files, key=lambda item: item.file), skipped


def _format_of(place: Place, source: Source, chosen: bool, label: str) -> str | None:
    """None for a file that a folder or pattern brought along and that is not read."""
    kind = file_format(place.name) if source.format == "auto" else source.format
    if (kind is None or _is_about(place.name)) and not chosen:
        return None
    if kind is None:
        raise _unknown_suffix(label, place)
    if source.kind == "instruction" and kind in PROSE:
        raise _no_turns(label, place, kind)
    return kind


def _is_about(name: str) -> bool:
    return name.split(".")[0].lower() in ABOUT or name in ABOUT_DATASETS


def _expand(pattern: str, base: Path, label: str) -> list[tuple[str, str, bool]]:
    """(root, file, named in so many words) of one path, folder, glob or URL, sorted."""
    if pattern.startswith(SAMPLE):
        root = Path(str(resources.files("mutirao.sample")))
        found = sorted(p for p in root.glob(pattern.removeprefix(SAMPLE)) if p.is_file())
        return _or_nothing(_pairs(root, found, label), label, pattern)
    if is_url(pattern):
        with said_of(pattern):
            top, urls = found_at(pattern)
        chosen = urls == [pattern]
        return _or_nothing([(top, url, chosen) for url in urls], label, pattern)
    place = Path(os.path.normpath(base / Path(pattern).expanduser()))
    if place.is_dir():
        return _pairs(place, _inside(place, label), label)
    if place.exists():
        return [(str(place.parent), str(place), True)]
    if glob.has_magic(pattern):
        found = sorted(Path(p) for p in glob.glob(str(place), recursive=True))
        return _or_nothing(_pairs(_glob_root(place), found, label), label, pattern)
    if place.is_symlink():
        raise _dead_link(label, place)
    raise RecipeError(
        f"Source {label}: no such file or folder",
        str(place),
        PATH_HINT,
        "no-source",
    )


def _inside(folder: Path, label: str) -> list[Path]:
    """The files of a folder, whatever their depth; of a saved dataset those that hold its rows.

    Hidden files and folders are left out (.git, .cache); linked folders are entered once.
    """

    def refused(error: OSError) -> None:
        raise unreadable(label, str(error.filename), error) from error

    found: list[Path] = []
    entered: set[str] = set()
    for here, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        real = os.path.realpath(here)
        new = real not in entered
        entered.add(real)
        folders[:] = [name for name in folders if new and not name.startswith(".")]
        found += [Path(here, name) for name in names if new and not name.startswith(".")]
    return rows_only(sorted(found))


def _pairs(root: Path, paths: list[Path], label: str) -> list[tuple[str, str, bool]]:
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise _dead_link(label, path)
    return [(str(root), str(path), False) for path in paths if path.is_file()]


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
    what = "the pattern matches no file" if glob.has_magic(pattern) else "there is no such file"
    hint = PATH_HINT
    if pattern.startswith("hf://"):
        hint = "Correct the path; a private or gated dataset also needs HF_TOKEN."
    raise RecipeError(f"Source {label}: {what}", pattern, hint, "no-source")


def _label(source: Source, number: int) -> str:
    return source.name or f"{number + 1}"


def _must_be_unique(files: list[SourceFile]) -> None:
    seen: dict[tuple[str, str], SourceFile] = {}
    for item in files:
        other = seen.setdefault((item.source, item.file), item)
        if other is not item:
            raise RecipeError(
                f"Two files would have the same name {item.source}/{item.file}",
                f"{other.place.url} and {item.place.url}",
                "Give the sources different names (`name:`), or list the file once.",
                "same-name",
            )


def unreadable(label: str, path: str, error: OSError) -> RecipeError:
    return RecipeError(
        f"Source {label}: cannot read the file: {error.strerror or error}",
        path,
        "Check that the file is there and that you may read it.",
        "unreadable",
    )


def _dead_link(label: str, path: Path) -> RecipeError:
    return unreadable(label, str(path), OSError(errno.ENOENT, "the link leads nowhere"))


def _unknown_suffix(label: str, place: Place) -> RecipeError:
    problem = f"Source {label}: unknown kind of file {place.name}"
    return RecipeError(problem, place.url, _formats_hint(), "unknown-format")


def _no_files(label: str, pattern: str) -> RecipeError:
    problem, where = "The source has no file in a known format", f"source {label}, {pattern}"
    return RecipeError(problem, where, _formats_hint(), "no-files")


def _no_turns(label: str, place: Place, kind: str) -> RecipeError:
    problem = f"Source {label}: `kind: instruction` needs records with fields, not {kind}"
    hint = "Take jsonl, csv, parquet or arrow files, or leave `kind` out for running text."
    return RecipeError(problem, place.url, hint, "no-turns")


def _formats_hint() -> str:
    suffixes = " ".join(FORMATS)
    return (
        f"Known: {suffixes} and *wiki*.xml, each also with .gz, .zst or .bz2; or say `format:` in "
        "the recipe."
    )
