"""The peer's side of data_speed.py, neardup_speed.py and raw_to_tokens.py: datatrove's own steps.

    peers/bin/python benchmarks/peer_datatrove.py --input DIR [--model lid.176.ftz]
        [--neardup | --tokenizer tokenizer.json] [--workers 2]

The filters and thresholds are those FineWeb-2 publishes for Portuguese (configs/por_Latn.yml at
baedee4): repair with ftfy, repetition, line quality, word quality, masking of e-mail and IP; with
--model language identification first. --neardup: instead of filters the four MinHash stages with
FineWeb-2's settings (14 buckets of 8, 5-grams, 64 bits), kept documents written as JSON lines.
--tokenizer: filters, then MinHash on what they keep, whose last stage hands to DocumentTokenizer
(no shuffle). Imports, spaCy's model and a first short run over a few documents are not timed.
Prints one JSON object: CPU-seconds of this process and its workers, wall, documents in and kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import (
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils import lid
from datatrove.utils.hashing import HashConfig
from datatrove.utils.logging import logger

STOP_WORDS = ["de", "a", "e", "o", "em", "do", "da", "que"]
STOP_WORDS += ["um", "no", "uma", "com", "para", "na", "é", "foi"]
TOP = [(2, 0.093), (3, 0.117), (4, 0.139)]
LANGUAGE, END_OF_TEXT = "por_Latn", "<|endoftext|>"
BUCKETS = 14
REPEATED = [(5, 0.19), (6, 0.172), (7, 0.154), (8, 0.142), (9, 0.131), (10, 0.12)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="lid.176: identify the language first")
    parser.add_argument("--neardup", action="store_true", help="MinHash alone")
    parser.add_argument("--tokenizer", type=Path, help="filters, MinHash, then token files")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    logger.remove()
    logging.disable(logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    if options.model:
        lid.cached_asset_path_or_download = lambda *_, **__: str(options.model.resolve())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        few = place / "few"
        few.mkdir()
        shorten(next(iter(sorted(options.input.glob("*.jsonl.gz")))), few / "few.jsonl.gz")
        run(options, few, place / "warm", workers=1)
        before, clock = cpu_seconds(), time.monotonic()
        run(options, options.input, place / "all", options.workers)
        found = {
            "cpu_s": round(cpu_seconds() - before, 2),
            "wall_s": round(time.monotonic() - clock, 2),
            "documents_in": count_lines(options.input.glob("*.jsonl.gz")),
            **outcome(place / "all"),
        }
    print(json.dumps(found))


def cpu_seconds() -> float:
    """Of this process and of the workers that have ended (each pool ends with its stage)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def outcome(place: Path) -> dict:
    if not (tokens := place / "tokens").exists():
        return {"documents_kept": count_lines((place / "kept").glob("*"))}
    return {
        "documents_kept": sum(p.stat().st_size // 8 for p in tokens.glob("*.ds.index")),
        "token_bytes": sum(p.stat().st_size for p in tokens.glob("*.ds")),
    }


def count_lines(paths: Iterable[Path]) -> int:
    return sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in paths)


def run(options: argparse.Namespace, source: Path, place: Path, workers: int) -> None:
    """One task a file; `place/kept` or `place/tokens` holds what comes out."""
    tasks = len(list(source.glob("*.jsonl.gz")))
    kept = place / "kept"
    if options.neardup:
        neardup(source, place, [JsonlWriter(str(kept))], tasks, workers)
        return
    steps = filters(source, options.model is not None)
    execute([*steps, JsonlWriter(str(kept))], place / "logs" / "filter", tasks, workers)
    if options.tokenizer:
        tokens = DocumentTokenizer(
            str(place / "tokens"),
            str(options.tokenizer.resolve()),
            eos_token=END_OF_TEXT,
            shuffle_documents=False,
        )
        neardup(kept, place, [tokens], tasks, workers)


def execute(steps: list, logs: Path, tasks: int, workers: int) -> None:
    """Forked workers: they have the models loaded, and their CPU time is ours to read."""
    LocalPipelineExecutor(
        steps, tasks=tasks, workers=workers, logging_dir=str(logs), start_method="fork"
    ).run()


def neardup(source: Path, place: Path, last: list, tasks: int, workers: int) -> None:
    """The four stages; `last` takes the documents that stay."""
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=BUCKETS)
    signatures, buckets, removed = (str(place / name) for name in ("signed", "buckets", "removed"))
    sign = MinhashDedupSignature(signatures, config, language=LANGUAGE)
    stages = [
        ([reader(source), sign], tasks),
        ([MinhashDedupBuckets(signatures, buckets, config=config)], BUCKETS),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([reader(source), MinhashDedupFilter(removed), *last], tasks),
    ]
    for number, (steps, count) in enumerate(stages, 1):
        execute(steps, place / "logs" / f"minhash-{number}", count, workers)


def reader(source: Path) -> JsonlReader:
    return JsonlReader(str(source), glob_pattern="*.jsonl.gz")


def filters(source: Path, with_language: bool) -> list:
    steps = [reader(source)]
    if with_language:
        steps.append(LanguageFilter(languages=["pt"], language_threshold=0.65))
    return [
        *steps,
        GopherRepetitionFilter(
            dup_line_frac=0.325,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            top_n_grams=TOP,
            dup_n_grams=REPEATED,
            language=LANGUAGE,
        ),
        FineWebQualityFilter(
            line_punct_thr=0.154,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.23,
            language=LANGUAGE,
        ),
        GopherQualityFilter(
            min_avg_word_length=3,
            max_avg_word_length=13,
            max_non_alpha_words_ratio=0.814,
            min_stop_words=2,
            stop_words=STOP_WORDS,
            language=LANGUAGE,
        ),
        FTFYFormatter(),
        PIIFormatter(),
    ]


def shorten(source: Path, target: Path) -> None:
    with gzip.open(source, "rt") as lines, gzip.open(target, "wt") as out:
        for _, line in zip(range(50), lines, strict=False):
            out.write(line)


if __name__ == "__main__":
    main()
