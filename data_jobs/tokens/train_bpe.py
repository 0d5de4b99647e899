"""Byte-level BPE, the default kind: trained by Hugging Face `tokenizers`.

In: an iterator of texts. Out: a `tokenizers.Tokenizer` whose id 0 is `<|endoftext|>`, followed by
the spare ids for later fine-tuning, the 256 bytes and the merges. Merges are counted exactly, so
the same texts give the same tokenizer on any number of threads. Memory: the distinct words of the
sample (`tokenizer.sample_bytes`, 50 MB by default), about 250 MB at 36 MB of text; a larger corpus
does not change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mutirao.core.errors import RecipeError

END_OF_TEXT = "<|endoftext|>"
# A merge costs time in the length of a word, and a text without spaces is one word: a few MB of it
# took 100 GB (tokenizers issues 994 and 1681). What is cut here is cut for training only.
LONG_WORD = re.compile(r"(\S{100})(?=\S)")


def special_tokens(spare_ids: int) -> list[str]:
    """The first ids of every kind of tokenizer that we train."""
    return [END_OF_TEXT, *(f"<|spare_{i}|>" for i in range(spare_ids))]


def cut_long_words(text: str) -> str:
    """The text with a space after each 100 characters without one."""
    return LONG_WORD.sub(r"\1 ", text)


def check_vocabulary(vocab_size: int, spare_ids: int, kind: str) -> None:
    """Raises RecipeError where bytes and special tokens alone take more ids than asked for."""
    least = 256 + 1 + spare_ids + (1 if kind == "bpe" else 101)  # sentencepiece: ASCII and <unk>
    if vocab_size < least:
        raise RecipeError(
            f"tokenizer.vocab_size {vocab_size} is too small: the bytes and {spare_ids} spare ids"
            f" alone need {least}",
            "tokenizer.vocab_size",
            "Raise it, or lower tokenizer.spare_ids.",
            "small-vocabulary",
        )


def train_bpe(texts: Iterable[str], vocab_size: int, spare_ids: int) -> Any:
    """Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with all 256 bytes in its alphabet,
    so any text can be encoded and comes back the same. A small text gives a smaller vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens(spare_ids),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((cut_long_words(text) for text in texts), trainer)
    return tokenizer
