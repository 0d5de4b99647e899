"""Stage tokenizer: train a tokenizer on a sample of the kept training text, or take one over.

In: the train shards of `split`, or the files of `tokenizer.path`. Out: `tokenizer.json`,
`tokenizer_config.json` and `special_tokens_map.json`, which
`transformers.AutoTokenizer.from_pretrained(folder)` loads; in info its size, end-of-text id and
fertility on held-out text; in notes that of the tokenizers of `tokenizer.compare`.
Id 0 of what we train is `<|endoftext|>`, followed by the spare ids for later fine-tuning; where a
source holds conversations, five spare ids become markers of turns (tokens/chat.py). The sample is
chosen by the documents' ids, so it does not depend on the order of files.
Bound: the sample (`tokenizer.sample_bytes`, 50 MB: 0.4 GB for BPE, 1.3 GB for unigram), whatever
the size of the corpus.
At 1T tokens the ids of 2.4 billion documents are read once (38 GB) to choose it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_jobs.tokens import chat, engines, fertility
from data_jobs.tokens.existing import asset_files, no_eos, read_existing, read_tokenizer
from data_jobs.tokens.train_bpe import END_OF_TEXT, check_vocabulary, train_bpe
from data_jobs.tokens.train_sentencepiece import train_sentencepiece
from mutirao.core.files import sha256_file
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Part, finished_part, write_part
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

load_tokenizer = read_tokenizer


def run(job: StageJob) -> StageResult:
    """A small text gives a smaller vocabulary than asked for; info holds the true size."""
    began = time.process_time()
    config = job.recipe.tokenizer
    parts = [finished_part(job.directory, name) for name in FILES]
    if any(part is None for part in parts):
        parts = list(write_tokenizer(job.directory, *_made(job)))
    texts = _unseen(job)
    path = job.directory / FILES[0]
    encoder = engines.load(path, job.recipe.pack.engine)
    trained = {"asked_vocab_size": config.vocab_size, "spare_ids": config.spare_ids}
    info = {
        "kind": "existing" if config.path else config.kind,
        "vocab_size": encoder.vocab_size,
        "eos_id": encoder.eos_id,
        **({} if config.path else trained),
        **_chat(job, path),
        **fertility.measure(encoder, fertility.byte_lengths(read_tokenizer(path)), texts),
    }
    counts = {"vocab_size": encoder.vocab_size}
    compared = _compared(job, texts)
    for name, row in compared.items():
        job.progress.say("  " + fertility.line(name, row))
    cpu_s = round(time.process_time() - began, 3)
    notes = {"cpu_s": cpu_s, "engine": encoder.name, "compared": compared}
    return StageResult([part for part in parts if part], counts, info, notes)


def tokenizer_assets(recipe: Recipe, base: Path) -> dict[str, str]:
    """By name, the sha256 of an existing tokenizer's files; they enter the key. Raises RecipeError
    for what is not there or can't be used, and for `compare` too."""
    config = recipe.tokenizer
    for one in config.compare:
        read_existing(_resolved(base, one))
    format = {"chat format": chat.chat_format()} if has_conversations(recipe) else {}
    if not config.path:
        check_vocabulary(config.vocab_size, config.spare_ids, config.kind)
        return format
    path = _resolved(base, config.path)
    if read_existing(path).eos is None:
        raise no_eos(path)
    return {file.name: sha256_file(file) for file in asset_files(path)} | format


def has_conversations(recipe: Recipe) -> bool:
    return any(source.kind == "instruction" for source in recipe.sources)


def _resolved(base: Path, path: str) -> Path:
    return base / Path(path).expanduser()


def _made(job: StageJob) -> tuple[str, dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json), with markers of turns where they are needed."""
    plain = _plain(job)
    if not has_conversations(job.recipe):
        return plain
    marked = chat.with_markers(*plain)
    if marked is None:
        job.progress.say(
            f"  conversations become plain text: the tokenizer has no {len(chat.MARKERS)} spare ids"
            " for markers of turns"
        )
    return marked or plain


def _chat(job: StageJob, path: Path) -> dict[str, Any]:
    """{chat: ids of the markers}, where the tokenizer was to have them and does."""
    ids = chat.chat_ids(read_tokenizer(path)) if has_conversations(job.recipe) else {}
    return {"chat": ids} if ids else {}


def _plain(job: StageJob) -> tuple[str, dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json), trained or taken over."""
    config = job.recipe.tokenizer
    if config.path:
        found = read_existing(_resolved(job.base, config.path))
        return found.json, found.config
    check_vocabulary(config.vocab_size, config.spare_ids, config.kind)
    job.progress.say(f"  training the tokenizer ({config.kind})")
    split = job.inputs["split"]
    size = split.content["info"]["train"]["text_bytes"]
    texts = sample(split.paths("train-"), config.sample_bytes, size, job.recipe.seed)
    if config.kind == "bpe":
        model = train_bpe(texts, config.vocab_size, config.spare_ids)
    else:
        model, _ = train_sentencepiece(texts, config.kind, config.vocab_size, config.spare_ids)
    return model.to_str(pretty=False), own_config()


def sample(paths: list[Path], sample_bytes: int, total_bytes: int, seed: int) -> Iterator[str]:
    """Texts of about `sample_bytes`: documents whose hashed id falls under the share."""
    share = min(1.0, sample_bytes / max(total_bytes, 1))
    below = np.uint64(min(int(share * 2**64), 2**64 - 1))
    for path in paths:
        for batch in read_ipc(path, "kept").to_batches():
            ids = batch.column("id").to_numpy(zero_copy_only=False)
            chosen = np.flatnonzero(mixed(b"".join(ids.tolist()), seed) <= below)
            for row in chosen.tolist():
                yield batch.column("text")[row].as_py()


def mixed(ids: bytes, seed: int) -> np.ndarray:
    """uint64[n] of n ids of 16 bytes: their first half, mixed with the seed (splitmix64 of
    Steele et al. 2014), since the order of the ids themselves decides in other stages."""
    key = np.frombuffer(ids, "<u8").reshape(-1, 2)[:, 0]
    step = ((seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = key + np.uint64(step)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def own_config() -> dict[str, Any]:
    """tokenizer_config.json of what we train."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "bos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
    }


def write_tokenizer(directory: Path, tokenizer: str, config: dict[str, Any]) -> Iterator[Part]:
    """The three files of a Hugging Face fast tokenizer."""
    names = ("bos_token", "eos_token", "pad_token")
    specials = {name: config[name] for name in names if config.get(name)}
    contents = (tokenizer, _json(config), _json(specials))
    for name, content in zip(FILES, contents, strict=True):
        yield write_part(directory, name, partial(_write_bytes, content.encode()))


def _unseen(job: StageJob) -> fertility.Sample:
    """Held-out texts by source; of the training text where nothing is held out; else nothing."""
    split = job.inputs.get("split")
    if split is None:
        return {}
    return fertility.sample(split.paths("heldout-") or split.paths("train-"))


def _compared(job: StageJob, texts: fertility.Sample) -> dict[str, dict[str, Any]]:
    """By path, the fertility of the tokenizers that the recipe names beside its own."""
    rows = {}
    for name in job.recipe.tokenizer.compare if texts else ():
        found = read_existing(_resolved(job.base, name))
        encoder = engines.choose(found.json, found.tokenizer, 0, "auto")
        rows[name] = fertility.measure(encoder, fertility.byte_lengths(found.tokenizer), texts)
    return rows


def _write_bytes(data: bytes, stream: BinaryIO) -> int:
    stream.write(data)
    return 0


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
