"""Stage tokenizer: train a byte-level BPE tokenizer on a sample of the kept training text.

In: the train shards of `split`. Out: `tokenizer.json`, `tokenizer_config.json` and
`special_tokens_map.json`, which `transformers.AutoTokenizer.from_pretrained(folder)` loads.
Id 0 is `<|endoftext|>`, followed by the spare ids for later fine-tuning. The sample is chosen by
the documents' ids, so it does not depend on the order of files. Memory: the sample's distinct
words.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part, finished_part, write_part
from mutirao.core.schemas import read_ipc

END_OF_TEXT = "<|endoftext|>"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
LONG_WORD = re.compile(r"(\S{100})(?=\S)")  # BPE training is quadratic in the length of a word
WORD = re.compile(r"\w+")
FERTILITY_DOCUMENTS = 1_000


def run(job: StageJob) -> StageResult:
    """A small text gives a smaller vocabulary than asked for; info holds the true size."""
    began = time.process_time()
    split = job.inputs["split"]
    train, heldout = split.paths("train-"), split.paths("heldout-")
    config = job.recipe.tokenizer
    parts = [finished_part(job.directory, name) for name in FILES]
    if any(part is None for part in parts):
        job.progress.say("  training the byte-level BPE tokenizer")
        size = split.content["info"]["train"]["text_bytes"]
        texts = sample(train, config.sample_bytes, size, job.recipe.seed)
        model = train_bpe(texts, config.vocab_size, config.spare_ids)
        parts = list(write_tokenizer(job.directory, model))
    tokenizer = load_tokenizer(job.directory / FILES[0])
    vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
    info = {
        "vocab_size": vocabulary,
        "asked_vocab_size": config.vocab_size,
        "eos_id": 0,
        "spare_ids": config.spare_ids,
        **fertility(tokenizer, heldout or train),
    }
    counts = {"vocab_size": vocabulary}
    notes = {"cpu_s": round(time.process_time() - began, 3)}
    return StageResult([part for part in parts if part], counts, info, notes)


def sample(paths: list[Path], sample_bytes: int, total_bytes: int, seed: int) -> Iterator[str]:
    """Texts of about `sample_bytes`: documents whose hashed id falls under the share."""
    below = min(1.0, sample_bytes / max(total_bytes, 1)) * 2**64
    for path in paths:
        for batch in read_ipc(path, "kept").to_batches():
            ids = batch.column("id").to_pylist()
            for identity, text in zip(ids, batch.column("text"), strict=True):
                if xxhash.xxh3_64_intdigest(identity, seed=seed) < below:
                    yield LONG_WORD.sub(r"\1 ", text.as_py())


def train_bpe(texts: Iterator[str], vocab_size: int, spare_ids: int) -> Any:
    """Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with all 256 bytes in its alphabet,
    so any text can be encoded. Merges are counted exactly; threads do not change them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [END_OF_TEXT, *(f"<|spare_{i}|>" for i in range(spare_ids))]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_tokenizer(directory: Path, tokenizer: Any) -> Iterator[Part]:
    """The three files of a Hugging Face fast tokenizer."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "bos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
    }
    specials = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    contents = (tokenizer.to_str(pretty=False), _json(config), _json(specials))
    for name, content in zip(FILES, contents, strict=True):
        data = content.encode()
        yield write_part(directory, name, partial(_write_bytes, data))


def load_tokenizer(path: Path) -> Any:
    """Special tokens written in a text are encoded as plain text: only we put `<|endoftext|>`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def fertility(tokenizer: Any, paths: list[Path]) -> dict[str, float]:
    """Tokens per word (`\\w+`) and bytes per token on the first held-out documents."""
    tokens = words = size = documents = 0
    for path in paths:
        for batch in read_ipc(path, "kept").to_batches():
            texts = batch.column("text").to_pylist()[: FERTILITY_DOCUMENTS - documents]
            encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            tokens += int(np.sum([len(one.ids) for one in encoded]))
            words += sum(len(WORD.findall(text)) for text in texts)
            size += sum(len(text.encode()) for text in texts)
            documents += len(texts)
            if documents >= FERTILITY_DOCUMENTS:
                return _ratios(tokens, words, size)
    return _ratios(tokens, words, size)


def _ratios(tokens: int, words: int, size: int) -> dict[str, float]:
    return {
        "tokens_per_word": round(tokens / max(words, 1), 4),
        "bytes_per_token": round(size / max(tokens, 1), 4),
    }


def _write_bytes(data: bytes, stream: BinaryIO) -> int:
    stream.write(data)
    return 0


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
