"""The measured values in plain Python, as their definitions read: slow, short, independent."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise

from data_jobs.words import BULLETS, QUOTES, SENTENCE_MARKS


def oracle(text: str, stop_words: frozenset[str], further: str = "") -> dict[str, float]:
    words = words_of(text, further)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = paragraphs_of(text)
    letters = [c for c in text if c.isalpha()]
    stops = [word.lower() for word in words if word.lower() in stop_words]
    lowered = [word.lower() for word in words]
    n, rows = max(len(words), 1), max(len(lines), 1)
    end = re.escape(SENTENCE_MARKS), re.escape(SENTENCE_MARKS + QUOTES)
    found = {
        "words": len(words),
        "characters": len(text),
        "lines": len(lines),
        "paragraphs": len(paragraphs),
        "sentences": len(re.findall(rf"[{end[0]}][{end[1]}]*(?=\s|\Z)", text)),
        "mean_word_length": sum(map(len, words)) / n,
        "alpha_words": sum(any(c.isalpha() for c in word) for word in words) / n,
        "symbol_ratio": (text.count("#") + text.count("…") + len(re.findall(r"\.{3,}", text))) / n,
        "stop_words": len(stops) / n,
        "distinct_stop_words": len(set(stops)),
        "uppercase": sum(c.isupper() for c in letters) / max(len(letters), 1),
        "bullet_lines": sum(line[0] in BULLETS for line in lines) / rows,
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines) / rows,
        "terminal_lines": sum(line[-1] in SENTENCE_MARKS + QUOTES for line in lines) / rows,
        "short_lines": sum(len(line) <= 30 for line in lines) / rows,
        "newlines": text.count("\n") / n,
        "curly_brackets": (text.count("{") + text.count("}")) / max(len(text), 1),
        "javascript_lines": sum("javascript" in words_of(x.lower(), further) for x in lines) / rows,
        "lorem_ipsum": sum(p == ("lorem", "ipsum") for p in pairwise(lowered)),
    }
    keys = [line.lower() for line in lines]  # the same whatever their case
    found["duplicate_lines"], found["duplicate_line_characters"] = repeated(keys, lines)
    joined = [tuple(line.lower() for line in p) for p in paragraphs]
    lengths = ["".join(p) for p in paragraphs]
    found["duplicate_paragraphs"], found["duplicate_paragraph_characters"] = repeated(
        joined, lengths
    )
    for size, name in ((2, "top_bigram"), (3, "top_trigram"), (4, "top_4gram")):
        found[name] = top(lowered, size)
    for size in range(5, 11):
        found[f"duplicate_{size}grams"] = duplicated(lowered, size)
    return found


def words_of(text: str, further: str) -> list[str]:
    marks = re.escape("".join(c for c in further if unicodedata.category(c)[0] == "M"))
    joiners = re.escape("".join(c for c in further if unicodedata.category(c)[0] != "M"))
    word = rf"[\w{marks}]+"
    return re.findall(rf"{word}(?:[{joiners}]{word})*" if joiners else word, text)


def paragraphs_of(text: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            found[-1].append(line.strip())
        elif found[-1]:
            found.append([])
    return [one for one in found if one]


def repeated(keys: list, texts: list[str]) -> tuple[float, float]:
    seen, count, characters = set(), 0, 0
    for key, text in zip(keys, texts, strict=True):
        count += key in seen
        characters += len(text) * (key in seen)
        seen.add(key)
    return count / max(len(keys), 1), characters / max(sum(map(len, texts)), 1)


def top(words: list[str], n: int) -> float:
    grams = Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))
    total = sum(map(len, words))
    best = max((c * sum(map(len, g)) for g, c in grams.items() if c > 1), default=0)
    return min(1.0, best / max(total, 1))


def duplicated(words: list[str], n: int) -> float:
    """Characters of the places that a repeated n-gram covers, each counted once."""
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for k in range(len(words) - n + 1):
        gram = tuple(words[k : k + n])
        if gram in seen:
            covered |= set(range(k, k + n))
        seen.add(gram)
    return sum(len(words[k]) for k in covered) / max(sum(map(len, words)), 1)
