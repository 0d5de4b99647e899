"""Reference text for language packs: files of any format in, cleaned texts by source out.

Goes through the stages `ingest` and `clean` themselves, in a temporary folder and this process, so
a pack is derived from what the filter will see. Memory: all reference text at once (a language
needs some ten megabytes of it, not a corpus).
"""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from data_jobs import clean, ingest
from data_jobs.shards import text_paths
from mutirao.core.errors import DataError
from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest, commit
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

Where = dict[str, str]


@dataclass
class Reference:
    """The texts of one source, with the documents' names and licences."""

    source: str
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    genres: list[str] = field(default_factory=list)
    licenses: Counter[str] = field(default_factory=Counter)

    @property
    def text_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)


def read_reference(
    language: str,
    inputs: Iterable[str],
    where: Where | None = None,
    pack: str = "",
    say: Callable[[str], None] | None = None,
) -> list[Reference]:
    """The cleaned documents by source (a document's own `source` field, else the file's name).

    where: fields that a document must have, such as {'lang': 'glg'}. say: is told of what could not
    be read. Raises RecipeError for inputs
    that are not there, DataError where no document is left.
    """
    recipe = Recipe(
        language=language,
        language_pack=str(Path(pack).absolute()) if pack else "",
        sources=[{"path": str(Path.cwd() / entry) if "://" not in entry else entry}
                 for entry in inputs],
        ingest={"max_quarantined": 1.0},
    )  # fmt: skip
    found: dict[str, Reference] = {}
    with tempfile.TemporaryDirectory() as folder:
        cleaned = _cleaned(recipe, Path(folder))
        if say and (rejected := cleaned.counts["rejected"]):
            listed = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
            say(f"Left out of the input: {listed}")
        for path in text_paths(cleaned):
            _take(read_ipc(path, "text"), where or {}, found)
    if not found:
        wanted = ", ".join(f"{name}={value}" for name, value in (where or {}).items())
        problem = f"No document has {wanted}" if where else "The inputs hold no document"
        raise DataError(problem, ", ".join(inputs), "Look at the fields of the files.", "no-text")
    return [found[name] for name in sorted(found)]


def _cleaned(recipe: Recipe, root: Path) -> Manifest:
    done: dict[str, Manifest] = {}
    quiet = Progress(io.StringIO(), quiet=True)
    for stage, run in (("ingest", ingest.run), ("clean", clean.run)):
        directory = root / "store" / stage / "once"
        directory.mkdir(parents=True)
        result = run(
            StageJob(stage, recipe, directory, dict(done), root / "run", quiet, use_ray=False)
        )
        parts = [vars(part) for part in result.parts]
        content = {"stage": stage, "parts": parts, "counts": result.counts, "info": result.info}
        done[stage] = commit(directory, content, {})
    return done["clean"]


def _take(table: pa.Table, where: Where, found: dict[str, Reference]) -> None:
    columns = ["text", "source", "name", "id", "genre", "license", "meta"]
    rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    for text, source, name, identifier, genre, license_name, meta in rows:
        if where and not _matches(json.loads(meta), where):
            continue
        one = found.setdefault(source, Reference(source))
        one.texts.append(text)
        one.names.append(name or identifier.hex())
        one.genres.append(genre)
        one.licenses[license_name or "not stated"] += 1


def _matches(fields: dict, where: Where) -> bool:
    return all(str(fields.get(name)) == value for name, value in where.items())


def joined(texts: list[str], characters: int = 600) -> list[str]:
    """Sentences and paragraphs put together in their order, a line each, to pieces of that length.

    A sentence alone has no document's statistics: all of its words differ, one mark is 10 %.
    """
    pieces: list[str] = []
    piece: list[str] = []
    for text in texts:
        piece.append(text)
        if sum(map(len, piece)) >= characters:
            pieces.append("\n".join(piece))
            piece = []
    return pieces or ["\n".join(piece)]
