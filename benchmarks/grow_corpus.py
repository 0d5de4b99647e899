"""Makes a corpus N times as large as a given one, for measurements of scale.

    python benchmarks/grow_corpus.py --corpus DIR --output DIR [--times 50] [--seed 1] [--workers 2]
    python benchmarks/grow_corpus.py --corpus GROWN --measure 3000

In: a folder of *.jsonl.gz, one source a file. Out: `<source>-00000.jsonl.gz` and so on, about
--file-bytes of text each, and `.grown.json` (what was planned). Every document is new: runs of
sentences out of other documents of its source, to the length of one of them, with 5 to 20 % of the
words replaced by words drawn by their frequency there, so words, lengths and short n-grams stay
those of the source, and two documents share some sentences but are no duplicates. On top of that
come clusters of duplicates with Zipf sizes (exponent 2.9, 1,000 at most: about 30 % of all
documents repeat another), scattered over all files of the source; three in ten are exact, the
others are edited in 0.2 to 6 % of their words, or in one block of 1 to 25 %, so some lie below a
Jaccard of 0.8. The words are those of the original: vocabulary does not grow as real text's does.
The same seed gives the same bytes for any number of workers. Memory of a worker: one source and 16
bytes a document that is made from it. --measure looks at what came out (see `grow_measure.py`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

TOKEN = re.compile(r"(\S+)(\s*)")
END = (".", "!", "?", ":", ";", "…")
LONGEST_SENTENCE = 40  # words; a longer one is cut, so that text without marks is mixed too
RUN_SENTENCES = 3  # taken together out of one document
REPLACED = (0.05, 0.20)  # share of the words of a new document
ZIPF, LARGEST_CLUSTER = 2.9, 1_000
EXACT = 0.3  # of the repetitions
SCATTERED, BLOCK = (0.002, 0.06), (0.01, 0.25)  # edited share of the words, log-uniform
CARRIED = ("source", "license", "url", "lang", "variety")


@dataclass(frozen=True)
class Text:
    """One source: its words in order, what stands after each, and where sentences begin."""

    words: list[str]
    gaps: list[str]
    sentences: list[int]  # index of the first word
    fixed: bytearray  # 1: ends a sentence or line, never replaced
    plain: list[int]  # places of lower-case words, the pool of replacements
    lengths: list[int]  # words of each document
    fields: list[dict[str, Any]]  # what a document carries besides its text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--times", type=float, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file-bytes", type=int, default=64_000_000)
    parser.add_argument("--measure", type=int, help="documents to look at in a grown corpus")
    options = parser.parse_args()
    if options.measure:
        from grow_measure import measure

        print(json.dumps(measure(options.corpus, options.measure), indent=1))
    elif options.output:
        print(json.dumps(grow(options), indent=1))
    else:
        parser.error("give --output, or --measure")


def grow(options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    tasks = []
    for path in sorted(options.corpus.glob("*.jsonl.gz")):
        text = load(path)
        documents = round(len(text.lengths) * options.times)
        size = sum(len(w) + len(g) for w, g in zip(text.words, text.gaps, strict=True))
        files = max(1, round(size * options.times / options.file_bytes))
        tasks += [(path, options.seed, documents, files, n, options.output) for n in range(files)]
    with ProcessPoolExecutor(options.workers) as pool:
        made = list(pool.map(write_file, *zip(*tasks, strict=True)))
    total = Counter()
    for one in made:
        total.update(one)
    wall = time.monotonic() - began
    found = {
        "seed": options.seed,
        "times": options.times,
        "files": len(made),
        **dict(sorted(total.items())),
        "repeated_share": round(1 - total["new"] / total["documents"], 4),
    }
    (options.output / ".grown.json").write_text(json.dumps(found, indent=1) + "\n")
    return {**found, "wall_s": round(wall, 1), "mb_per_s": round(total["text_bytes"] / 1e6 / wall)}


def write_file(path: Path, seed: int, documents: int, files: int, number: int, to: Path) -> Counter:
    """File `number` of `files` of one source; counts of what is in it."""
    text, (cluster, member) = load(path), plan(path.name, seed, documents)
    stem = path.name.removesuffix(".jsonl.gz")
    count: Counter = Counter()
    place = to / f"{stem}-{number:05d}.jsonl.gz"
    with (
        open(place, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as out,
    ):
        for i in range(documents * number // files, documents * (number + 1) // files):
            kind, written, fields = document(
                text, f"{seed}/{stem}", int(cluster[i]), int(member[i])
            )
            out.write(orjson.dumps({"id": f"{stem}-{i}", "text": written, **fields}) + b"\n")
            count.update({"documents": 1, kind: 1, "text_bytes": len(written.encode())})
    return count


@lru_cache(1)
def plan(name: str, seed: int, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(cluster, member) of each document of a source, in an order that scatters the members."""
    rng = np.random.default_rng([seed, *name.encode()])
    sizes = np.minimum(rng.zipf(ZIPF, documents), LARGEST_CLUSTER)
    cluster = np.repeat(np.arange(documents, dtype=np.int64), sizes)[:documents]
    first = np.searchsorted(cluster, cluster)
    order = rng.permutation(documents)
    return cluster[order], (np.arange(documents) - first)[order]


def document(text: Text, key: str, cluster: int, member: int) -> tuple[str, str, dict[str, Any]]:
    """(new | exact | edited, the text, its other fields). Member 0 is the cluster's new document,
    which every other member makes again."""
    places, fields = new_document(text, random.Random(f"{key}/{cluster}"))
    dice = random.Random(f"{key}/{cluster}/{member}")
    kind = "new" if member == 0 else "exact" if dice.random() < EXACT else "edited"
    if kind == "edited":
        places = edited(text, places, dice)
    pieces = [""] * (2 * len(places))
    pieces[0::2] = [text.words[word] for word, _ in places]
    pieces[1::2] = [text.gaps[gap] for _, gap in places]
    return kind, "".join(pieces).rstrip(), fields


def new_document(text: Text, dice: random.Random) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """Places (word, gap after it) in the source, and the fields of the document it is long as."""
    shape = int(dice.random() * len(text.lengths))
    wanted, chosen = text.lengths[shape], []
    while len(chosen) < wanted:
        first = int(dice.random() * (len(text.sentences) - 1))
        last = min(first + RUN_SENTENCES, len(text.sentences) - 1)
        while last > first + 1 and text.sentences[last] - text.sentences[first] > wanted:
            last -= 1  # a short document: fewer sentences
        chosen += range(text.sentences[first], text.sentences[last])
    places = list(zip(chosen, chosen, strict=True))
    replace(text, places, dice.uniform(*REPLACED), dice)
    return places, text.fields[shape]


def replace(text: Text, places: list[tuple[int, int]], share: float, dice: random.Random) -> None:
    for _ in range(max(1, round(share * len(places)))):
        at = int(dice.random() * len(places))
        word, gap = places[at]
        if not text.fixed[word]:
            places[at] = (drawn(text, dice), gap)


def edited(text: Text, places: list[tuple[int, int]], dice: random.Random) -> list[tuple[int, int]]:
    """Half of the chosen words replaced, a quarter taken out, a quarter with one more behind."""
    scattered = dice.random() < 0.75
    low, high = np.log(SCATTERED if scattered else BLOCK)
    count = max(1, round(float(np.exp(dice.uniform(low, high))) * len(places)))
    if scattered:
        chosen = [int(dice.random() * len(places)) for _ in range(count)]
    else:
        start = int(dice.random() * max(1, len(places) - count))
        chosen = list(range(start, min(start + count, len(places))))
    new = list(places)
    for at in sorted(set(chosen), reverse=True):
        roll, (word, gap) = dice.random(), new[at]
        if roll < 0.5:
            new[at] = (drawn(text, dice), gap)
        elif roll < 0.75 and not text.fixed[word]:
            del new[at]
        else:
            new.insert(at + 1, (drawn(text, dice), gap))
    return new or list(places)


def drawn(text: Text, dice: random.Random) -> int:
    """The place of a word, by its frequency in the source."""
    return text.plain[int(dice.random() * len(text.plain))]


@lru_cache(1)
def load(path: Path) -> Text:
    text = Text([], [], [], bytearray(), [], [], [])
    with gzip.open(path, "rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            add(text, record["text"])
            text.fields.append({name: record[name] for name in CARRIED if name in record})
    text.sentences.append(len(text.words))
    text.plain.extend(
        at
        for at, word in enumerate(text.words)
        if word.isalpha() and word.islower() and text.gaps[at] == " "
    )
    return text


def add(text: Text, written: str) -> None:
    """Append one document; its last word ends a paragraph."""
    tokens = TOKEN.findall(written)
    begins = len(text.words)
    for number, (word, gap) in enumerate(tokens):
        if begins == len(text.words):
            text.sentences.append(begins)
        gap = "\n\n" if number + 1 == len(tokens) else gap
        ends = word.endswith(END) or "\n" in gap
        text.words.append(word)
        text.gaps.append(gap)
        text.fixed.append(ends)
        if ends or len(text.words) - begins >= LONGEST_SENTENCE:
            begins = len(text.words)
    text.lengths.append(max(1, len(tokens)))


if __name__ == "__main__":
    main()
