"""One unit of `clean`: a piece of a source file read, cleaned in batches, written as shards.

In: an item of `clean.run`. Out: the unit's parts. A unit that was killed goes on after its last
full text shard, also inside one large file: a plain one is entered there, a compressed one unpacked
up to there without parsing. Memory: that of the sink, and a batch of BATCH_BYTES or one document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import orjson

from data_jobs.cleaning.clean_columns import Kept
from data_jobs.cleaning.clean_sink import Sink, finished_unit
from data_jobs.cleaning.cleaner import Cleaned, Cleaner, CleanSettings
from data_jobs.read.documents import Document, Piece, ReadOptions, Reject
from data_jobs.read.places import Place
from data_jobs.read.readers import continued, read
from data_jobs.results.taken_down import without_takedowns
from data_jobs.units import Item
from mutirao.core.errors import DataError
from mutirao.core.takedown import Takedown, workdir_of

BATCH_DOCUMENTS = 4_000  # the automata of the cleaner are built anew for each batch (8 ms)
BATCH_BYTES = 8 << 20  # in the source file
WIDEST = 4  # bytes of one character in UTF-8


def clean_unit(item: Item) -> Item:
    """{text: [part], rejects: [part]}. Raises DataError where the file is not what it was."""
    directory = Path(item["directory"])
    if (finished := finished_unit(directory, item["unit"])) is not None:
        return finished
    place = Place(item["place"])
    _check_unchanged(place, item)
    piece = Piece(place, item["format"], item["start"], item["end"], item["first"])
    sink = Sink(directory, item)
    if (last := sink.resume()) is not None:
        piece = continued(piece, last)
    settings = CleanSettings(**item["settings"]).for_kind(item["fields"].get("kind", "text"))
    cleaner = _cleaner(settings, json.dumps(item["rules"]))
    takedown = Takedown.load(workdir_of(directory))
    for batch in _batches(read(piece, options_of(item))):
        found = judged(batch, cleaner, item["max_bytes"])
        sink.add(without_takedowns(found, takedown, item) if takedown else found)
    return sink.finish()


def options_of(item: Item) -> ReadOptions:
    settings = item["settings"]
    return ReadOptions(
        **item["fields"],
        max_bytes=item["max_bytes"],
        html=settings["html"],
        html_engine=settings["html_engine"],
    )


def judged(
    batch: Sequence[Document | Reject], cleaner: Cleaner, max_bytes: int
) -> list[Kept | Reject]:
    """Each document with its clean text, or why it is not taken; rejects as they came."""
    checked = [_too_long(one, max_bytes) or one for one in batch]
    texts = [text for one in checked if isinstance(one, Document) for text in _texts(one)]
    results = iter(cleaner.clean(texts))
    return [_judged(o, results, max_bytes) if isinstance(o, Document) else o for o in checked]


def _texts(document: Document) -> list[str]:
    if document.messages:
        return [content for _, content in document.messages]
    return [document.text]


def _judged(document: Document, results: Iterator[Cleaned], max_bytes: int) -> Kept | Reject:
    if document.messages:
        kept = _conversation(document, [next(results) for _ in document.messages])
    else:
        cleaned = next(results)
        if cleaned.reason:
            return _rejected(document, cleaned.reason, cleaned.text)
        kept = Kept(document, cleaned.text, "", cleaned.counts)
    if isinstance(kept, Kept) and _is_long(kept.text, max_bytes):
        return _rejected(document, "too-long", kept.text)
    return kept


def _conversation(document: Document, turns: list[Cleaned]) -> Kept | Reject:
    """An empty system turn is left out; any other turn that is lost takes the document with it."""
    messages = []
    counts: dict[str, int] = {}
    for (role, content), turn in zip(document.messages, turns, strict=True):
        if turn.reason == "empty" and role == "system":
            continue
        if turn.reason:
            reason = "empty-turn" if turn.reason == "empty" else turn.reason
            return _rejected(document, reason, content)
        messages.append({"role": role, "content": turn.text})
        for name, count in turn.counts.items():
            counts[name] = counts.get(name, 0) + count
    text = "\n\n".join(message["content"] for message in messages)
    return Kept(document, text, orjson.dumps(messages).decode(), counts)


def _too_long(one: Document | Reject, max_bytes: int) -> Reject | None:
    """Documents too long in characters are not cleaned first."""
    if isinstance(one, Document) and sum(map(len, _texts(one))) > max_bytes:
        return _rejected(one, "too-long", _texts(one)[0])
    return None


def _is_long(text: str, max_bytes: int) -> bool:
    return len(text) * WIDEST > max_bytes and len(text.encode()) > max_bytes


def _rejected(document: Document, reason: str, text: str) -> Reject:
    return Reject(document.position, document.offset, document.size, reason, text[:200])


def _batches(found: Iterable[Document | Reject]) -> Iterator[list[Document | Reject]]:
    batch: list[Document | Reject] = []
    size = 0
    for one in found:
        batch.append(one)
        size += one.size
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@lru_cache(4)
def _cleaner(settings: CleanSettings, rules: str) -> Cleaner:
    """One a process: it holds what the rules compile to."""
    return Cleaner(settings, json.loads(rules))


def _check_unchanged(place: Place, item: Item) -> None:
    try:
        size = place.size() if place.url else -1
    except OSError:
        size = -1
    if size != item["bytes"]:
        raise DataError(
            "A source file has changed since it was fingerprinted",
            item["file"],
            "Run the same command again; it takes the new content.",
            "source-changed",
        )
