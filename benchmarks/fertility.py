"""Fertility on unseen text: our three kinds of tokenizer, trained and measured on the same text.

    .venv/bin/python benchmarks/fertility.py CORPUS.jsonl.gz... [--heldout FILE.jsonl.gz]
        [--vocabulary 32000] [--tokenizer PATH...] [--output F.json]

Held out are the documents whose id's xxh3-64 is divisible by 5, of each file; the tokenizers are
trained on the rest. A file named by `--heldout` is not trained on at all. `--tokenizer` adds
tokenizers of others. Per file: tokens per word (`\\w+`), bytes per token, share of tokens of one
byte. `bpe` is what `tokenizers.BpeTrainer` makes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import xxhash

KINDS = ("bpe", "sentencepiece-bpe", "sentencepiece-unigram")
EVERY = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--heldout", type=Path, action="append", default=[])
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--tokenizer", type=Path, action="append", default=[])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    seen, unseen = split(options.corpus, options.heldout)
    rows = {}
    for kind in KINDS:
        rows[kind] = ours(kind, seen, unseen, options.vocabulary)
        show(kind, rows[kind])
    for path in options.tokenizer:
        rows[str(path)] = theirs(path, unseen)
        show(str(path), rows[str(path)])
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


def split(corpus: list[Path], heldout: list[Path]) -> tuple[list[str], dict[str, list[str]]]:
    seen: list[str] = []
    unseen: dict[str, list[str]] = {}
    for file in sorted({*corpus, *heldout}):
        name = file.name.split(".")[0]
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                held = (
                    file in heldout
                    or xxhash.xxh3_64_intdigest(str(row["id"]).encode()) % EVERY == 0
                )
                (unseen.setdefault(name, []) if held else seen).append(row["text"])
    return seen, unseen


def ours(kind: str, seen: list[str], unseen: dict[str, list[str]], size: int) -> dict:
    from data_jobs.tokens import engines, fertility
    from data_jobs.tokens.train_bpe import train_bpe
    from data_jobs.tokens.train_sentencepiece import train_sentencepiece

    began, wall = time.process_time(), time.perf_counter()
    if kind == "bpe":
        model = train_bpe(seen, size, 64)
    else:
        model, _ = train_sentencepiece(seen, kind, size, 64)
    spent = {"train_cpu_s": time.process_time() - began, "train_s": time.perf_counter() - wall}
    model.encode_special_tokens = True
    encoder = engines.choose(model.to_str(), model, 0, "auto")
    return spent | fertility.measure(encoder, fertility.byte_lengths(model), unseen)


def theirs(path: Path, unseen: dict[str, list[str]]) -> dict:
    from data_jobs.tokens import engines, fertility

    found = engines.read_existing(path)
    encoder = engines.choose(found.json, found.tokenizer, 0, "auto")
    return fertility.measure(encoder, fertility.byte_lengths(found.tokenizer), unseen)


def show(name: str, row: dict) -> None:
    print(f"{name}: trained in {row.get('train_s', 0):.0f} s")
    values = ("tokens_per_word", "bytes_per_token", "single_byte_share")
    for source, found in [*row["sources"].items(), ("all", row)]:
        print(f"  {source:<24}" + "".join(f"{found[value]:>9.3f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
