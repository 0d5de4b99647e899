"""The Hugging Face folder: what `from_pretrained` opens, and a model card on how it was made.

In: the committed `train` and `tokenizer`, and `evaluate` where it ran. Out: model.safetensors,
config.json, generation_config.json, the tokenizer's files, README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Manifest, Part, write_part
from mutirao.core.model_size import ModelShape

CARD = """---
library_name: transformers
pipeline_tag: text-generation
language: {language}
---

# {name}

A Llama of {parameters:,} parameters, trained from scratch with mutirão on {tokens:,} tokens
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


def run_export(job: StageJob) -> StageResult:
    trained, tokenizer = job.inputs["train"], job.inputs["tokenizer"]
    shape = ModelShape(**trained.content["info"]["shape"])
    eos_id = eos_of(tokenizer.directory)
    parts = write_model(job.directory, trained.directory, shape, eos_id, job.recipe.export.dtype)
    parts += [copy_part(job.directory, path) for path in tokenizer_files(tokenizer)]
    card = model_card(job)
    parts.append(write_part(job.directory, "README.md", lambda stream: stream.write(card) and 1))
    info = {"parameters": trained.content["info"]["parameters"], "dtype": job.recipe.export.dtype}
    return StageResult(parts, {"files": len(parts)}, info)


def export_run(trained: Manifest, tokenizer: Manifest, output: Path, dtype: str = "fp32") -> None:
    """The loadable files in any folder and type, without a run around them."""
    shape = ModelShape(**trained.content["info"]["shape"])
    write_model(output, trained.directory, shape, eos_of(tokenizer.directory), dtype)
    for path in tokenizer_files(tokenizer):
        copy_part(output, path)
    for sidecar in output.glob("*.part.json"):
        sidecar.unlink()


def write_model(
    directory: Path, source: Path, shape: ModelShape, eos_id: int, dtype: str
) -> list[Part]:
    from safetensors import safe_open

    with safe_open(source / "model.safetensors", framework="pt") as weights:
        shapes = {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        written = write_weights(directory, shapes, weights.get_tensor, dtype)
    return [
        written,
        write_config(directory, shape, eos_id, dtype),
        write_part(directory, "generation_config.json", _generation_config(eos_id)),
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


def model_card(job: StageJob) -> bytes:
    info, recipe = job.inputs["train"].content["info"], job.recipe
    evaluated = job.inputs.get("evaluate")
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
    values = {**info, **info["shape"], "name": recipe.name, "language": recipe.language}
    values["language"] = recipe.language.split("_")[0]
    return CARD.format(**values, quality=quality, licences=licences).encode()


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


def _generation_config(eos_id: int):
    record = {"_from_model_config": False, "bos_token_id": eos_id, "eos_token_id": eos_id}

    def write(stream) -> int:
        stream.write(canonical_json({**record, "do_sample": True, "temperature": 0.8}) + b"\n")
        return 1

    return write
