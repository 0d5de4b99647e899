"""Good documents kept by thresholds that were derived without their source; damage still caught.

    python benchmarks/filter_keep_rate.py GOOD_FILES... --language por --messy messy_pt.jsonl.gz

GOOD_FILES: documents worth keeping, in several sources (a document's `source` field, else the
file). For each source, stop words and thresholds are derived from all others by the very function
of `mutirao lang new`, then the share of the left-out source's documents that they keep is measured,
after cleaning, by the filter alone. `data_alone` leaves out the guards of derive_pack: those were
chosen while all ten sources of our corpus were in view. `shipped`: the pack of the language.
`fineweb2`: datatrove 0.10.1 with FineWeb-2's por_Latn.yml and its language filter on the same ten
sources, measured on 2026-11-25. --messy: damaged documents with their `kind`; `caught` is the share
that the filter drops after cleaning, by the shipped pack and by the weakest of the folds.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter

from data_jobs.quality.derive_pack import Derived, derive
from data_jobs.quality.measure import measure
from data_jobs.quality.reference_text import Reference, read_reference
from data_jobs.quality.rules import Limits, columns, decide, profiles
from mutirao.core.languages import load_pack

FINEWEB2 = {
    "php": 0.73,
    "machado": 0.66,
    "lync": 0.63,
    "senado": 0.62,
    "bosque": 0.57,
    "leis": 0.49,
    "django": 0.39,
    "react": 0.37,
    "elixir": 0.31,
    "learnx": 0.04,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("good", nargs="+")
    parser.add_argument("--language", default="por")
    parser.add_argument("--messy", help="damaged documents with a field `kind`")
    options = parser.parse_args()
    references = read_reference(options.language, options.good)
    pack = load_pack(options.language)
    shipped = profiles(pack, {})[""]
    folds, sources = {}, {}
    for left_out in references:
        others = [one for one in references if one is not left_out]
        guarded = derive(others, pack.word_characters)
        alone = derive(others, pack.word_characters, guards=False)
        folds[left_out.source] = guarded
        own = (pack.stop_words, shipped)
        sources[left_out.source] = {
            "documents": len(left_out.texts),
            **judged(left_out, guarded.stop_words, guarded.thresholds, pack.word_characters),
            "data_alone": judged(
                left_out, alone.stop_words, alone.thresholds, pack.word_characters
            )["kept"],
            "shipped": judged(left_out, *own, pack.word_characters)["kept"],
            "fineweb2": next((v for k, v in FINEWEB2.items() if k in left_out.source), None),
        }
    result = {
        "worst_source_kept": min(one["kept"] for one in sources.values()),
        "kept_of_all": share(sources, "kept"),
        "worst_source_data_alone": min(one["data_alone"] for one in sources.values()),
        "worst_source_shipped": min(one["shipped"] for one in sources.values()),
        "sources": sources,
    }
    if options.messy:
        result["caught"] = caught(options, folds)
    print(json.dumps(result, indent=1, ensure_ascii=False))


def judged(one: Reference, stop_words, limits: Limits, word_characters: str) -> dict:
    """{kept: share, reasons: {reason: documents}} of a source's documents."""
    reasons = decide(columns(measure(one.texts, stop_words, word_characters)), limits)
    dropped = Counter(reason for reason in reasons.tolist() if reason)
    kept = round(1 - dropped.total() / len(one.texts), 4)
    return {"kept": kept, "reasons": dict(dropped.most_common())}


def share(sources: dict, name: str) -> float:
    total = sum(one["documents"] for one in sources.values())
    return round(sum(one[name] * one["documents"] for one in sources.values()) / total, 4)


def caught(options: argparse.Namespace, folds: dict[str, Derived]) -> dict:
    """By kind of damage the share dropped by cleaning, by the shipped pack, by the weakest fold."""
    pack = load_pack(options.language)
    kinds = kinds_of(options.messy)
    left: dict[str, list[str]] = {kind: [] for kind in kinds.values()}
    for one in read_reference(options.language, [options.messy]):
        for name, text in zip(one.names, one.texts, strict=True):
            left[kinds[name]].append(text)
    found = {}
    for kind, texts in left.items():
        total = sum(entry == kind for entry in kinds.values())
        by_cleaning = round(1 - len(texts) / total, 4)
        found[kind] = {"by_cleaning": by_cleaning, "shipped": by_cleaning, "weakest": by_cleaning}
        if texts:
            one = Reference(kind, texts)
            own = judged(one, pack.stop_words, profiles(pack, {})[""], pack.word_characters)
            others = [
                judged(one, fold.stop_words, fold.thresholds, pack.word_characters)["kept"]
                for fold in folds.values()
            ]
            found[kind]["shipped"] = round(1 - own["kept"] * len(texts) / total, 4)
            found[kind]["weakest"] = round(1 - max(others) * len(texts) / total, 4)
            found[kind]["reasons"] = own["reasons"]
    return found


def kinds_of(path: str) -> dict[str, str]:
    """{id: kind} of the damaged documents."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["id"]: row["kind"] for row in rows}


if __name__ == "__main__":
    main()
