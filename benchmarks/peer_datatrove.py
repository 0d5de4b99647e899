"""The peer's side of data_speed.py: datatrove's filters on the same files, in this process.

    peers/bin/python benchmarks/peer_datatrove.py --input DIR [--model lid.176.ftz]

The steps and thresholds are those FineWeb-2 publishes for Portuguese (configs/por_Latn.yml at
baedee4): repair with ftfy, repetition, line quality, word quality, masking of e-mail and IP; with
--model language identification first. Imports, spaCy's model and a first short run over a few
documents are not timed. Prints one JSON object: CPU-seconds, documents in and kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.filters import (
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils import lid
from datatrove.utils.logging import logger

STOP_WORDS = ["de", "a", "e", "o", "em", "do", "da", "que"]
STOP_WORDS += ["um", "no", "uma", "com", "para", "na", "é", "foi"]
TOP = [(2, 0.093), (3, 0.117), (4, 0.139)]
REPEATED = [(5, 0.19), (6, 0.172), (7, 0.154), (8, 0.142), (9, 0.131), (10, 0.12)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="lid.176: identify the language first")
    options = parser.parse_args()
    logger.remove()
    logging.disable(logging.WARNING)
    if options.model:
        lid.cached_asset_path_or_download = lambda *_, **__: str(options.model.resolve())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        few = place / "few"
        few.mkdir()
        shorten(next(iter(sorted(options.input.glob("*.jsonl.gz")))), few / "few.jsonl.gz")
        run(few, place / "warm", options.model is not None)
        before = time.process_time()
        run(options.input, place / "all", options.model is not None)
        used = time.process_time() - before
        kept = count_lines((place / "all" / "kept").glob("*"))
    read = count_lines(options.input.glob("*.jsonl.gz"))
    print(json.dumps({"cpu_s": round(used, 2), "documents_in": read, "documents_kept": kept}))


def count_lines(paths: Iterable[Path]) -> int:
    return sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in paths)


def run(source: Path, place: Path, with_language: bool) -> None:
    steps = [JsonlReader(str(source), glob_pattern="*.jsonl.gz")]
    if with_language:
        steps.append(LanguageFilter(languages=["pt"], language_threshold=0.65))
    language = "por_Latn"
    steps += [
        GopherRepetitionFilter(
            dup_line_frac=0.325,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            top_n_grams=TOP,
            dup_n_grams=REPEATED,
            language=language,
        ),
        FineWebQualityFilter(
            line_punct_thr=0.154,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.23,
            language=language,
        ),
        GopherQualityFilter(
            min_avg_word_length=3,
            max_avg_word_length=13,
            max_non_alpha_words_ratio=0.814,
            min_stop_words=2,
            stop_words=STOP_WORDS,
            language=language,
        ),
        FTFYFormatter(),
        PIIFormatter(),
        JsonlWriter(str(place / "kept")),
    ]
    LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=str(place / "logs")).run()


def shorten(source: Path, target: Path) -> None:
    with gzip.open(source, "rt") as lines, gzip.open(target, "wt") as out:
        for _, line in zip(range(50), lines, strict=False):
            out.write(line)


if __name__ == "__main__":
    main()
