"""Language identification: macro-F1 on texts whose source document no model was trained on.

    python benchmarks/langid_quality.py DATA [--folds N] [--lid176 PATH]

In: a folder with multilingual/*.jsonl.gz and corpus/*.jsonl.gz (fields id, text, lang, source,
license, url). Out: JSON on stdout; progress on stderr.

The split: a text belongs to a group, and a group to one of five folds by its hash. The group is the
source document (its URL) where a document gives many paragraphs; where a file is a list of
sentences or verses (Tatoeba, Bible) or one declaration (UDHR), it is the text itself in lower case,
so that equal texts stay together. For each fold a model is trained on the other four by
`data_jobs.language.train_langid.train` and judges the fold; documents of corpus/ that are trained
on are never tested. The weights of the engine were chosen on fold 1 with models trained on folds 2
to 4; `fold_0` was looked at by nobody before. `--folds 1` does fold 0 alone.

Macro-F1 is over the languages with at least 300 texts. The texts of all other languages are judged
too and count as false alarms; `own_texts_only` leaves them out, `of_labels_it_gives` leaves out the
languages that a system never names. The interval is the 95 % bootstrap
over groups.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.language.langid_engine import first_opinion, identify_views
from data_jobs.language.langid_windows import windows
from data_jobs.language.train_langid import digest, read_rows, train
from data_jobs.language.variety import decide_varieties
from mutirao.core.language_codes import GENERIC
from mutirao.core.recipe import LangId

FOLDS = 5
MANY_TEXTS = 300
LONG = 100  # characters
WHOLE_DOCUMENTS = ("django-girls", "elixirschool", "ud-bosque")  # sources cut into paragraphs
CORPUS = ("machado_de_assis", "leis_planalto", "ms_lync_docs_ptbr", "php_manual_ptbr")
LENGTHS = ((0, 50), (50, 100), (100, 200), (200, 10**9))
RESAMPLES = 500
WINDOW_BYTES = LangId().window_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--lid176", type=Path, help="a lid.176 model to compare with")
    options = parser.parse_args()
    texts = [r for p in sorted((options.data / "multilingual").glob("*.gz")) for r in read_rows(p)]
    corpus = {p.name.split(".")[0]: list(read_rows(p)) for p in (options.data / "corpus").iterdir()}
    extra = [row for name in CORPUS for row in corpus[name]]
    documents = [row["text"] for rows in corpus.values() for row in rows]
    print(json.dumps(report(texts, extra, documents, options), indent=1, ensure_ascii=False))


def report(texts: list[dict], extra: list[dict], documents: list[str], options: Any) -> dict:
    tested = [row for row in texts if fold(row) < options.folds]
    systems: dict[str, list[str]] = {
        "pycld2": list(map(cld2_label, views_of(tested))),
        **folds_of_ours(texts, extra, options.folds),
    }
    if options.lid176:
        systems["lid176"] = labels(views_of(tested), options.lid176, "fasttext")
    own = systems["fast"]
    return {
        "texts": len(tested),
        "languages_with_300": len(many(texts)),
        "folds": options.folds,
        "systems": {name: quality(tested, found, texts) for name, found in systems.items()},
        "fold_0": quality(*only(tested, own, lambda row: fold(row) == 0), texts),
        "by_source": tables(tested, own, texts, lambda row: row["source"]),
        "by_length": tables(tested, own, texts, length_name),
        "confusions": confusions(tested, own),
        "lowest_f1": lowest(tested, own, texts),
        "corpus": speeds(documents, options.lid176),
    }


def folds_of_ours(texts: list[dict], extra: list[dict], folds: int) -> dict[str, list[str]]:
    """{engine: label of every tested text}, each by the model of its fold."""
    found: dict[str, dict[str, str]] = {"fast": {}, "fasttext": {}}
    for number in range(folds):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, "lid.ftz")
            began = time.process_time()
            train([row for row in texts if fold(row) != number] + extra, model)
            cpu = time.process_time() - began
            print(f"fold {number}: trained in {cpu:.0f} s of CPU", file=sys.stderr)
            rows = [row for row in texts if fold(row) == number]
            for engine, by_id in found.items():
                names = labels(views_of(rows), model, engine)
                by_id.update(zip((row["id"] for row in rows), names, strict=True))
    tested = [row for row in texts if fold(row) < folds]
    return {engine: [by_id[row["id"]] for row in tested] for engine, by_id in found.items()}


def fold(row: dict) -> int:
    return digest("side " + group(row)) % FOLDS


def group(row: dict) -> str:
    """Texts of one group are never on both sides."""
    if row["source"] in WHOLE_DOCUMENTS:
        return row["url"]
    return " ".join(row["text"].lower().split())


def views_of(rows: list[dict]) -> list[bytes]:
    return windows(pa.array([row["text"] for row in rows], pa.large_string()), WINDOW_BYTES)


def labels(views: list[bytes], model: Path, engine: str) -> list[str]:
    return [label for label, _ in identify_views(views, str(model), engine)]


def cld2_label(view: bytes) -> str:
    opinion = first_opinion(view)
    return opinion.label if opinion else GENERIC


def many(texts: list[dict]) -> list[str]:
    counts = Counter(row["lang"] for row in texts)
    return sorted(language for language, count in counts.items() if count >= MANY_TEXTS)


def quality(rows: list[dict], found: list[str], texts: list[dict]) -> dict:
    """Macro-F1 with its interval, and F1 of Portuguese and Galician on longer texts."""
    languages = many(texts)
    truth = [row["lang"] for row in rows]
    low, high = interval(truth, found, [group(row) for row in rows], languages)
    own, own_found = only(rows, found, lambda row: row["lang"] in languages)
    long, long_found = only(rows, found, lambda row: len(row["text"]) >= LONG)
    f1 = f1_of([row["lang"] for row in long], long_found, ["por", "glg"])
    counts = Counter(row["lang"] for row in long)
    return {
        "macro_f1": round(macro(truth, found, languages), 4),
        "interval_95": [low, high],
        "of_labels_it_gives": round(macro(truth, found, sorted(set(languages) & set(found))), 4),
        "own_texts_only": round(macro([row["lang"] for row in own], own_found, languages), 4),
        "accuracy": round(sum(map(str.__eq__, truth, found)) / max(1, len(truth)), 4),
        "por_long": {"f1": round(f1["por"], 4), "texts": counts["por"]},
        "glg_long": {"f1": round(f1["glg"], 4), "texts": counts["glg"]},
    }


def only(rows: list[dict], found: list[str], wanted: Callable) -> tuple[list[dict], list[str]]:
    picked = [(row, name) for row, name in zip(rows, found, strict=True) if wanted(row)]
    return [row for row, _ in picked], [name for _, name in picked]


def f1_of(truth: list[str], found: list[str], languages: list[str]) -> dict[str, float]:
    true, guessed = Counter(truth), Counter(found)
    right = Counter(a for a, b in zip(truth, found, strict=True) if a == b)
    return {one: 2 * right[one] / max(1, true[one] + guessed[one]) for one in languages}


def macro(truth: list[str], found: list[str], languages: list[str]) -> float:
    return sum(f1_of(truth, found, languages).values()) / max(1, len(languages))


def interval(
    truth: list[str], found: list[str], groups: list[str], languages: list[str]
) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of macro-F1 over resampled groups."""
    number = {name: i for i, name in enumerate(languages)}
    true = np.array([number.get(name, len(number)) for name in truth])
    guess = np.array([number.get(name, len(number)) for name in found])
    _, member = np.unique(groups, return_inverse=True)
    dice, size = np.random.default_rng(0), len(number) + 1
    results = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(dice.integers(0, member.max() + 1, member.max() + 1))
        weight = np.pad(drawn, (0, member.max() + 1 - len(drawn)))[member]
        both = np.bincount(true, weight, size) + np.bincount(guess, weight, size)
        right = np.bincount(true, weight * (true == guess), size)
        results.append((2 * right / np.maximum(both, 1))[:-1].mean())
    low, high = np.percentile(results, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def tables(rows: list[dict], found: list[str], texts: list[dict], key: Callable) -> dict:
    """{part: texts, accuracy, macro-F1 over the languages with texts in that part}."""
    result = {}
    for part in sorted({key(row) for row in rows}):
        some, names = only(rows, found, lambda row, part=part: key(row) == part)
        truth = [row["lang"] for row in some]
        languages = sorted(set(truth) & set(many(texts)))
        result[part] = {
            "texts": len(some),
            "languages": len(languages),
            "accuracy": round(sum(map(str.__eq__, truth, names)) / len(some), 4),
            "macro_f1": round(macro(truth, names, languages), 4),
        }
    return result


def length_name(row: dict) -> str:
    low = next(low for low, high in LENGTHS if low <= len(row["text"]) < high)
    return f"from {low:3d} characters"


def confusions(rows: list[dict], found: list[str]) -> list[str]:
    wrong = Counter((r["lang"], f) for r, f in zip(rows, found, strict=True) if r["lang"] != f)
    return [f"{true} as {name}: {count}" for (true, name), count in wrong.most_common(20)]


def lowest(rows: list[dict], found: list[str], texts: list[dict]) -> dict[str, float]:
    f1 = f1_of([row["lang"] for row in rows], found, many(texts))
    return {name: round(value, 3) for name, value in sorted(f1.items(), key=lambda x: x[1])[:15]}


def speeds(documents: list[str], lid176: Path | None) -> dict[str, Any]:
    """CPU seconds and MB of document text per CPU second with the bundled model, windows and
    varieties included; how many of the documents (all Portuguese) are found to be."""
    from data_jobs.langid import bundled_model

    column = pa.array(documents, pa.large_string())
    size = sum(len(text.encode()) for text in documents) / 1e6
    systems: dict[str, Callable[[list[bytes]], list[str]]] = {
        "fast": lambda views: labels(views, bundled_model(), "fast"),
        "fasttext": lambda views: labels(views, bundled_model(), "fasttext"),
        "pycld2": lambda views: list(map(cld2_label, views)),
        "varieties": lambda views: decide_varieties(views, "por"),
    }
    if lid176:
        systems["lid176"] = lambda views: labels(views, lid176, "fasttext")
    result: dict[str, Any] = {"documents": len(documents), "text_mb": round(size, 1)}
    for name, system in systems.items():
        system(windows(column[:10], WINDOW_BYTES))  # the model is loaded, the kernels compiled
        began = time.process_time()
        found = system(windows(column, WINDOW_BYTES))
        cpu = time.process_time() - began
        result[name] = {"cpu_s": round(cpu, 2), "mb_per_cpu_s": round(size / cpu, 1)}
        if name != "varieties":
            result[name]["por"] = round(found.count("por") / len(found), 4)
    return result


if __name__ == "__main__":
    main()
