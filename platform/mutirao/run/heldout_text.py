"""Is the held-out text of two runs the same? Only then do their bits per byte compare.

Bits per byte count the bytes of the text, so tokenizers and models may differ; the text must not.
The same text can lie in differing files (another source came in before it, other sizes of shards),
so the files' hashes answer first, and the texts themselves where these differ and the sizes do not.
Text that came as tokens is known by its token files and its tokenizer alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mutirao.core.files import sha256_hex
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc


@dataclass(frozen=True)
class HeldOut:
    documents: int
    text_bytes: int
    shards: tuple[str, ...]  # sha256 of the held-out text shards of `split`
    tokens: tuple[str, ...]  # of streams that came as tokens: their shards, then the tokenizer
    paths: tuple[Path, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.documents:,} documents, {self.text_bytes:,} bytes"


def heldout_of(manifests: dict[str, Manifest]) -> HeldOut | None:
    """What a run holds out; None before its tokens are packed."""
    pack, split = manifests.get("pack"), manifests.get("split")
    if pack is None:
        return None
    prefix = "heldout-"
    # A split that `store gc` took is still known by the hash that the pack has of it.
    shards = [pack.content.get("inputs", {}).get("split", "")]
    if split:
        shards = [part.sha256 for part in split.parts if part.path.startswith(prefix)]
    came_as_tokens = [
        f"{prefix}{number:03d}-"
        for number, stream in enumerate(pack.content["info"].get("streams", []))
        if stream["train"]["text_bytes"] is None
    ]
    tokens = [p.sha256 for p in pack.parts if p.path.startswith(tuple(came_as_tokens))]
    if tokens and "tokenizer" in manifests:
        tokens.append(manifests["tokenizer"].content_hash)
    return HeldOut(
        pack.counts["heldout"]["documents"],
        pack.counts["heldout"]["text_bytes"],
        tuple(shards),
        tuple(tokens),
        tuple(split.paths(prefix)) if split else (),
    )


def same_text(one: HeldOut, other: HeldOut) -> bool:
    """Reads both texts only where their sizes are equal and their files are not.

    Memory: 64 bytes a held-out document, 4 GB at 1T tokens with 2 % of 2.4 billion held out.
    """
    if one == other:
        return True
    sizes = {(held.documents, held.text_bytes, held.tokens) for held in (one, other)}
    if len(sizes) > 1 or not one.paths or not other.paths:
        return False
    return _text_hash(one.paths) == _text_hash(other.paths)


def _text_hash(paths: tuple[Path, ...]) -> str:
    """Of the documents' texts, in whatever order and files they lie."""
    return sha256_hex(b"".join(sorted(_digests(paths))))


def _digests(paths: tuple[Path, ...]) -> Iterator[bytes]:
    for path in paths:
        for batch in read_ipc(path, "kept").select(["text"]).to_batches():
            for text in batch.column(0):
                yield bytes.fromhex(sha256_hex(text.as_buffer().to_pybytes()))
