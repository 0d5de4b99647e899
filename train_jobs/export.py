"""The Hugging Face folder: what `from_pretrained` opens, and a model card on how it was made.

In: the committed `train` and `tokenizer`, and `evaluate` where it ran. Out: model.safetensors,
config.json, generation_config.json, the tokenizer's files, README.md. `mutirao model export` writes
the same from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Manifest, Part, write_part
from mutirao.core.model_size import ModelShape, parameter_count, resolve
from mutirao.core.recipe import Recipe
from train_jobs.schedule import total_sequences

END_OF_TURN = "<|end_of_turn|>"  # as pack writes conversations
CARD = """---
library_name: transformers
pipeline_tag: text-generation
language: {language}
---

# {name}

A Llama of {parameters:,} parameters, {began} with mutirão on {tokens:,} tokens
({steps:,} steps, context {context:,}, vocabulary {vocab_size:,}).

{quality}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

## Licence

The weights follow from the text they were trained on. The licences named by its sources:
{licences}. Check what they ask of you before you publish, and then put your own licence here.
"""


@dataclass(frozen=True)
class Weights:
    """What a folder is written from: `read(name)` gives a parameter in fp32."""

    shape: ModelShape
    shapes: dict[str, list[int]]
    read: Callable[[str], Any]
    steps: int
    tokens: int
    origin: str = ""  # the hash of the weights that training began with; '': from scratch


def run_export(job: StageJob) -> StageResult:
    trained, tokenizer = job.inputs["train"], job.inputs["tokenizer"]
    evaluated = job.inputs.get("evaluate")
    parts = write_folder(
        job.directory, of_result(trained), tokenizer, job.recipe, job.recipe.export.dtype, evaluated
    )
    info = {"parameters": trained.content["info"]["parameters"], "dtype": job.recipe.export.dtype}
    return StageResult(parts, {"files": len(parts)}, info)


def export_run(
    weights: Weights,
    tokenizer: Manifest,
    recipe: Recipe,
    output: Path,
    dtype: str,
    evaluated: Manifest | None = None,
) -> list[str]:
    """The same files in any folder and type, without a run around them; returns their names."""
    parts = write_folder(output, weights, tokenizer, recipe, dtype, evaluated)
    for sidecar in output.glob("*.part.json"):
        sidecar.unlink()
    return [part.path for part in parts]


def of_result(trained: Manifest) -> Weights:
    """The result of the stage `train`."""
    from safetensors import safe_open

    info = trained.content["info"]
    file = safe_open(trained.directory / "model.safetensors", framework="pt")
    shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    origin = trained.content.get("assets", {}).get("origin", "")
    shape = ModelShape(**info["shape"])
    return Weights(shape, shapes, file.get_tensor, info["steps"], info["tokens"], origin)


def of_checkpoint(saved: Any, recipe: Recipe) -> Weights:
    """A `Checkpoint` of a run that goes on or has ended."""
    identity = saved.state["identity"]
    named = identity.get("shape")  # not there in a checkpoint of version 0.1
    ids = saved.shapes["model.embed_tokens.weight"][0]
    shape = ModelShape(**named) if named else resolve(recipe.model, ids)
    read = min(saved.state["cursor"]["sequences"], total_sequences(recipe.train, shape.context))
    tokens, origin = read * shape.context, identity.get("origin", "")
    return Weights(shape, saved.shapes, saved.full, saved.step, tokens, origin)


def write_folder(
    directory: Path,
    weights: Weights,
    tokenizer: Manifest,
    recipe: Recipe,
    dtype: str,
    evaluated: Manifest | None,
) -> list[Part]:
    eos_id = eos_of(tokenizer.directory)
    card = model_card(weights, recipe, evaluated)
    return [
        write_weights(directory, weights.shapes, weights.read, dtype),
        write_config(directory, weights.shape, eos_id, dtype),
        write_part(
            directory, "generation_config.json", _generation_config(ends_of(tokenizer.directory))
        ),
        *(copy_part(directory, path) for path in tokenizer_files(tokenizer)),
        write_part(directory, "README.md", lambda stream: stream.write(card) and 1),
    ]


def write_weights(
    directory: Path, shapes: dict[str, list[int]], read: Callable[[str], Any], dtype: str
) -> Part:
    """model.safetensors under Hugging Face names, sorted; one parameter in memory at a time."""
    import torch

    from train_jobs.weights import Entry, write_safetensors

    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    entries = [
        Entry(name, tuple(shapes[name]), kind, partial(read, name)) for name in sorted(shapes)
    ]
    return write_part(
        directory, "model.safetensors", lambda stream: write_safetensors(stream, entries)
    )


def write_config(directory: Path, shape: ModelShape, eos_id: int, dtype: str = "fp32") -> Part:
    from train_jobs.model import llama_config

    config = llama_config(shape, eos_id)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "bfloat16" if dtype == "bf16" else "float32"
    config.use_cache = True
    text = config.to_json_string(use_diff=True).encode()
    return write_part(directory, "config.json", lambda stream: stream.write(text) and 1)


def model_card(weights: Weights, recipe: Recipe, evaluated: Manifest | None) -> bytes:
    quality = ""
    if evaluated is not None:
        found = evaluated.content["info"]
        quality = (
            f"Held-out text: {found['bits_per_byte']:.4f} bits per byte over "
            f"{found['heldout_bytes']:,} bytes (token frequencies alone: "
            f"{found['unigram_bits_per_byte']:.4f}).\n"
        )
    named = sorted({source.license for source in recipe.sources if source.license})
    licences = ", ".join(named) or "none in the recipe; see the documents themselves"
    began = "trained from scratch"
    if weights.origin:
        began = f"trained further from other weights (hash {weights.origin[:12]})"
    return CARD.format(
        name=recipe.name,
        language=recipe.language.split("_")[0],
        parameters=parameter_count(weights.shape),
        began=began,
        tokens=weights.tokens,
        steps=weights.steps,
        context=weights.shape.context,
        vocab_size=weights.shape.vocab_size,
        quality=quality,
        licences=licences,
    ).encode()


def tokenizer_files(tokenizer: Manifest) -> list[Path]:
    """What AutoTokenizer reads; other parts of the stage (statistics) stay where they are."""
    known = ("tokenizer", "special_tokens_map", "vocab", "merges", "added_tokens")
    return [path for path in tokenizer.paths() if path.name.startswith(known)]


def copy_part(directory: Path, source: Path) -> Part:
    data = source.read_bytes()
    return write_part(directory, source.name, lambda stream: stream.write(data) and 1)


def eos_of(tokenizer_dir: Path) -> int:
    from train_jobs.sample import load_tokenizer

    return int(load_tokenizer(tokenizer_dir).eos_token_id)


def ends_of(tokenizer_dir: Path) -> list[int]:
    """Where generation stops: at the end of text, and where the tokenizer knows conversations at
    the end of a turn."""
    from train_jobs.sample import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_dir)
    end = tokenizer.get_added_vocab().get(END_OF_TURN) if tokenizer.chat_template else None
    return [int(tokenizer.eos_token_id), *([] if end is None else [end])]


def _generation_config(ends: list[int]):
    record = {
        "_from_model_config": False,
        "bos_token_id": ends[0],
        "eos_token_id": ends if ends[1:] else ends[0],
    }

    def write(stream) -> int:
        stream.write(canonical_json({**record, "do_sample": True, "temperature": 0.8}) + b"\n")
        return 1

    return write
