"""Sample texts while training: what the model writes after the same few beginnings each time.

In: the engine, the `pack` (beginnings of held-out documents, evenly spread over them), the
tokenizer's folder. Out: [{prompt, continuation}] on rank 0. Greedy, so that a change comes from the
weights alone. Short, without a cache and with one shape of input, so nothing is compiled twice:
NEW_TOKENS forward passes of a few dozen tokens.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mutirao.core.manifest import Manifest
from train_jobs import ranks
from train_jobs.engine import Engine
from train_jobs.evaluate import document_offsets
from train_jobs.loader import TokenStream
from train_jobs.sample import load_tokenizer

PROMPTS = 2
PROMPT_TOKENS = 16
NEW_TOKENS = 20


@torch.no_grad()
def sample_texts(
    engine: Engine, pack: Manifest, context: int, tokenizer_dir: Path | None
) -> list[dict[str, str]]:
    """Called by every rank, since ZeRO 3 gathers each layer on all of them together. [] on ranks
    other than 0, and without a tokenizer."""
    if tokenizer_dir is None or (ranks.rank() and not engine.gathers):
        return []
    prompts = fixed_prompts(pack, min(PROMPT_TOKENS, context // 2))
    engine.module.eval()
    written = greedy(engine, prompts, min(NEW_TOKENS, context - prompts.size(1)))
    engine.module.train()
    if ranks.rank():
        return []
    tokenizer = _tokenizer(tokenizer_dir)
    return [
        {"prompt": tokenizer.decode(prompt), "continuation": tokenizer.decode(text)}
        for prompt, text in zip(prompts.tolist(), written.tolist(), strict=True)
    ]


def fixed_prompts(pack: Manifest, length: int) -> torch.Tensor:
    """int64 [at most PROMPTS, length]: first tokens of held-out documents that are long enough."""
    stream = TokenStream(pack.paths("heldout"))
    offsets = [at for at in document_offsets(pack) if at + length <= len(stream)]
    chosen = offsets[:: max(1, len(offsets) // PROMPTS)][:PROMPTS]
    rows = [stream.read(at, length).tolist() for at in chosen]
    return torch.tensor(rows, dtype=torch.int64).view(len(rows), length)


def greedy(engine: Engine, prompts: torch.Tensor, count: int) -> torch.Tensor:
    """int64 [n, count]: the likeliest token each time. What stands behind a position is not seen
    from it, so the places of tokens to come hold zeros."""
    start = prompts.size(1)
    ids = torch.nn.functional.pad(prompts, (0, count)).to(engine.device)
    for at in range(start, start + count):
        logits = engine.module(input_ids=ids, use_cache=False).logits
        ids[:, at] = logits[:, at - 1].argmax(dim=-1)
    return ids[:, start:]


@lru_cache(maxsize=1)
def _tokenizer(directory: Path) -> Any:
    return load_tokenizer(directory)
