"""A learnable token pack, a byte tokenizer, a tiny recipe: what the training tests share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from mutirao.core import schemas
from mutirao.core.files import sha256_file
from mutirao.core.manifest import Manifest, Part, commit, write_part
from mutirao.core.model_size import resolve
from mutirao.core.recipe import Recipe
from train_jobs.loop import Plan

VOCAB = 300
MODEL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "context": 16,
}
TRAIN = {
    "tokens": 10 * 8 * 16,  # ten steps
    "global_batch": 8,
    "lr": 1e-2,
    "engine": "torch",
    "workers": 1,
    "log_every": 2,
    "checkpoint_every": 4,
    "eval_every": 5,
    "warmup_steps": 2,
}


def make_recipe(**train) -> Recipe:
    sections = {"model": MODEL, "train": {**TRAIN, **train}}
    return Recipe.model_validate({"sources": [{"path": "x.txt"}], **sections})


def make_plan(recipe: Recipe, pack: Manifest, run_dir: Path) -> Plan:
    run_dir.mkdir(parents=True, exist_ok=True)
    return Plan(recipe, resolve(recipe.model, VOCAB), pack.directory, run_dir)


def make_pack(directory: Path, train: int = 6000, heldout: int = 500, files: int = 2) -> Manifest:
    """A Markov chain with two likely successors to each token; four bytes of text to a token."""
    tokens = chain(train + heldout)
    parts: list[Part] = []
    for number, piece in enumerate(np.array_split(tokens[:train], files)):
        parts += write_stream(directory, f"train-{number:05d}", piece)
    parts += write_stream(directory, "heldout-00000", tokens[train:])
    info = {
        "dtype": "uint16",
        "tokens": {"train": train, "heldout": heldout},
        "text_bytes": {"train": 4 * train, "heldout": 4 * heldout},
        "eos_id": 0,
        "vocab_size": VOCAB,
    }
    return commit(directory, {"parts": [asdict(p) for p in parts], "counts": {}, "info": info}, {})


def chain(count: int) -> np.ndarray:
    random = np.random.default_rng(7)
    successors = random.integers(0, VOCAB, (VOCAB, 2))
    choice = random.integers(0, 2, count)
    tokens = np.empty(count, dtype=np.uint16)
    token = 1
    for i in range(count):
        tokens[i] = token = successors[token, choice[i]]
    return tokens


def write_stream(directory: Path, name: str, tokens: np.ndarray) -> list[Part]:
    size = len(tokens)
    documents = [[0, size // 2], [size // 2, size - size // 2]]
    columns = [[d[0] for d in documents], [d[1] for d in documents], [4 * d[1] for d in documents]]
    columns += [[0, 0], [0, 1]]
    tables = {
        f"{name}.tokens.arrow": (schemas.TOKENS_16, [tokens]),
        f"{name}.documents.arrow": (schemas.DOCUMENTS, columns),
    }
    parts = []
    for file, (schema, values) in tables.items():
        arrays = [pa.array(v, type=field.type) for v, field in zip(values, schema, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        parts.append(
            write_part(directory, file, lambda s, b=batch, k=schema: schemas.write_ipc(s, k, [b]))
        )
    return parts


def make_tokenizer(directory: Path) -> Manifest:
    """Byte level, no merges, eos at 0; ids past the bytes are spare words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"spare{i}" for i in range(VOCAB - len(names))]
    tokenizer = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.save_pretrained(directory)
    parts = [
        asdict(Part(p.name, 1, p.stat().st_size, sha256_file(p)))
        for p in sorted(directory.glob("*.json"))
    ]
    return commit(directory, {"parts": parts, "counts": {}, "info": {}}, {})
