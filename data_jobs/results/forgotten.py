"""Find the documents that are to be forgotten, their copies, and pieces of their text elsewhere.

In: finished results of `clean`, `exact` and `neardup`, and what was asked for: ids, URLs, lines of
text. Out: places (shard, row). A document is asked for by its id (32 hex digits), by its source's
own id, by its URL, or by a line of its text (without regard to case and white space). Memory: a
batch of text, 8 bytes a document that is found, and for `Traces` about 60 bytes a word of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.results.view import NOBODY
from data_jobs.shards import decision_paths, text_paths
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc
from mutirao.core.takedown import normalized

Place = tuple[int, int]  # (shard, row)
GRAM = 5  # words: so many in a row tell a text
MIN_NAME = 4  # characters of a source's own id that is looked for in logs
WORD = re.compile(r"\w+")
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class Wanted:
    """What was asked for. words: ids or the sources' own ids; lines: normalised."""

    words: frozenset[str]
    urls: frozenset[str]
    lines: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.words or self.urls or self.lines)

    def names_line_of(self, piece: str) -> bool:
        """Whether a line that was asked for stands in the piece, such as a reject's snippet."""
        text = normalized(piece) if self.lines else ""
        return any(line in text for line in self.lines)


def answers_of(document: dict[str, Any], wanted: Wanted) -> set[str]:
    """What a document can be asked for by, normalised: ids, URL, and those of `wanted.lines`."""
    answers = {document["id"].hex(), normalized(document["name"]), normalized(document["url"])}
    if wanted.lines:
        pieces = {normalized(line) for line in (document["text"], *document["text"].split("\n"))}
        answers |= pieces & wanted.lines
    return answers


def find_rows(clean: Manifest, wanted: Wanted) -> set[Place]:
    ids = [bytes.fromhex(word) for word in wanted.words if re.fullmatch("[0-9a-f]{32}", word)]
    found: set[Place] = set()
    for shard, start, batch in _batches(clean):
        mask = pc.is_in(batch.column("id"), pa.array(ids, pa.binary(16)))
        for column, values in (("name", wanted.words), ("url", wanted.urls)):
            listed = pa.array([v for v in values if v], pa.string())
            mask = pc.or_(mask, pc.is_in(batch.column(column), listed))
        rows = set(np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist())
        if wanted.lines:
            rows |= _rows_with_line(batch.column("text"), wanted.lines)
        found |= {(shard, start + row) for row in rows}
    return found


def _rows_with_line(texts: pa.Array, lines: frozenset[str]) -> set[int]:
    return {
        row
        for row, text in enumerate(texts.to_pylist())
        if any(normalized(line) in lines for line in text.split("\n")) or normalized(text) in lines
    }


def equal_texts(clean: Manifest, texts: Iterable[str]) -> set[Place]:
    """Documents with exactly one of these texts (copies in other results of `clean`)."""
    listed = pa.array([text for text in texts if text], pa.large_string())
    found: set[Place] = set()
    if len(listed):
        for shard, start, batch in _batches(clean):
            mask = pc.is_in(batch.column("text"), listed).to_numpy(zero_copy_only=False)
            found |= {(shard, start + row) for row in np.flatnonzero(mask).tolist()}
    return found


def exact_copies(exact: Manifest, places: set[Place]) -> set[Place]:
    """The places and all documents with their hash (of the text as `exact` normalised it)."""
    paths = decision_paths(exact)
    hashes = set()
    for shard, rows in by_shard(places).items():
        column = read_ipc(paths[shard], "decision.exact").column("hash")
        hashes |= set(column.take(pa.array(rows)).to_pylist())
    listed = pa.array([h for h in hashes if h != bytes(16)], pa.binary(16))
    found = set(places)
    for shard, path in enumerate(paths) if len(listed) else ():
        mask = pc.is_in(read_ipc(path, "decision.exact").column("hash"), listed)
        found |= {(shard, row) for row in np.flatnonzero(mask.to_numpy()).tolist()}
    return found


def near_copies(neardup: Manifest, places: set[Place]) -> set[Place]:
    """Documents with a verified edge to one of the places, without the places."""
    wanted = _names_of(places)
    found: set[Place] = set()
    for first, second, against in _edges(neardup):
        one, other = np.isin(first, wanted), np.isin(second, wanted) & (against < 0)
        found |= _places_of(second[one & ~other & (against < 0)])
        found |= _places_of(first[other & ~one])
    return found


def near_across(
    neardup: Manifest, number: int, places: set[Place], earlier: set[Place]
) -> tuple[set[Place], set[Place]]:
    """Along edges to earlier result `number`: (documents of this result near to one of `earlier`,
    documents of the earlier one near to one of `places`)."""
    ours, theirs = _names_of(places), _names_of(earlier)
    here: set[Place] = set()
    there: set[Place] = set()
    for first, second, against in _edges(neardup):
        across = against == number
        here |= _places_of(first[across & np.isin(second, theirs)])
        there |= _places_of(second[across & np.isin(first, ours)])
    return here, there


def named_duplicates(neardup: Manifest, ids: set[bytes]) -> dict[int, list[int]]:
    """{number of the decision shard: its rows} that name one of the documents by its id."""
    listed = pa.array(sorted(ids), pa.binary(16))
    found = {}
    for shard, path in enumerate(decision_paths(neardup) if ids else ()):
        column = read_ipc(path, "decision.neardup").column("duplicate_of_id")
        rows = np.flatnonzero(pc.is_in(column, listed).to_numpy()).tolist()
        if rows:
            found[shard] = rows
    return found


def _edges(neardup: Manifest) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(first, second, against) of a batch of edges; documents as shard << 32 | row."""
    for path in neardup.paths("edges"):
        for batch in read_ipc(path, "edges").to_batches():
            shard, row, other_shard, other_row = (
                batch.column(name).to_numpy().astype(np.int64)
                for name in ("shard", "row", "other_shard", "other_row")
            )
            against = batch.column("against").to_numpy()
            yield shard << 32 | row, other_shard << 32 | other_row, against


def _names_of(places: Iterable[Place]) -> np.ndarray:
    return np.array([shard << 32 | row for shard, row in sorted(places)], np.int64)


def _places_of(names: np.ndarray) -> set[Place]:
    return {(name >> 32, name & 0xFFFFFFFF) for name in names.tolist()}


def documents(clean: Manifest, places: set[Place]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Whole rows of the text shards, without those that were forgotten before."""
    paths = text_paths(clean)
    for shard, rows in by_shard(places).items():
        table = read_ipc(paths[shard], "text")
        for row in rows:
            document = table.slice(row, 1).to_pylist()[0]
            if document["id"] != NOBODY:
                yield (shard, row), document


def by_shard(places: Iterable[Place]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for shard, row in sorted(places):
        found.setdefault(shard, []).append(row)
    return found


class Traces:
    """Tells whether a short piece of text (a snippet, a line of a log) is of a forgotten document.

    It errs on the side of forgetting: GRAM words in a row are enough, or all words of a shorter
    piece where they begin a forgotten text.
    """

    def __init__(self) -> None:
        self.grams: set[int] = set()
        self.beginnings: set[int] = set()
        self.needles: set[str] = set()  # URLs and our ids
        self.names: set[str] = set()  # the sources' own ids
        self._patterns: dict[bool, re.Pattern[str]] = {}

    def add(self, document: dict[str, Any]) -> None:
        for text in (document["text"], document["messages"]):
            words = _words(text)
            self.grams |= {hash(gram) for gram in _grams(words)}
            shortest = min(2, len(words)) or GRAM
            self.beginnings |= {hash(tuple(words[:k])) for k in range(shortest, GRAM)}
        self.needles |= {document["id"].hex(), document["url"]} - {""}
        if len(document["name"]) >= MIN_NAME:
            self.names.add(document["name"])
        self._patterns = {}

    def holds_text(self, piece: str) -> bool:
        """Whether the piece has words of a forgotten text, or its URL or id."""
        if self.spans(piece):
            return True
        words = _words(piece)
        if len(words) < GRAM:
            return hash(tuple(words)) in self.beginnings
        return any(hash(gram) in self.grams for gram in _grams(words))

    def spans(self, text: str, names: bool = True) -> list[tuple[int, int]]:
        """Where URLs, ids and (with `names`) the sources' own ids stand, as whole words."""
        if names not in self._patterns:
            wanted = self.needles | (self.names if names else set())
            longest = map(re.escape, sorted(wanted, key=len, reverse=True))
            self._patterns[names] = re.compile(rf"(?<!\w)(?:{'|'.join(longest) or '(?!)'})(?!\w)")
        return [match.span() for match in self._patterns[names].finditer(text)]


def _words(text: str) -> list[str]:
    """Words in lower case; JSON escapes of letters are letters (a snippet may be a raw line)."""
    text = ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return WORD.findall(text.replace("\\n", " ").casefold())


def _grams(words: list[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(words[k:] for k in range(GRAM)), strict=False)


def _batches(clean: Manifest) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    for shard, path in enumerate(text_paths(clean)):
        start = 0
        for batch in read_ipc(Path(path), "text").to_batches():
            yield shard, start, batch
            start += batch.num_rows
