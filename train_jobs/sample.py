"""Text from a trained or exported model folder: `mutirao model sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutirao.core.errors import UserError


def sample(
    model_dir: Path,
    tokenizer_dir: Path,
    prompt: str,
    tokens: int = 60,
    temperature: float = 0.8,
    seed: int = 42,
) -> str:
    """The continuation of `prompt` by the model in `model_dir` (config.json, model.safetensors).

    Raises UserError if a folder holds no model.
    """
    tokenizer = load_tokenizer(tokenizer_dir)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
    return generate(load_model(model_dir), tokenizer, ids, tokens, temperature, seed)


def generate(
    model: Any, tokenizer: Any, prompt: list[int], tokens: int, temperature: float, seed: int
) -> str:
    """Up to `tokens` new tokens after the ids of `prompt` (its last ones, where it would not fit),
    ending early at eos; temperature 0 takes the likeliest token each time. The same seed, machine
    and torch give the same text."""
    import torch

    room = model.config.max_position_embeddings - 1
    ids = torch.tensor([prompt[-room:]], device=model.device)
    tokens = min(tokens, model.config.max_position_embeddings - ids.size(1))
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            use_cache=True,
            pad_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **(drawn or {"do_sample": False}),
        )
    return tokenizer.decode(output[0, ids.size(1) :], skip_special_tokens=True)


def load_model(directory: Path) -> Any:
    """A LlamaForCausalLM in fp32 in evaluation mode, read from the folder alone (no network)."""
    import torch
    from transformers import LlamaForCausalLM

    if not (directory / "config.json").is_file():
        raise UserError(
            "No model in this folder", str(directory), "Give a folder with config.json.", "no-model"
        )
    quiet_transformers()
    load: Any = LlamaForCausalLM.from_pretrained
    model = load(directory, local_files_only=True, dtype=torch.float32)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    quiet_transformers()
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
