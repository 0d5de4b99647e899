"""Counts of what `clean` read, kept and rejected: by reason, by licence, by genre.

They are sums, so those of the parts of a unit add up to the unit's and those of the units to the
source's (`shards.add_counts`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from data_jobs.quality.licenses import label
from data_jobs.read.documents import Reject

DAMAGE = frozenset(  # counts against ingest.max_quarantined: the source is broken, not unwanted
    (
        "bad-messages",
        "bad-row",
        "bad-xml",
        "invalid-json",
        "invalid-utf8",
        "missing-field",
        "not-an-object",
        "not-text",
        "nul-bytes",
        "truncated",
        "unknown-role",
        "unreadable",
        "wrong-columns",
    )
)
ALWAYS = (
    "documents_in",
    "documents_out",
    "bytes_in",
    "text_bytes_out",
    "damaged_bytes",
    "repaired",
    "nul_characters",
)


class Tally:
    """Counts of the records read since the last part; `first` is the unit's first damaged place.

    has_keys: the names of fields are the format's own; a CSV file without a header has text there,
    which belongs in no message.
    """

    def __init__(self, file: str, has_keys: bool, first: str = ""):
        self.file, self.has_keys, self.first = file, has_keys, first
        self.clear()

    def clear(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(ALWAYS, 0))
        self.by: dict[str, Counter[str]] = {
            "rejected": Counter(),
            "license_bytes": Counter(),
            "genre_bytes": Counter(),
        }

    def reject(self, row: Reject) -> None:
        self.counts["documents_in"] += 1
        self.counts["bytes_in"] += row.size
        self.by["rejected"][row.reason] += 1
        if row.reason in DAMAGE:
            self.counts["damaged_bytes"] += max(row.size, 1)
            self.first = self.first or self._place(row)

    def _place(self, row: Reject) -> str:
        shown = self.has_keys and row.reason == "missing-field"
        fields = f" ({row.snippet})" if shown else ""
        return f"{self.file}:{row.position + 1} {row.reason}{fields}"

    def keep(
        self,
        sizes: list[int],
        text_bytes: list[int],
        licenses: list[str],
        genre: str,
        cleaned: Iterable[dict[str, int]],
    ) -> None:
        """Documents that are kept: what each took in the file, its text, licence and repairs."""
        total = sum(text_bytes)
        self.counts["documents_in"] += len(sizes)
        self.counts["documents_out"] += len(sizes)
        self.counts["bytes_in"] += sum(sizes)
        self.counts["text_bytes_out"] += total
        self.by["genre_bytes"][genre] += total
        for license, size in zip(licenses, text_bytes, strict=True):
            self.by["license_bytes"][label(license)] += size  # a bounded number of names
        for counts in cleaned:
            for name, count in counts.items():
                self._add(name, count)

    def _add(self, name: str, count: int) -> None:
        """'masked.email' goes to masked: {email: ...}."""
        group, dot, member = name.partition(".")
        if dot:
            self.by.setdefault(group, Counter())[member] += count
        else:
            self.counts[name] += count

    def taken(self) -> dict[str, Any]:
        """The counts so far, keys in order; then counting starts anew."""
        found: dict[str, Any] = dict(sorted(self.counts.items()))
        found |= {group: dict(sorted(by.items())) for group, by in sorted(self.by.items())}
        self.clear()
        return found
