"""What the page says of the tokenizer: its fertility on held-out text, beside others."""

from __future__ import annotations

from dataclasses import dataclass

from mutirao.core.manifest import Manifest

VALUES = ("tokens_per_word", "bytes_per_token", "single_byte_share")


@dataclass(frozen=True)
class Fertility:
    """A tokenizer on held-out text, in all (source '') or of one source."""

    tokenizer: str  # '' for the run's own, else its path
    source: str
    tokens_per_word: float
    bytes_per_token: float
    single_byte_share: float  # of its tokens


def gather_fertility(manifests: dict[str, Manifest]) -> tuple[Fertility, ...]:
    """Of the run's tokenizer, in all and by source; then of those it was compared with."""
    if "tokenizer" not in manifests:
        return ()
    manifest = manifests["tokenizer"]
    notes = manifest.provenance.get("notes") or {}
    found = {"": manifest.content["info"], **notes.get("compared", {})}
    return tuple(
        Fertility(name, source, *(numbers[value] for value in VALUES))
        for name, row in found.items()
        for source, numbers in {"": row, **row.get("sources", {})}.items()
        if all(value in numbers for value in VALUES)
    )
