"""The n-grams of evaluation sets: of one set's texts, in a file of their own, and of all sets.

A file `NAME.ngrams.arrow` beside a language pack holds hashes alone, so that it can be shipped
where the texts cannot: one row a distinct text, with the length of its n-grams in words and their
sorted distinct hashes (Arrow IPC, format 1; the metadata say name, lengths and how words are
hashed). `benchmarks/build_evaluation_sets.py` writes those that the platform ships.
Memory: 8 bytes an n-gram and 12 each time that a text has it: about 2 MB for the Portuguese sets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from data_jobs.evaluation.scan import ngrams_of, power
from data_jobs.words import hash_of, words_of
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.schemas import write_ipc

FORMAT = 1
KIND = b"evaluation.ngrams"
FIELDS = [("words", pa.int32()), ("hashes", pa.list_(pa.uint64()))]
NGRAM = np.dtype([("hash", "<u8"), ("words", "<u4")])
SUFFIX = ".ngrams.arrow"
# What words are and how they are hashed: another answer for it, and stored hashes are worthless.
PROBE = "Ação nº 5 d'água: ÓRGÃO_x straße İstanbul ΣΊΣΥΦΟΣ, ção 中文 हिन्दी e\u0301 fim."


@dataclass(frozen=True)
class Ngrams:
    """texts: distinct texts of the set, with those too short; hashes: of all n-grams, text by text;
    text: number of the text of each hash; length: its words. short: texts of too few words."""

    texts: int
    short: int
    hashes: np.ndarray  # uint64
    text: np.ndarray  # int32
    length: np.ndarray  # int32


def ngrams_of_texts(texts: list[str], n: int, least: int) -> Ngrams:
    """Texts with the same words count once; those of fewer than `least` words are not looked for
    (n = 13 and least = 8 are the bounds of Brown et al. 2020, arXiv:2005.14165, appendix C)."""
    known: dict[bytes, tuple[np.ndarray, int]] = {}
    short: set[str] = set()
    for text in texts:
        hashes, length = ngrams_of(text, n, least)
        if len(hashes):
            known.setdefault(hashes.tobytes(), (hashes, length))
        else:
            short.add(" ".join(text.split()).casefold())
    return _joined(list(known.values()), len(short))


def _joined(rows: list[tuple[np.ndarray, int]], short: int) -> Ngrams:
    counts = np.array([len(hashes) for hashes, _ in rows], np.int64)
    lengths = np.array([length for _, length in rows], np.int32)
    hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in rows)])
    numbers = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
    return Ngrams(len(rows) + short, short, hashes, numbers, np.repeat(lengths, counts))


def hashing() -> str:
    """Changes with the rules by which words are found, lower-cased and hashed. In plain Python, as
    a plan asks for it and must not wait for kernels; a test holds it against them."""
    words = [hash_of(word) for word in words_of(PROBE.lower())]
    bases = [power(2), power(1), 1]
    triples = zip(words, words[1:], words[2:], strict=False)
    found = [sum(b * w for b, w in zip(bases, one, strict=True)) % 2**64 for one in triples]
    return sha256_hex(canonical_json(sorted(found)))[:16]


def write_index(stream: BinaryIO, name: str, found: Ngrams, n: int, least: int) -> int:
    """Write an index file; the same texts give the same bytes. Returns its number of rows."""
    about = {"name": name, "ngram": n, "min_words": least, "hashing": hashing()}
    about |= {"texts": found.texts, "short_texts": found.short}
    metadata = {
        b"mutirao.kind": KIND,
        b"mutirao.format": str(FORMAT).encode(),
        b"mutirao.about": canonical_json(about),
    }
    schema = pa.schema([pa.field(*field) for field in FIELDS], metadata=metadata)
    first = np.searchsorted(found.text, np.arange(found.texts - found.short + 1)).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(first), pa.array(found.hashes))
    length = pa.array(found.length[first[:-1]], pa.int32())
    return write_ipc(stream, schema, [pa.record_batch([length, lists], schema=schema)])


def read_index(path: Path, least: int) -> Ngrams:
    """The n-grams of an index file; texts of fewer than `least` words count as short.

    Raises RecipeError if it is damaged, of a newer format, or made by other rules for words.
    """
    table, about = _opened(path)
    lists = table.column("hashes").combine_chunks()
    rows = [
        (values.values.to_numpy(), length)
        for values, length in zip(lists, table.column("words").to_pylist(), strict=True)
        if length >= least
    ]
    return _joined(rows, about["texts"] - len(rows))


def check_index(path: Path) -> None:
    """Raises RecipeError as `read_index` does."""
    _opened(path)


def _opened(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    hint = "Install mutirao again, or take the set out of the language pack's `evaluation`."
    try:
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        metadata = table.schema.metadata or {}
        if metadata.get(b"mutirao.kind") != KIND:
            raise ValueError("it is no file of n-gram hashes")
        number = int(metadata[b"mutirao.format"])
        about = json.loads(metadata[b"mutirao.about"])
        table.validate(full=True)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        problem = f"Cannot read the n-grams of an evaluation set: {error}"
        raise RecipeError(problem, str(path), hint, "bad-evaluation") from error
    if number > FORMAT:
        problem = f"Written by a newer mutirao (format {number})"
        raise RecipeError(problem, str(path), "Upgrade mutirao.", "newer-format")
    if about["hashing"] != hashing():
        hint = "Make it again with benchmarks/build_evaluation_sets.py."
        problem = "The n-grams were hashed by other rules for words than this version's"
        raise RecipeError(problem, str(path), hint, "other-hashing")
    return table, about


@dataclass(frozen=True)
class Index:
    """ngrams: NGRAM records of all sets, sorted by hash, distinct. Postings, sorted by gram, set
    and text: which texts have the n-gram `ngrams[gram]`."""

    ngrams: np.ndarray
    gram: np.ndarray  # int64 of a posting
    set: np.ndarray  # int32
    text: np.ndarray  # int32

    @property
    def first_set(self) -> np.ndarray:
        """int32 by n-gram: the first set that has it."""
        return self.set[np.searchsorted(self.gram, np.arange(len(self.ngrams)))]


def merged(sets: list[Ngrams]) -> Index:
    """One index over all sets, whose numbers are their places in the list."""
    empty = np.zeros(0, np.uint64)
    every = np.concatenate([empty, *(one.hashes for one in sets)])
    hashes, first, gram = np.unique(every, return_index=True, return_inverse=True)
    length = np.concatenate([np.zeros(0, np.int32), *(one.length for one in sets)])
    ngrams = np.zeros(len(hashes), NGRAM)
    ngrams["hash"], ngrams["words"] = hashes, length[first]
    of_set = np.repeat(np.arange(len(sets), dtype=np.int32), [len(one.hashes) for one in sets])
    text = np.concatenate([np.zeros(0, np.int32), *(one.text for one in sets)])
    order = np.lexsort((text, of_set, gram))
    return Index(ngrams, gram[order].astype(np.int64), of_set[order], text[order])
