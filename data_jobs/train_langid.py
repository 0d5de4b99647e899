"""Train the fastText language-identification model that ships as ``mutirao/assets/lid.ftz``.

In:  gzipped JSON lines with the fields id, text, lang (ISO 639-3), source and license.
     Rows under a licence outside ``TRAINABLE`` are never trained on, only tested on.
Out: one quantized fastText model with labels such as ``__label__por``, and on stdout a JSON report
     of its quality on the tenth of the ids that was held out and on every ``--test`` file.

The model expects text as ``normalize`` returns it: lower case, one line, single spaces.
One thread and a fixed seed: the same files give the same bytes with the same build of fastText.

    python -m data_jobs.train_langid --output lid.ftz FILE.jsonl.gz... [--test FILE.jsonl.gz...]
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

import fasttext

LABEL = "__label__"
TRAINABLE = ("public domain", "cc0", "cc-by-1", "cc-by-2", "cc-by-3", "cc-by-4", "apache")
MIN_TEXTS = 40  # a language with fewer training texts gets no label
MAX_CHARACTERS = 200_000  # per language, spread evenly over its sources
FLOOR_CHARACTERS = 45_000  # smaller languages are repeated up to here,
MAX_REPEATS = 4  # but never more often than this
PIECE_CHARACTERS = 300  # documents are cut at line ends into pieces of about this length
WINDOW_CHARACTERS = 400  # a long document is judged by three windows of this length
SEED = 20261125
TRAIN = {"dim": 16, "minn": 2, "maxn": 5, "minCount": 20, "bucket": 400_000, "lr": 0.5, "epoch": 30}
QUANTIZE = {"cutoff": 80_000, "retrain": True, "qnorm": True, "epoch": 10, "lr": 0.2}


def train(paths: list[Path], output: Path) -> list[dict]:
    """Train on nine tenths of ``paths``, write the model to ``output``, return the other rows."""
    rows = [row for path in paths for row in read_rows(path) if trainable(row["license"])]
    held_out = [row for row in rows if is_held_out(row["id"])]
    lines = balanced_lines(row for row in rows if not is_held_out(row["id"]))
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "train.txt")
        text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        model = fasttext.train_supervised(str(text), thread=1, seed=SEED, verbose=0, **TRAIN)
        model.quantize(str(text), thread=1, verbose=0, **QUANTIZE)
    model.save_model(str(output))
    return held_out


def read_rows(path: Path) -> Iterator[dict]:
    """Yield the rows of one gzipped JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def trainable(license_name: str) -> bool:
    """True for public domain, CC0, CC-BY and Apache; false for share-alike and anything else."""
    name = license_name.lower()
    return name.startswith(TRAINABLE) and "-sa" not in name and "-nc" not in name


def is_held_out(row_id: str) -> bool:
    """True for a fixed tenth of the ids."""
    return digest(f"held out {row_id}") % 10 == 0


def digest(text: str) -> int:
    """Return a 64-bit hash that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def normalize(text: str) -> str:
    """Return ``text`` as the model expects it: lower case, one line, single spaces."""
    return " ".join(text.lower().split())


def balanced_lines(rows: Iterable[dict]) -> list[str]:
    """Return shuffled fastText lines, each language near the same number of characters."""
    sources: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        sources[row["lang"]][row["source"]].append(row)
    lines = []
    for language, by_source in sorted(sources.items()):
        if sum(map(len, by_source.values())) >= MIN_TEXTS:
            pieces = repeat_small(cap(interleave(by_source)))
            lines += [f"{LABEL}{language} {piece}" for piece in pieces]
    random.Random(SEED).shuffle(lines)
    return lines


def interleave(by_source: dict[str, list[dict]]) -> list[str]:
    """Merge the pieces of all sources so that each has given about as many characters so far."""
    streams = []
    for _, rows in sorted(by_source.items()):
        rows.sort(key=lambda row: digest(row["id"]))
        pieces = list(chain.from_iterable(pieces_of(row["text"]) for row in rows))
        streams.append(zip(accumulate(map(len, pieces)), pieces, strict=True))
    return [piece for _, piece in merge(*streams)]


def pieces_of(text: str) -> Iterator[str]:
    """Cut ``text`` at line ends into normalized pieces of about ``PIECE_CHARACTERS``."""
    piece = ""
    for line in text.splitlines():
        piece = normalize(f"{piece} {line}")
        if len(piece) >= PIECE_CHARACTERS:
            yield piece
            piece = ""
    if piece:
        yield piece


def cap(pieces: list[str]) -> list[str]:
    """Take pieces until they come to ``MAX_CHARACTERS``."""
    starts = accumulate(map(len, pieces), initial=0)
    return [p for p, start in zip(pieces, starts, strict=False) if start < MAX_CHARACTERS]


def repeat_small(pieces: list[str]) -> list[str]:
    """Repeat the pieces of a small language up to ``FLOOR_CHARACTERS``."""
    characters = sum(map(len, pieces))
    times = min(MAX_REPEATS, max(1.0, FLOOR_CHARACTERS / characters))
    return list(islice(cycle(pieces), int(len(pieces) * times)))


def three_windows(text: str) -> str:
    """Return the start, middle and end of a long normalized text, or all of a shorter one."""
    if len(text) <= 3 * WINDOW_CHARACTERS:
        return text
    middle = (len(text) - WINDOW_CHARACTERS) // 2
    starts = (0, middle, len(text) - WINDOW_CHARACTERS)
    return " ".join(text[start : start + WINDOW_CHARACTERS] for start in starts)


def paragraphs(rows: Iterable[dict]) -> list[dict]:
    """Join short texts of one source and language until each has ``PIECE_CHARACTERS``."""
    joined: list[dict] = []
    pending: dict[tuple[str, str], str] = defaultdict(str)
    for row in rows:
        key = row["source"], row["lang"]
        pending[key] = f"{pending[key]} {row['text']}"
        if len(pending[key]) >= PIECE_CHARACTERS:
            joined.append({"lang": row["lang"], "text": pending.pop(key)})
    return joined


def score(model, rows: Iterable[dict]) -> dict:
    """Measure accuracy, macro F1 and per-language figures over the languages the model knows."""
    known = set(model.get_labels())
    rows = [row for row in rows if LABEL + row["lang"] in known]
    truth = [LABEL + row["lang"] for row in rows]
    texts = [three_windows(normalize(row["text"])) for row in rows]
    guesses = [labels[0] for labels in model.predict(texts)[0]]
    right = Counter(a for a, b in zip(truth, guesses, strict=True) if a == b)
    guessed = Counter(guesses)
    languages = {
        label.removeprefix(LABEL): {
            "texts": count,
            "recall": round(right[label] / count, 4),
            "precision": round(right[label] / max(1, guessed[label]), 4),
            "f1": round(2 * right[label] / (count + guessed[label]), 4),
        }
        for label, count in sorted(Counter(truth).items())
    }
    accuracy = round(right.total() / max(1, len(rows)), 4)
    macro_f1 = sum(figures["f1"] for figures in languages.values()) / max(1, len(languages))
    return {"accuracy": accuracy, "macro_f1": round(macro_f1, 4), "languages": languages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl.gz")
    parser.add_argument("--output", required=True, type=Path, help="the model to write, .ftz")
    parser.add_argument("--test", nargs="+", type=Path, default=[], help="files never trained on")
    options = parser.parse_args()
    held_out = train(options.files, options.output)
    model = fasttext.load_model(str(options.output))
    report = {
        "sha256": hashlib.sha256(options.output.read_bytes()).hexdigest(),
        "bytes": options.output.stat().st_size,
        "labels": sorted(model.get_labels()),
        "held_out": score(model, held_out),
        "held_out_short": score(model, (r for r in held_out if len(r["text"]) < 100)),
        "held_out_over_200": score(model, (r for r in held_out if len(r["text"]) > 200)),
        "held_out_paragraphs": score(model, paragraphs(held_out)),
        "test": {path.name: score(model, read_rows(path)) for path in options.test},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
