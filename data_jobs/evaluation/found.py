"""How much of each evaluation set stands in the corpus: `found.json` of `decontaminate`.

In: the hits of all shards, read one shard after another. Out: by set its texts, how many of them
share an n-gram with a document, and the n-grams set aside as common; by text the first such place,
so that a contaminated item can be left out of an evaluation. Memory: 60 bytes an evaluation n-gram.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.evaluation.hits import Judged, counted, per_row
from data_jobs.evaluation.ngrams import Index, Ngrams
from data_jobs.evaluation.sets import LookedFor
from data_jobs.keyed import read_records
from mutirao.core.recipe import Recipe

FORMAT = 1
TOLD = 20  # common n-grams, those of most documents first


@dataclass
class Tally:
    """By n-gram: documents that have it, and shard, row and byte of the first that counts."""

    documents: np.ndarray  # int64
    place: np.ndarray  # int64[n-grams, 3], -1 where there is none
    found: np.ndarray  # bool: a hit that counts
    dropped: dict[int, int]  # set -> documents dropped, by the first set that a document matched

    @classmethod
    def of(cls, hits: list[Path], ngrams: int) -> Tally:
        """First pass over the files of hits, in the order of their shards."""
        documents, place = np.zeros(ngrams, np.int64), np.full((ngrams, 3), -1)
        for shard, path in enumerate(hits):
            one = read_records(path)
            pairs = np.unique((one["gram"].astype(np.int64) << 32) | one["row"])
            documents += np.bincount(pairs >> 32, minlength=ngrams)
            _note_first(place, one, shard)
        return cls(documents, place, np.zeros(ngrams, bool), {})

    def count(self, hits: list[Path], verdicts: Judged, n: int, max_overlap: float) -> None:
        """Second pass: what counts, now that the common n-grams are known."""
        for path in hits:
            one = read_records(path)
            one = one[counted(one, verdicts, n)]
            self.found[one["gram"]] = True
            rows = per_row(one, verdicts, n)
            rows = rows[rows["overlap"] > np.float32(max_overlap)]
            for number, documents in zip(*np.unique(rows["set"], return_counts=True), strict=True):
                self.dropped[int(number)] = self.dropped.get(int(number), 0) + int(documents)


def _note_first(place: np.ndarray, hits: np.ndarray, shard: int) -> None:
    order = np.lexsort((hits["word"], hits["row"], hits["gram"]))
    grams, first = np.unique(hits["gram"][order], return_index=True)
    new = place[grams, 0] < 0
    chosen = order[first[new]]
    place[grams[new], 0] = shard
    place[grams[new], 1] = hits["row"][chosen]
    place[grams[new], 2] = hits["offset"][chosen]


def findings(
    recipe: Recipe,
    sets: list[LookedFor],
    ngrams: list[Ngrams],
    index: Index,
    tally: Tally,
    verdicts: Judged,
) -> dict[str, Any]:
    """{sets: [{name, title, license, texts, short_texts, ngrams, texts_found, share_found,
    documents_dropped, common_ngrams}], items: {set: [{text, ngrams, found, shard, row}]}, common:
    [{set, documents, shard, row, offset}]}. `text` counts the distinct texts that are looked for,
    from 0 in the order of the set."""
    rows, items = [], {}
    for number, (one, own) in enumerate(zip(sets, ngrams, strict=True)):
        here = index.set == number
        grams, texts = index.gram[here], index.text[here]
        items[one.name] = _items(grams, texts, tally)
        looked_for = own.texts - own.short
        rows.append(
            {
                "name": one.name,
                **one.about,
                "texts": own.texts,
                "short_texts": own.short,
                "ngrams": len(np.unique(grams)),
                "texts_found": len(items[one.name]),
                "share_found": round(len(items[one.name]) / max(looked_for, 1), 6),
                "documents_dropped": tally.dropped.get(number, 0),
                "common_ngrams": int(verdicts["common"][np.unique(grams)].sum()),
            }
        )
    config = recipe.decontaminate.model_dump(mode="json", include={"ngram", "min_words"})
    common = _common([one.name for one in sets], tally, verdicts)
    return {"format": FORMAT, **config, "sets": rows, "items": items, "common": common}


def _items(grams: np.ndarray, texts: np.ndarray, tally: Tally) -> list[dict[str, int]]:
    """The texts of one set that have an n-gram in the corpus."""
    found = tally.found[grams]
    rows = []
    numbers, first = np.unique(texts[found], return_index=True)
    of_text = np.bincount(texts, minlength=1)
    of_found = np.bincount(texts[found], minlength=1)
    for number, gram in zip(numbers.tolist(), grams[found][first].tolist(), strict=True):
        shard, row, _ = tally.place[gram].tolist()
        counts = {"ngrams": int(of_text[number]), "found": int(of_found[number])}
        rows.append({"text": number, **counts, "shard": shard, "row": row})
    return rows


def _common(names: list[str], tally: Tally, verdicts: Judged) -> list[dict[str, Any]]:
    grams = np.flatnonzero(verdicts["common"])
    grams = grams[np.argsort(-tally.documents[grams], kind="stable")][:TOLD]
    return [
        {
            "set": names[verdicts["set"][gram]],
            "documents": int(tally.documents[gram]),
            **dict(zip(("shard", "row", "offset"), tally.place[gram].tolist(), strict=True)),
        }
        for gram in grams
    ]
