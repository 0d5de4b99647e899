"""What cleaning and filtering make of known damage: recall and precision by kind of damage.

    python benchmarks/messy_outcomes.py --messy messy_pt.jsonl.gz --good DIR

--messy: rows of `kind`, `text` (damaged) and `clean` (before the damage); --good: a folder of files
whose documents are good as they are. Prints one JSON object. The wanted outcome of each kind stands
in WANTED, named before anything was measured. `repaired`: RapidFuzz's Indel similarity (1 - edits /
length of both) of the characters to the truth is 0.98 or more, runs of blanks and line ends counted
as one blank, and the document stays. `dropped`: `clean`, `langid` or `filter` gives a reason.
`untouched`: the same text, and it stays.

Recall: share of a kind's rows with the wanted outcome. Precision: among all documents in which the
repair changed something (or that were dropped for the reason), the share that are of the kind or of
another kind with the same sign; the other rows and the good documents are the rest. Good documents
that really hold e-mail addresses, IP addresses or telephone numbers are masked rightly: for
personal data a good document counts as wrong where a mask hit one of FALSE_MASKS, which a person
found by reading all that were masked.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Indel

from data_jobs.cleaning.clean_unit import BATCH_DOCUMENTS as BATCH
from data_jobs.cleaning.cleaner import Cleaned, Cleaner, CleanSettings
from data_jobs.shards import text_paths
from mutirao.core.languages import load_pack
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe, Source
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.schemas import read_ipc
from mutirao.core.workdir import Workdir
from mutirao.run.execute import Options, execute
from mutirao.run.show import manifests

SIMILAR = 0.98


@dataclass(frozen=True)
class Wanted:
    outcome: str  # 'repaired', 'dropped' or 'untouched'
    signs: frozenset[str]  # counts of `Cleaned` or reasons of a drop that say it happened


MASKS = frozenset(f"masked.{kind}" for kind in ("email", "phone", "cpf", "cep", "ip", "cnpj"))
REPEATED = frozenset({"repetition-words", "repetition-lines"})
WANTED = {
    "clean": Wanted("untouched", frozenset()),
    "mojibake": Wanted("repaired", frozenset({"repaired"})),
    "double_mojibake": Wanted("repaired", frozenset({"repaired"})),
    "decode_error": Wanted("dropped", frozenset({"decode-error"})),  # its letters are gone
    "html": Wanted("repaired", frozenset({"html"})),
    "repeated_header": Wanted("repaired", frozenset({"boilerplate_lines"})),
    "one_line_repeated": Wanted("dropped", REPEATED),  # one sentence is no document
    "hyphenated": Wanted("repaired", frozenset({"hyphens"})),
    "spaced_letters": Wanted("repaired", frozenset({"spaced_letters"})),
    "shouting": Wanted("dropped", frozenset({"shouting"})),  # which capitals were names is lost
    "cookie_banner": Wanted("repaired", frozenset({"boilerplate_lines"})),
    "personal_data": Wanted("repaired", MASKS),
}
# Names of ciphers and of nodes, which look like addresses.
FALSE_MASKS = re.compile(r"rijndael-cbc@lysator|hmac-ripemd160@openssh|learner@elixirschool")
# What the maker of the messy rows puts after 600 characters, masked.
CONTACT = " Contato: <email>, tel. <phone>, CPF <cpf>, CEP <cep>, IP <ip>."


def truth(row: dict[str, Any]) -> str:
    """The text before the damage, as far as the damaged row holds it (three kinds cut it)."""
    cut = {"spaced_letters": 1500, "cookie_banner": 200, "personal_data": 600}
    text = row["clean"][: cut.get(row["kind"], len(row["clean"]))]
    return text + CONTACT if row["kind"] == "personal_data" else text


@dataclass
class Seen:
    """One document after cleaning and judging."""

    kind: str  # '' for a good document
    cleaned: Cleaned
    reason: str  # of `clean`, `langid` or `filter`; '' if it stays
    text: str
    signs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.signs = set(self.cleaned.counts) | {self.reason}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messy", type=Path, required=True)
    parser.add_argument("--good", type=Path, required=True)
    parser.add_argument("--language", default="por_Latn")
    options = parser.parse_args()
    rows = list(_rows(options.messy))
    good = [row for path in sorted(options.good.glob("*.jsonl*")) for row in _rows(path)]
    cleaner = Cleaner(CleanSettings(), load_pack(options.language).cleaning)
    cleaner.clean([rows[0]["text"]])  # what is compiled or loaded once
    damaged, _ = judged(rows, cleaner, options.language)
    cleaner.calls.clear()
    fine, cpu_s = judged(good, cleaner, options.language)
    size = sum(len(row["text"].encode()) for row in good)
    report = {
        "kinds": {kind: score(kind, rows, damaged, fine) for kind in WANTED},
        "good documents": {
            "documents": len(fine),
            "changed": sum(one.text != one.cleaned.text for one in fine),
            "signs": dict(Counter(sign for one in fine for sign in sorted(one.cleaned.counts))),
            "reasons": dict(Counter(one.reason for one in fine if one.reason)),
        },
        "cleaning alone": {
            "cpu_s": round(cpu_s, 3),
            "text_bytes": size,
            "mb_per_cpu_s": round(size / cpu_s / 1e6, 1),
            "documents each step was called for": dict(cleaner.calls.most_common()),
        },
    }
    print(json.dumps(report, indent=1, ensure_ascii=False))


def judged(rows: list[dict[str, Any]], cleaner: Cleaner, language: str) -> tuple[list[Seen], float]:
    """What became of each row, and the CPU-seconds of cleaning alone."""
    texts = [row["text"] for row in rows]
    began = time.process_time()
    cleaned = [
        one for i in range(0, len(texts), BATCH) for one in cleaner.clean(texts[i : i + BATCH])
    ]
    cpu_s = time.process_time() - began
    reasons = decisions([one.text for one in cleaned], language)
    return [
        Seen(row.get("kind", ""), one, one.reason or reasons[i], row["text"])
        for i, (row, one) in enumerate(zip(rows, cleaned, strict=True))
    ], cpu_s


def decisions(texts: list[str], language: str) -> list[str]:
    """The reason `langid` or `filter` gives each text, '' for none, by a run of the stages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        rows = ({"id": str(i), "text": text} for i, text in enumerate(texts))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        recipe = Recipe(name="m", language=language, sources=(Source(path=str(path), name="s"),))
        place = Workdir(Path(folder) / "work")
        settings = Options(until="filter", use_ray=False)
        loaded = LoadedRecipe(recipe, "", "benchmark", Path(folder))
        stages = manifests(place, execute(loaded, place, settings, Progress(quiet=True)))
        reasons = ["dropped by clean"] * len(texts)
        for shard, path in enumerate(text_paths(stages["clean"])):
            names = read_ipc(path, "text")["name"].to_pylist()
            found = [
                read_ipc(stages[stage].paths(f"{stage}-")[shard])["reason"].to_pylist()
                for stage in ("langid", "filter")
            ]
            for name, first, second in zip(names, *found, strict=True):
                reasons[int(name)] = first or second or ""
    return reasons


def score(
    kind: str, rows: list[dict[str, Any]], damaged: list[Seen], fine: list[Seen]
) -> dict[str, Any]:
    wanted = WANTED[kind]
    own = [(row, one) for row, one in zip(rows, damaged, strict=True) if row["kind"] == kind]
    right = sum(is_right(wanted.outcome, row, one) for row, one in own)
    result = {"wanted": wanted.outcome, "rows": len(own), "recall": round(right / len(own), 4)}
    if not wanted.signs:
        return result
    alike = {name for name, other in WANTED.items() if other.signs & wanted.signs}
    fired = [one for one in damaged if one.signs & wanted.signs]
    hits = sum(one.kind in alike for one in fired)
    in_good = [one for one in fine if one.signs & wanted.signs]
    if wanted.signs == MASKS:
        wrong = sum(bool(FALSE_MASKS.search(one.text)) for one in in_good)
        hits += len(in_good) - wrong
    everywhere = len(fired) + len(in_good)
    return {
        **result,
        "precision": round(hits / max(everywhere, 1), 4),
        "fired in other rows": dict(Counter(one.kind for one in fired if one.kind not in alike)),
        "fired in good documents": len(in_good),
    }


def is_right(outcome: str, row: dict[str, Any], one: Seen) -> bool:
    if outcome == "dropped":
        return bool(one.reason)
    if outcome == "untouched":
        return not one.reason and one.cleaned.text == row["text"]
    return not one.reason and similarity(one.cleaned.text, truth(row)) >= SIMILAR


def similarity(a: str, b: str) -> float:
    return Indel.normalized_similarity(" ".join(a.split()), " ".join(b.split()))


def _rows(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


if __name__ == "__main__":
    main()
