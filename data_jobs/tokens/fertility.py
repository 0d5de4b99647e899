"""Fertility: how many tokens a tokenizer takes for the words of text it was not trained on.

In: encoders and kept text shards (held out). Out: for each encoder, in all and by source: tokens
per word (words are `\\w+`), bytes per token, and the share of tokens that are one byte long
(letters, commas, and pieces of signs that the vocabulary lacks). Rust et al. 2021 name the measure.
Bound: at most SHARDS shards are opened, evenly over the list, and of each source at most
SOURCE_BYTES of text are read, so the time and memory do not grow with the corpus: under 100 MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.tokens.engines import Encoder
from mutirao.core.schemas import read_ipc

WORD = re.compile(r"\w+")
BYTE = re.compile(r"<0x[0-9A-F]{2}>$")  # a byte in a vocabulary with byte fallback
SHARDS = 200
SOURCE_BYTES = 2_000_000
SOURCES = 50  # that are told apart; what is beyond counts in all

Sample = dict[str, list[str]]


def sample(paths: list[Path], source_bytes: int = SOURCE_BYTES) -> Sample:
    """{source: texts} of the first documents of each source, in the order of the shards."""
    texts: Sample = {}
    left: dict[str, int] = {}
    for batch in _batches(paths):
        column = batch.column("text")
        for row, source in enumerate(batch.column("source").to_pylist()):
            if source not in left and len(left) == SOURCES:
                source = ""  # all the others
            if left.setdefault(source, source_bytes) > 0:
                text = column[row].as_py()
                texts.setdefault(source, []).append(text)
                left[source] -= len(text.encode())
    return dict(sorted(texts.items()))


def _batches(paths: list[Path]) -> Iterator[pa.RecordBatch]:
    step = -(-len(paths) // SHARDS) or 1
    for path in paths[::step]:
        yield from read_ipc(path, "kept").select(["source", "text"]).to_batches()


def measure(encoder: Encoder, byte_lengths: np.ndarray, texts: Sample) -> dict[str, Any]:
    """{tokens_per_word, bytes_per_token, single_byte_share, sources: {source: the same three}}.

    byte_lengths: int64[vocab_size] from `byte_lengths`. Without text: an empty dict.
    """
    counted = {source: _count(encoder, byte_lengths, rows) for source, rows in texts.items()}
    if not counted:
        return {}
    total = np.sum(list(counted.values()), axis=0)
    return {**_ratios(total), "sources": {name: _ratios(row) for name, row in counted.items()}}


def _count(encoder: Encoder, byte_lengths: np.ndarray, texts: list[str]) -> np.ndarray:
    """[tokens, tokens of one byte, words, bytes] of the texts."""
    ids, _ = encoder.encode(pa.array(texts, pa.large_string()))
    words = sum(sum(1 for _ in WORD.finditer(text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    return np.array([len(ids), np.count_nonzero(byte_lengths[ids] == 1), words, size])


def _ratios(counts: np.ndarray) -> dict[str, float]:
    tokens, single, words, size = (int(number) for number in counts)
    return {
        "tokens_per_word": round(tokens / max(words, 1), 4),
        "bytes_per_token": round(size / max(tokens, 1), 4),
        "single_byte_share": round(single / max(tokens, 1), 4),
    }


def byte_lengths(tokenizer: Any) -> np.ndarray:
    """int64[greatest id + 1]: bytes of text that each id of a `tokenizers.Tokenizer` stands for.

    A byte-level vocabulary writes each byte as one sign (as GPT-2 does); others write the text.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    lengths = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int64)
    bytewise = "ByteLevel" in str(tokenizer.decoder) + str(tokenizer.pre_tokenizer)
    for piece, number in vocabulary.items():
        if BYTE.match(piece):
            lengths[number] = 1
        else:
            lengths[number] = len(piece) if bytewise else len(piece.replace("▁", " ").encode())
    return lengths


def line(name: str, row: dict[str, Any]) -> str:
    """`pt-32k: 1.260 tokens per word, 4.89 bytes per token`."""
    words, size = row["tokens_per_word"], row["bytes_per_token"]
    return f"{name}: {words:.3f} tokens per word, {size:.2f} bytes per token"
