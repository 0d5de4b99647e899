"""The texts of an evaluation file, whatever its form: each is looked for in the corpus on its own.

In: JSON (all its strings), JSON lines, CSV or TSV (all cells), CoNLL-U (its sentences), or plain
text (paragraphs between blank lines); also compressed by gzip, zstd or bzip2. Out: strings, in the
order of the file. A file is read as a whole: evaluation sets are small (FaQuAD 0.7 MB, FLORES+
dev and devtest of one language 0.3 MB).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_jobs.read.streams import BrokenStream, blocks
from mutirao.core.errors import RecipeError

HINT = "Correct `decontaminate.against` in the recipe, or the language pack that names the file."
CELL = 1 << 27  # characters; csv stops at 131,072 by default
SENTENCE = "# text = "  # CoNLL-U: universaldependencies.org/format.html


def evaluation_texts(path: Path) -> list[str]:
    """All texts of the file. Raises RecipeError if it cannot be read as what its name says, or
    holds no text."""
    try:
        content = b"".join(blocks(path)).decode("utf-8-sig")
    except (OSError, BrokenStream, UnicodeDecodeError) as error:
        raise _unreadable(error, path) from error
    reader = READERS.get(kind_of(path), _paragraphs)
    found = [text for text in reader(content, path) if text.strip()]
    if not found:
        raise RecipeError("The evaluation file holds no text", str(path), HINT, "no-evaluation")
    return found


def passage(text: str, offset: int, words: int) -> str:
    """About so many words of a text from byte `offset` on, at most 200 characters."""
    window = text.encode()[offset : offset + 2_000].decode("utf-8", "ignore")
    return " ".join(window.split()[:words])[:200]


def kind_of(path: Path) -> str:
    """'json', 'jsonl', 'csv', 'tsv', 'conllu', or '' for plain text, by the last known suffix."""
    known = [suffix[1:] for suffix in path.suffixes if suffix[1:] in READERS]
    return known[-1] if known else ""


def _paragraphs(content: str, path: Path) -> Iterator[str]:
    yield from re.split(r"\r?\n[ \t\r]*\n", content)


def _json(content: str, path: Path) -> Iterator[str]:
    """One JSON value; files called .json that hold one a line are common."""
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise _unreadable(error, path) from error
    except ValueError:
        yield from _json_lines(content, path)
    else:
        yield from strings(value)


def _json_lines(content: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield from strings(_parsed(line, path, number))


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"Not JSON: {error}", f"{path}:{number}", HINT, "bad-json") from error


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value, in its order; names of fields are none."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += reversed(one.values())
        elif isinstance(one, list):
            waiting += reversed(one)


def _csv(content: str, path: Path) -> Iterator[str]:
    """Cells may hold line breaks inside quotes."""
    csv.field_size_limit(CELL)
    separator = "\t" if kind_of(path) == "tsv" else ","
    try:
        for row in csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True):
            yield from row
    except csv.Error as error:
        raise _unreadable(error, path) from error


def _conllu(content: str, path: Path) -> Iterator[str]:
    for line in content.splitlines():
        if line.startswith(SENTENCE):
            yield line[len(SENTENCE) :]


def _unreadable(error: Exception, path: Path) -> RecipeError:
    problem = f"Cannot read the evaluation file: {error}"
    return RecipeError(problem, str(path), HINT, "bad-evaluation")


READERS: dict[str, Callable[[str, Path], Iterator[str]]] = {
    "json": _json,
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "csv": _csv,
    "tsv": _csv,
    "conllu": _conllu,
}
