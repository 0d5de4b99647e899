"""Kept text, a small tokenizer and the pack stage over them, without the stages before."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_jobs import pack
from data_jobs.shards import write_table
from mutirao.core.job import StageJob
from mutirao.core.manifest import Manifest, commit
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import KEPT, read_ipc

EOS = "<|endoftext|>"
LEARNED_FROM = ["a casa da praia e a casa do mato", "ação e coração, não e então", "日本 日本"] * 9


def tokenizer_folder(folder: Path) -> Path:
    """A byte-level BPE tokenizer of Hugging Face; any text can be encoded and comes back whole."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[EOS], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(LEARNED_FROM, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)
    fast.save_pretrained(folder)
    return folder


def made_tokenizer(folder: Path) -> Manifest:
    from tokenizers import Tokenizer

    tokenizer_folder(folder)
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    info = {"vocab_size": size, "eos_id": 0, "bytes_per_token": 1.1}
    return commit(folder, {"stage": "tokenizer", "parts": [], "counts": {}, "info": info}, {})


def kept_text(folder: Path, sides: dict[str, list[list[tuple[str, str]]]]) -> Manifest:
    """sides: {side: [shard of (stream, text)]}."""
    parts = []
    for side, shards in sides.items():
        for number, rows in enumerate(shards):
            table = pa.Table.from_pylist(
                [_row(*row, number, i) for i, row in enumerate(rows)], KEPT
            )
            parts.append(write_table(folder, f"{side}-{number:05d}.arrow", table))
    content = {"stage": "split", "parts": [vars(part) for part in parts], "counts": {}, "info": {}}
    return commit(folder, content, {})


def _row(stream: str, text: str, shard: int, row: int) -> dict:
    empty = {field.name: "" for field in KEPT if field.type in (pa.string(), pa.large_string())}
    place = {"id": bytes(16), "shard": shard, "row": row}
    return {**empty, **place, "text": text, "source": f"of {stream}", "stream": stream}


def run_pack(root: Path, recipe: Recipe, inputs: dict[str, Manifest]) -> Manifest:
    directory = root / "pack"
    directory.mkdir(parents=True, exist_ok=True)
    quiet = Progress(quiet=True)
    job = StageJob("pack", recipe, directory, inputs, root / "run", quiet, False, root)
    found = pack.run(job)
    content = {"stage": "pack", "parts": [vars(part) for part in found.parts]}
    return commit(directory, {**content, "counts": found.counts, "info": found.info}, found.notes)


def tokens_of(made: Manifest, side: str, stream: int) -> np.ndarray:
    """The stream, file after file in the manifest's order."""
    paths = [p for p in made.paths(f"{side}-{stream:03d}-") if p.name.endswith(".tokens.arrow")]
    chunks = [read_ipc(path, "tokens")["token"].to_numpy() for path in paths]
    return np.concatenate([np.zeros(0, np.uint16), *chunks])


def documents_of(made: Manifest, side: str, stream: int) -> list[np.ndarray]:
    """The documents' ids, their ends of text included, by the documents' own table."""
    found: list[np.ndarray] = []
    for path in made.paths(f"{side}-{stream:03d}-"):
        if path.name.endswith(".documents.arrow"):
            ids = read_ipc(path.with_name(path.name.replace("documents", "tokens")))["token"]
            rows = read_ipc(path, "documents").to_pylist()
            found += [ids.to_numpy()[r["offset"] : r["offset"] + r["tokens"]] for r in rows]
    return found


def recipe_of(sources: Iterable[str], **fields) -> Recipe:
    return Recipe.model_validate(
        {"sources": [{"path": f"{name}.txt", "name": name} for name in sources], **fields}
    )
