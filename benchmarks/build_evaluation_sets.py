"""Build the n-gram hashes of evaluation sets that the Portuguese pack ships, from the sets' files.

    python benchmarks/build_evaluation_sets.py TASKS [--output FOLDER] [--check]

TASKS holds the files as their repositories have them (origin in the pack's `evaluation`):
faquad/dataset_original_case.json, told_br/ptbr_test_[12]annotator.csv, ud_bosque/*.conllu.gz.
The same files give the same bytes; --check compares with what is there and writes nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from data_jobs.evaluation.ngrams import SUFFIX, ngrams_of_texts, write_index
from data_jobs.evaluation.texts import evaluation_texts

NGRAM, MIN_WORDS = 13, 8  # Brown et al. 2020, arXiv:2005.14165, appendix C


def faquad(tasks: Path) -> Iterator[str]:
    """Paragraphs and questions; the answers are parts of the paragraphs. dev.json and train.json
    hold the same texts in lower case."""
    content = json.loads((tasks / "faquad" / "dataset_original_case.json").read_bytes())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]
            yield from (one["question"] for one in paragraph["qas"])


def told_br(tasks: Path) -> Iterator[str]:
    """The test splits of both labellings: each has its own tweets, 211 are in both."""
    for number in (1, 2):
        path = tasks / "told_br" / f"ptbr_test_{number}annotator.csv"
        with path.open(newline="", encoding="utf-8") as stream:
            yield from (row["text"] for row in csv.DictReader(stream))


def ud_portuguese_bosque(tasks: Path) -> Iterator[str]:
    for split in ("dev", "test"):
        yield from evaluation_texts(tasks / "ud_bosque" / f"pt_bosque-ud-{split}.conllu.gz")


SETS: tuple[Callable[[Path], Iterator[str]], ...] = (faquad, told_br, ud_portuguese_bosque)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path)
    shipped = Path(str(resources.files("mutirao.languages") / "por_Latn"))
    parser.add_argument("--output", type=Path, default=shipped)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    wrong = 0
    for one in SETS:
        found = ngrams_of_texts(list(one(options.tasks)), NGRAM, MIN_WORDS)
        stream = io.BytesIO()
        write_index(stream, one.__name__, found, NGRAM, MIN_WORDS)
        path = options.output / f"{one.__name__}{SUFFIX}"
        if options.check:
            same = path.is_file() and path.read_bytes() == stream.getvalue()
            wrong += not same
        else:
            path.write_bytes(stream.getvalue())
        print(
            f"{path.name}: {found.texts:,} texts, {found.short:,} of them too short, "
            f"{len(found.hashes):,} n-grams, {len(stream.getvalue()):,} bytes"
            + (" same" if options.check and same else " DIFFERS" if options.check else "")
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
