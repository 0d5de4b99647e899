"""One line about a finished stage, for the terminal and the log (at most 79 columns)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mutirao.core.manifest import Manifest


def stage_line(name: str, manifest: Manifest, reused: bool = False) -> str:
    """`filter        1,702 documents, 41 dropped      1.2 s`, or `... done earlier`."""
    words = WORDS.get(name, lambda counts, info: "")(manifest.counts, manifest.content["info"])
    tail = "done earlier" if reused else f"{manifest.provenance['wall_s']:.1f} s"
    return f"{name:<13} {words[:52]:<52} {tail:>12}"


def _dropped(counts: dict[str, Any], info: dict[str, Any]) -> str:
    dropped = sum(counts.get("dropped", {}).values())
    return f"{dropped:,} documents dropped"


def _clean(counts: dict[str, Any], info: dict[str, Any]) -> str:
    rejected = sum(counts.get("rejected", {}).values())
    return f"{counts.get('documents_out', 0):,} documents, {rejected:,} rejected"


WORDS: dict[str, Callable[[dict[str, Any], dict[str, Any]], str]] = {
    "ingest": lambda c, i: f"{c.get('files', 0):,} files, {c.get('bytes', 0) / 1e6:.1f} MB",
    "clean": _clean,
    "exact": _dropped,
    "langid": _dropped,
    "filter": _dropped,
    "neardup": _dropped,
    "decontaminate": _dropped,
}
