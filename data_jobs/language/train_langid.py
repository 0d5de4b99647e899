"""Train the fastText language-identification model that ships as `mutirao/assets/lid.ftz`.

In:  gzipped JSON lines with the fields id, text, lang (ISO 639-3), source and license.
     Rows under a licence outside `TRAINABLE` are left out.
Out: one quantized fastText model with labels such as `__label__por`, and on stdout a JSON report
     of what it was trained on. Its quality is measured by `benchmarks/langid_quality.py`, which
     trains by the same function on a part of the texts.

The model expects text as `langid_windows.line` returns it: lower case, one line, single spaces.
One thread and a fixed seed: the same files give the same bytes with the same build of fastText.

    python -m data_jobs.language.train_langid --output lid.ftz FILE.jsonl.gz...
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import accumulate, chain, cycle, islice
from pathlib import Path
from typing import Any

from data_jobs.language.steady_fasttext import train_supervised
from mutirao.core.language_codes import LABEL

Row = dict[str, Any]
TRAINABLE = ("public domain", "cc0", "cc-by-1", "cc-by-2", "cc-by-3", "cc-by-4", "apache")
MIN_TEXTS = 15  # a language with fewer training texts gets no label
MAX_CHARACTERS = 200_000  # per language, spread evenly over its sources
FLOOR_CHARACTERS = 45_000  # smaller languages are repeated up to here,
MAX_REPEATS = 4  # but never more often than this
PIECE_CHARACTERS = 300  # documents are cut at line ends into pieces of about this length
SEED = 20261125
# Chosen on one fold of the training side (benchmarks/langid_quality.py).
TRAIN = {"dim": 24, "minn": 1, "maxn": 5, "minCount": 5, "bucket": 600_000, "lr": 0.8, "epoch": 30}


def train(rows: Iterable[Row], output: Path) -> Counter[str]:
    """Train on the trainable rows, write the model to `output`; returns the lines by language."""
    lines = balanced_lines(row for row in rows if trainable(row["license"]))
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "train.txt")
        text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        model = train_supervised(str(text), SEED, **TRAIN)
        model.quantize(str(text), thread=1, verbose=0, qnorm=True)
    model.save_model(str(output))
    return Counter(line.partition(" ")[0].removeprefix(LABEL) for line in lines)


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one gzipped JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def trainable(license_name: str) -> bool:
    """True for public domain, CC0, CC-BY and Apache; false for share-alike and anything else."""
    name = license_name.lower()
    return name.startswith(TRAINABLE) and "-sa" not in name and "-nc" not in name


def digest(text: str) -> int:
    """Return a 64-bit hash that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def normalize(text: str) -> str:
    """Return `text` as the model expects it: lower case, one line, single spaces."""
    return " ".join(text.lower().split())


def balanced_lines(rows: Iterable[Row]) -> list[str]:
    """Return shuffled fastText lines, each language near the same number of characters."""
    sources: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        sources[row["lang"]][row["source"]].append(row)
    lines = []
    for language, by_source in sorted(sources.items()):
        if sum(map(len, by_source.values())) >= MIN_TEXTS:
            pieces = repeat_small(cap(interleave(by_source)))
            lines += [f"{LABEL}{language} {piece}" for piece in pieces]
    random.Random(SEED).shuffle(lines)
    return lines


def interleave(by_source: dict[str, list[Row]]) -> list[str]:
    """Merge the pieces of all sources so that each has given about as many characters so far."""
    streams = []
    for _, rows in sorted(by_source.items()):
        rows.sort(key=lambda row: digest(row["id"]))
        pieces = list(chain.from_iterable(pieces_of(row["text"]) for row in rows))
        streams.append(zip(accumulate(map(len, pieces)), pieces, strict=True))
    return [piece for _, piece in merge(*streams)]


def pieces_of(text: str) -> Iterator[str]:
    """Cut `text` at line ends into normalized pieces of about `PIECE_CHARACTERS`."""
    piece = ""
    for line in text.splitlines():
        piece = normalize(f"{piece} {line}")
        if len(piece) >= PIECE_CHARACTERS:
            yield piece
            piece = ""
    if piece:
        yield piece


def cap(pieces: list[str]) -> list[str]:
    """Take pieces until they come to `MAX_CHARACTERS`."""
    starts = accumulate(map(len, pieces), initial=0)
    return [p for p, start in zip(pieces, starts, strict=False) if start < MAX_CHARACTERS]


def repeat_small(pieces: list[str]) -> list[str]:
    """Repeat the pieces of a small language up to `FLOOR_CHARACTERS`."""
    characters = sum(map(len, pieces))
    times = min(MAX_REPEATS, max(1.0, FLOOR_CHARACTERS / characters))
    return list(islice(cycle(pieces), int(len(pieces) * times)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl.gz")
    parser.add_argument("--output", required=True, type=Path, help="the model to write, .ftz")
    options = parser.parse_args()
    lines = train(chain.from_iterable(map(read_rows, options.files)), options.output)
    report = {
        "sha256": hashlib.sha256(options.output.read_bytes()).hexdigest(),
        "bytes": options.output.stat().st_size,
        "languages": len(lines),
        "lines": dict(sorted(lines.items())),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
