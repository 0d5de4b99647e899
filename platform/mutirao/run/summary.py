"""One line about a finished stage, for the terminal and the log (at most 79 columns)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mutirao.core.manifest import Manifest


def stage_line(name: str, manifest: Manifest, reused: bool = False) -> str:
    """`filter        1,702 documents, 41 dropped      1.2 s`, or `... done earlier`."""
    words = WORDS[name](manifest.counts, manifest.content["info"])
    tail = "done earlier" if reused else f"{manifest.provenance['wall_s']:.1f} s"
    return f"{name:<13} {words[:52]:<52} {tail:>12}"


def _dropped(counts: dict[str, Any], info: dict[str, Any]) -> str:
    reasons = sorted(counts["reasons"].items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {number:,}" for name, number in reasons[:2])
    return f"{counts['dropped']:,} dropped" + (f": {listed}" if listed else "")


def _filter(counts: dict[str, Any], info: dict[str, Any]) -> str:
    """A pack of thin evidence drops nothing by its thresholds; what it would is said."""
    would = sum(info.get("would_drop", {}).values())
    if not would:
        return _dropped(counts, info)
    return f"{counts['dropped']:,} dropped; thin pack, would drop {would:,} more"


def _clean(counts: dict[str, Any], info: dict[str, Any]) -> str:
    rejected = sum(counts["rejected"].values())
    return f"{counts['documents_out']:,} documents, {rejected:,} rejected"


def _split(counts: dict[str, Any], info: dict[str, Any]) -> str:
    kept, held = counts["documents_out"], info["heldout"]["documents"]
    return f"{kept:,} of {counts['documents_in']:,} kept, {held:,} of them held out"


def _tokenizer(counts: dict[str, Any], info: dict[str, Any]) -> str:
    words = info.get("tokens_per_word")  # on held-out text, where there is some
    return f"{info['vocab_size']:,} ids" + (f", {words:.3f} tokens per word" if words else "")


def _pack(counts: dict[str, Any], info: dict[str, Any]) -> str:
    tokens = info["tokens"]
    return f"{tokens['train']:,} tokens, {tokens['heldout']:,} held out"


def _train(counts: dict[str, Any], info: dict[str, Any]) -> str:
    """What the guard did is said where it did something."""
    loss = info["final_loss"]
    words = f"{counts['tokens']:,} tokens, loss {'not finite' if loss is None else f'{loss:.3f}'}"
    guard = info.get("guard", {})
    for name, word in (("skipped_steps", "skipped"), ("rollbacks", "rolled back")):
        words += f", {guard[name]:,} {word}" if guard.get(name) else ""
    return words


def _evaluate(counts: dict[str, Any], info: dict[str, Any]) -> str:
    unigram = info["unigram_bits_per_byte"]
    words = f"{info['bits_per_byte']:.3f} bits per byte, unigram {unigram:.3f}"
    if info.get("answer_loss") is not None:  # nats per token, as the loss of training
        words += f"; answers {info['answer_loss']:.3f}, {info['unigram_answer_loss']:.3f}"
    return words


def _export(counts: dict[str, Any], info: dict[str, Any]) -> str:
    return f"{info['parameters']:,} parameters, {info['dtype']}"


def _ingest(counts: dict[str, Any], info: dict[str, Any]) -> str:
    skipped = sum(counts.get("skipped_files", {}).values())
    beside = f", {skipped:,} of other kinds not read" if skipped else ""
    files = "1 file" if counts["files"] == 1 else f"{counts['files']:,} files"
    return f"{files}, {counts['bytes'] / 1e6:.1f} MB{beside}"


WORDS: dict[str, Callable[[dict[str, Any], dict[str, Any]], str]] = {
    "ingest": _ingest,
    "clean": _clean,
    "exact": _dropped,
    "langid": _dropped,
    "filter": _filter,
    "neardup": _dropped,
    "decontaminate": _dropped,
    "split": _split,
    "tokenizer": _tokenizer,
    "pack": _pack,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
}
