"""Text in, token ids out: one interface over Hugging Face `tokenizers` and a faster engine.

In: a `tokenizer.json` and Arrow arrays of text. Out: the ids of all texts in one flat array, and
where each text begins in it. Special tokens written inside a text are encoded as plain text: only
`pack` puts an end of text. The fast engine must give the same ids; each process checks it against
Hugging Face with its own tokenizer on awkward texts before the first use, and does without it
where it differs. One thread: workers are the parallel part.
Memory: the ids of one call (4 bytes each, about as many bytes as the text); independent of the
size of the corpus.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data_jobs.tokens.awkward_texts import awkward_texts
from data_jobs.tokens.existing import no_eos, read_existing
from mutirao.core.errors import EnvironmentProblem, UserError

Ids = tuple[np.ndarray, np.ndarray]
RENEW_BYTES = 128_000_000


class Encoder(Protocol):
    """encode: large_string array of n texts (nulls are empty) -> (ids, uint16 or uint32 by
    `vocab_size`, of all texts; offsets, int64[n+1]: text i is ids[offsets[i]:offsets[i+1]])."""

    name: str  # "huggingface" or the fast engine's
    vocab_size: int  # greatest id + 1
    eos_id: int
    reason: str  # why it is not the engine that was asked for, else empty

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> Ids: ...


def load(path: Path, engine: str = "auto") -> Encoder:
    """The encoder of `path` (a tokenizer.json or its folder); engine: auto, fast, huggingface.

    `auto` takes the fast engine where it is proven equal, else Hugging Face, with the reason in
    `.reason`. Raises RecipeError where the file is no tokenizer or has no end-of-text token,
    EnvironmentProblem where `fast` was asked for and can't be had.
    """
    found = read_existing(path)
    if found.eos is None:
        raise no_eos(path)
    try:
        return choose(found.json, found.tokenizer, found.eos.id, engine)
    except EnvironmentProblem as error:
        error.where = str(path)
        raise


def choose(text: str, tokenizer: Any, eos_id: int, engine: str) -> Encoder:
    """As `load`, for a tokenizer that is read: the text of its tokenizer.json, and itself."""
    oracle = HuggingFace(tokenizer, eos_id)
    if engine == "huggingface":
        return oracle
    encoder, reason = _checked(text, oracle)
    if encoder:
        return encoder
    if engine == "fast":
        hint = "Set pack.engine to auto or huggingface: slower, the same ids."
        problem = f"The fast tokenizer engine can't be used: {reason}"
        raise EnvironmentProblem(problem, "pack.engine", hint, "no-fast-engine")
    oracle.reason = reason
    return oracle


def _checked(text: str, oracle: HuggingFace) -> tuple[Gigatoken | None, str]:
    try:
        encoder = Gigatoken(text, oracle)
        problem = difference(encoder, oracle)
    except ImportError:
        return None, "gigatoken is not installed"
    except BaseException as error:
        if not _is_fault(error):
            raise
        return None, f"gigatoken does not take this tokenizer ({_first_line(error)})"
    if problem:
        return None, f"gigatoken gives other ids ({problem})"
    return (None, encoder.reason) if encoder.reason else (encoder, "")


class HuggingFace:
    """The oracle: `tokenizers.encode_batch_fast`, on one thread. 1 to 2 MB/s a core."""

    name = "huggingface"
    reason = ""  # why it stands in for the fast engine

    def __init__(self, tokenizer: Any, eos_id: int) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocabulary_size(tokenizer)
        self.eos_id = eos_id
        self.added = [one.content for one in tokenizer.get_added_tokens_decoder().values()]

    def pieces(self, count: int = 1_000) -> list[str]:
        """The text of about `count` ids, evenly from the vocabulary."""
        step = max(1, self.vocab_size // count)
        ids = [[number] for number in range(0, self.vocab_size, step)]
        return self._tokenizer.decode_batch(ids, skip_special_tokens=True)

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> Ids:
        strings = ["" if text is None else text for text in texts.to_pylist()]
        with one_thread():
            encoded = self._tokenizer.encode_batch_fast(strings, add_special_tokens=False)
        return _joined([np.array(one.ids, np.uint32) for one in encoded], self.vocab_size)


class Gigatoken:
    """gigatoken: words looked up in a table that grows with the text, at 60 to 240 MB/s a core.

    Document by document: its calls on batches gain a quarter but import `awkward` (1.2 CPU-seconds
    in each process). The table takes up to 7 bytes for each byte of text without repeated words, so
    it is made anew every RENEW_BYTES.
    """

    name = "gigatoken"
    reason = ""

    def __init__(self, text: str, oracle: HuggingFace) -> None:
        self._json = _plain(text)
        self._oracle = oracle
        self.vocab_size, self.eos_id = oracle.vocab_size, oracle.eos_id
        self._renew()

    def _renew(self) -> None:
        from gigatoken import Tokenizer

        backend = Tokenizer.from_json(self._json).backend
        if type(backend).__name__ != "BPETokenizer":
            # The other part has the right ids but is quadratic in a word: minutes for 2 MB.
            raise ValueError("only byte-level BPE is fast for any text")
        self._encode = backend.encode
        self._text_bytes = 0

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> Ids:
        rows = texts.cast(pa.large_binary()).to_pylist()
        try:
            pieces = [self._encode(row or b"") for row in rows]
        except BaseException as error:
            if not _is_fault(error):
                raise
            self.reason = f"gigatoken stopped ({_first_line(error)})"
            self._renew()
            return self._oracle.encode(texts)
        self._text_bytes += sum(len(row or b"") for row in rows)
        if self._text_bytes > RENEW_BYTES:
            self._renew()
        return _joined(pieces, self.vocab_size)


def difference(encoder: Encoder, oracle: HuggingFace) -> str:
    """Where the two give other ids on awkward texts, in words; empty if nowhere."""
    texts = pa.array(awkward_texts(oracle.added, oracle.pieces()), pa.large_string())
    ids, offsets = encoder.encode(texts)
    want, want_offsets = oracle.encode(texts)
    if np.array_equal(ids, want) and np.array_equal(offsets, want_offsets):
        return ""
    for k, text in enumerate(texts.to_pylist()):
        a, b = offsets[k : k + 2], want_offsets[k : k + 2]
        if not np.array_equal(ids[a[0] : a[1]], want[b[0] : b[1]]):
            return f"first for {text[:40]!r}"
    return "in their number"


def _plain(text: str) -> str:
    """tokenizer.json without what would read special tokens out of a text, cut or fill it up."""
    config = json.loads(text)
    added = config.get("added_tokens") or []
    config["added_tokens"] = [token for token in added if not token.get("special")]
    return json.dumps({**config, "truncation": None, "padding": None, "post_processor": None})


def _joined(pieces: list[np.ndarray], vocab_size: int) -> Ids:
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    ids = np.concatenate([np.zeros(0, np.uint32), *pieces])
    return ids.astype(id_dtype(vocab_size)), offsets


def _is_fault(error: BaseException) -> bool:
    """Of the engine, and not a stop of ours: a panic in Rust is no Exception."""
    if type(error).__name__ == "PanicException":
        return True
    return isinstance(error, Exception) and not isinstance(error, UserError | MemoryError)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def id_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint32 if vocab_size > 2**16 else np.uint16


def vocabulary_size(tokenizer: Any) -> int:
    """Greatest id + 1: the rows of an embedding. An existing tokenizer may have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Hugging Face reads this variable at each call, and else takes all cores in every worker."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
