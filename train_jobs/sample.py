"""Text from a trained or exported model folder: `mutirao model sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError, UserError
from mutirao.core.model_size import ModelShape


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
    model = load_model(model_dir)
    return generate(model, tokenizer, text_ids(tokenizer, prompt), tokens, temperature, seed)


def text_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The ids of a text to continue; of none, the end of the text before."""
    return tokenizer(prompt, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]


def chat_ids(tokenizer: Any, question: str) -> tuple[list[int], int]:
    """(ids of a conversation that waits for the answer, id that ends the answer), by the
    tokenizer's chat template. Raises RecipeError where it has none."""
    if not tokenizer.chat_template:
        raise RecipeError(
            "This model knows no conversations: its tokenizer has no chat template",
            hint="Leave --chat out, or train on sources with `kind: instruction`.",
            code="no-chat",
        )

    def ids(messages: list[dict[str, str]], **more: Any) -> list[int]:
        return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **more)

    turns = [{"role": "user", "content": question}]
    prompt = ids(turns, add_generation_prompt=True)
    answered = ids([*turns, {"role": "assistant", "content": "a"}])
    behind = len(prompt) + len(text_ids(tokenizer, "a"))
    return prompt, answered[behind]


def generate(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    tokens: int,
    temperature: float,
    seed: int,
    end: int | None = None,
) -> str:
    """Up to `tokens` new tokens after the ids of `prompt` (its last ones, where it would not fit),
    ending early at eos or at the id `end`; temperature 0 takes the likeliest token each time. The
    same seed, machine and torch give the same text."""
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
            eos_token_id=[tokenizer.eos_token_id, *([] if end is None else [end])],
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


def checkpoint_model(saved: Any, shape: ModelShape) -> Any:
    """The same out of a `Checkpoint`, without a folder in between."""
    import torch
    from transformers import LlamaForCausalLM

    from train_jobs.model import llama_config
    from train_jobs.origin import load_weights

    model: Any = LlamaForCausalLM(llama_config(shape))
    load_weights(model, saved)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    quiet_transformers()
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
