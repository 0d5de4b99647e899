"""Paragraph mode: each paragraph is identified by itself, and foreign ones are left out.

In: a batch of text. Out: for each document a Verdict: its main language, the share of its bytes in
the wanted languages, and the byte ranges to keep. A paragraph is one or more lines; short lines are
joined to the next ones, since a few words tell no language. What has no letters, or is not surely
another language, stays with its neighbours and counts on neither side. Instruction documents are
judged in the same way and never cut.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.language.langid_engine import identify_views
from data_jobs.language.langid_windows import range_views
from data_jobs.shards import utf8_buffers
from mutirao.core.language_codes import GENERIC

SHORT_BYTES = 100  # a paragraph that is shorter takes the next line in
LINE, BLANK = re.compile(rb"\n*[^\n]+\n*"), b"\n\n"
Range = tuple[int, int]


@dataclass(frozen=True)
class Verdict:
    label: str  # our ISO 639-3 label, 'und' where there is no letter
    confidence: float
    share: float  # of the text in the wanted languages
    spans: list[int] | None = None  # [start, end, ...] in bytes to keep; None: all


def judge_paragraphs(
    batch: pa.RecordBatch, item: dict[str, Any], confusable: frozenset[str]
) -> list[Verdict]:
    """One verdict a row. The batch's paragraphs are identified in one call."""
    data, offsets = utf8_buffers(batch.column("text"))
    raw = np.ascontiguousarray(data).data
    documents = [
        paragraph_ranges(bytes(raw[start:end]))
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    counts = [len(ranges) for ranges in documents]
    starts = np.array([a for ranges in documents for a, _ in ranges], np.int64)
    ends = np.array([b for ranges in documents for _, b in ranges], np.int64)
    places = np.repeat(offsets[:-1], counts)
    views = range_views(data, starts + places, ends + places, item["window_bytes"])
    found = iter(identify_views(views, item["model"], item["engine"], confusable))
    kinds = batch.column("kind").to_pylist()
    verdicts = [verdict(ranges, [next(found) for _ in ranges], item) for ranges in documents]
    texts = zip(offsets[:-1].tolist(), offsets[1:].tolist(), kinds, verdicts, strict=True)
    return [
        replace(one, spans=None if kind == "instruction" else trimmed(raw[start:end], one.spans))
        for start, end, kind, one in texts
    ]


def paragraph_ranges(text: bytes) -> list[Range]:
    """Byte ranges that cover the text: whole lines, each range of at least SHORT_BYTES but where
    the text itself is shorter. A short rest goes to the lines before it up to a blank line, else
    to the next ones. Line ends belong to the range before them."""
    ranges: list[Range] = []
    start = 0
    for match in LINE.finditer(text):
        end = match.end()
        if end - start >= SHORT_BYTES:
            ranges.append((start, end))
            start = end
        elif ranges and text[end - 2 : end] == BLANK and text[start - 2 : start] != BLANK:
            ranges[-1], start = (ranges[-1][0], end), end
    if start < len(text):
        ranges = [*ranges[:-1], (ranges[-1][0] if ranges else 0, len(text))]
    return ranges


def verdict(ranges: list[Range], found: list[tuple[str, float]], item: dict[str, Any]) -> Verdict:
    """Of one document, from its paragraphs' (label, confidence)."""
    sizes: dict[str, int] = defaultdict(int)
    surety: dict[str, float] = defaultdict(float)
    wanted = foreign = 0
    stays: list[bool] = []
    for (start, end), (label, confidence) in zip(ranges, found, strict=True):
        sizes[label] += end - start
        surety[label] += confidence * (end - start)
        other = label not in item["keep"] and confidence >= item["min_confidence"]
        wanted += (label in item["keep"]) * (end - start)
        foreign += other * (end - start)
        stays.append(not other)
    share = round(wanted / (wanted + foreign), 3) if wanted else 0.0
    # The wanted language that there is most of, where enough is wanted; else the main language.
    named = set(item["keep"]) if share and share >= item["min_share"] else set(sizes) - {GENERIC}
    label = max(sorted(named & set(sizes)), key=sizes.__getitem__, default=GENERIC)
    confidence = round(surety[label] / sizes[label], 3) if sizes.get(label) else 0.0
    return Verdict(label, confidence, share, merged(ranges, stays) if foreign else None)


def merged(ranges: list[Range], stays: list[bool]) -> list[int]:
    """[start, end, start, end, ...] of the ranges that stay, neighbours joined."""
    spans: list[int] = []
    for (start, end), stay in zip(ranges, stays, strict=True):
        if stay and spans and spans[-1] == start:
            spans[-1] = end
        elif stay:
            spans += [start, end]
    return spans


def trimmed(text: memoryview, spans: list[int] | None) -> list[int] | None:
    """The spans without the line ends behind the last one."""
    if spans:
        start, end = spans[-2:]
        spans = [*spans[:-1], start + len(bytes(text[start:end]).rstrip())]
    return spans
