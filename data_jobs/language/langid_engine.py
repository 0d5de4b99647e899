"""Identify the language of short views of text: pycld2's first opinion, fastText where it is not
enough.

In: UTF-8 views (langid_windows), a fastText model, an engine. Out: our ISO 639-3 label and a
confidence for each view.

`fast`: pycld2 decides alone on a view that is long, in one language and full of that language's own
words; languages that are easily confused need more of them (`languages/codes.yaml`). All other
views go to fastText too, and both opinions are added up. `fasttext`: fastText alone, the only
engine that knows nothing but the model. pycld2 is Compact Language Detector 2 (Sites 2013); its
score is the evidence of four-letter and word tables for each 1,024 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pycld2

from data_jobs.language.langid_windows import line
from mutirao.core.errors import RecipeError
from mutirao.core.language_codes import GENERIC, codes, label_language

# Chosen on the training side of benchmarks/langid_quality.py. A language's own text scores 600 and
# more; a relative that pycld2 does not know (Cape Verdean as Portuguese) scores 450 and less.
ALONE_BYTES = 200
ALONE_PERCENT, ENGLISH_PERCENT = 70, 95  # the rest of a mixed view is mostly names and code
ALONE_SCORE, CONFUSABLE_SCORE = 400, 550
CLD2_WEIGHT = 5.0  # of pycld2's share of a view, against the logarithm of fastText's probability
TOP = 6  # fastText's labels looked at
FLOOR = 1e-6  # probability of a label below the TOP


@dataclass(frozen=True)
class Opinion:
    """What pycld2 says of one view."""

    label: str  # its first language
    percent: int
    score: float
    text_bytes: int
    reliable: bool
    shares: tuple[tuple[str, float], ...]  # (label, share of the view) of at most three


class Model:
    """A fastText model with its labels in our codes."""

    def __init__(self, path: str) -> None:
        import fasttext

        try:
            self.model = fasttext.load_model(path)
        except ValueError as error:
            raise RecipeError(f"Not a fastText model: {error}", path, code="bad-model") from error
        self.names = {raw: label_language(raw) for raw in self.model.get_labels()}
        self.known = frozenset(self.names.values())

    def predict(self, lines: list[str], top: int) -> list[dict[str, float]]:
        """{label: probability} of each line; labels that are one language for us are added."""
        found: list[dict[str, float]] = []
        for labels, chances in zip(*self.model.predict(lines, k=top), strict=True):
            summed: dict[str, float] = {}
            for raw, chance in zip(labels, chances.tolist(), strict=True):
                name = self.names[raw]
                summed[name] = summed.get(name, 0.0) + min(chance, 1.0)
            found.append(summed)
        return found


@cache
def load(path: str) -> Model:
    """The model, once a process. Raises RecipeError if the file is not one."""
    return Model(path)


def identify_views(
    views: list[bytes],
    model: str,
    engine: str = "fast",
    confusable: frozenset[str] = frozenset(),
) -> list[tuple[str, float]]:
    """(our label, confidence from 0 to 1) of each view; ('und', 0) where there is no letter.

    confusable: labels for which pycld2 must be surer, besides those of `codes.yaml`.

    Three decimals: the rest differs between processors, and is hashed. The confidence is the share
    of the view in the language where pycld2 decides alone, else the probability of the label.
    """
    loaded = load(model)
    fast = engine == "fast"
    careful = codes().confusable | confusable
    opinions = [first_opinion(view) if fast else None for view in views]
    answers: list[tuple[str, float]] = [(GENERIC, 0.0)] * len(views)
    waiting, lines = [], []
    for row, (view, opinion) in enumerate(zip(views, opinions, strict=True)):
        if opinion is not None and decides_alone(opinion, loaded.known, careful):
            answers[row] = opinion.label, opinion.percent / 100
        elif any(map(str.isalpha, text := line(view))):
            waiting.append(row)
            lines.append(text)
    for row, chances in zip(waiting, loaded.predict(lines, TOP) if lines else [], strict=True):
        answers[row] = joint(chances, opinions[row], loaded.known)
    return answers


def first_opinion(view: bytes) -> Opinion | None:
    """None where pycld2 refuses the text (control characters) or finds no language."""
    try:
        reliable, text_bytes, details = pycld2.detect(view, isPlainText=True, bestEffort=True)
    except pycld2.error:
        return None
    if details[0][2] == 0:
        return None
    shares = [(cld2_label(code), percent / 100) for _, code, percent, _ in details if percent]
    _, _, percent, score = details[0]
    return Opinion(shares[0][0], percent, score, text_bytes, reliable, tuple(shares))


def decides_alone(opinion: Opinion, known: frozenset[str], confusable: frozenset[str]) -> bool:
    """True where fastText need not be asked."""
    if not opinion.reliable or opinion.text_bytes < ALONE_BYTES:
        return False
    share = ENGLISH_PERCENT if opinion.label == "eng" else ALONE_PERCENT
    if opinion.percent < share or opinion.label in codes().twins or opinion.label == GENERIC:
        return False
    strange = opinion.label in confusable or opinion.label not in known
    return opinion.score >= (CONFUSABLE_SCORE if strange else ALONE_SCORE)


def joint(
    chances: dict[str, float], opinion: Opinion | None, known: frozenset[str]
) -> tuple[str, float]:
    """The label with the largest sum of fastText's log-probability and pycld2's weighted share,
    and its probability among all of them."""
    if opinion is not None:
        shares = [(label, share) for label, share in opinion.shares if label in known]
        chances = {label: FLOOR for label, _ in shares} | chances
        for label, share in shares:
            chances[label] = max(chances[label], FLOOR) * math.exp(CLD2_WEIGHT * share)
    if not chances:  # a model of whole words that knows none of these
        return GENERIC, 0.0
    total = sum(chances.values())
    label = min(chances, key=lambda name: (-chances[name], name))
    return label, round(min(chances[label] / total, 1.0), 3) if total else 0.0


@cache
def cld2_label(code: str) -> str:
    return label_language(code)
