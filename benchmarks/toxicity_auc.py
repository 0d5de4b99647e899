"""Toxicity of Portuguese tweets (ToLD-Br): the area under the ROC curve of a `filter.scores` model.

    python benchmarks/toxicity_auc.py --train ptbr_train_1annotator.csv \\
        --test ptbr_test_1annotator.csv

Trains with `data_jobs.quality.train_score` on the train split and reports on the test split, with a
95 % bootstrap interval, the time, and the documents a second that the model scores on one thread.
ToLD-Br: Leite et al. 2020, arXiv:2010.04543, CC-BY-SA-4.0. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from data_jobs.quality.scores import score
from data_jobs.quality.train_score import SEED, TRAIN, read_labels, report, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    options = parser.parse_args()
    rows = read_labels(options.train, "text", "toxic", 0.5)
    test = read_labels(options.test, "text", "toxic", 0.5)
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder, "toxic.bin")
        began = time.process_time()
        model = train(rows, model_file)
        trained = time.process_time()
        texts = [text for text, _ in test]
        score(model, texts)
        scored = time.process_time()
        result = {
            "test": report(model, test),
            "trained_on": len(rows),
            "train_cpu_s": round(trained - began, 1),
            "scored_per_cpu_s": round(len(texts) / (scored - trained)),
            "model_bytes": model_file.stat().st_size,
            "settings": {**TRAIN, "seed": SEED},
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
