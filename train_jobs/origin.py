"""`train.from`: weights that a training begins with, of a checkpoint or of a Llama from elsewhere.

In: the folder, the recipe, the tokenizer. Out: parameters by name, or one clear error: shape and
tokenizer must be the origin's. The run's folder gets `origin.json`, so a run that has begun needs
its origin no more. The recipe names the shape; it is never taken over from the origin, so a recipe
says what it trains without a look into another run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mutirao.core.errors import DataError, RecipeError
from mutirao.core.files import read_json, write_json
from mutirao.core.job import StageJob
from mutirao.core.model_size import ModelShape, shape_record
from mutirao.core.recipe import Recipe
from mutirao.core.run_steps import (
    FORMAT,
    RECORD,
    find_origin,
    is_checkpoint,
    kept_steps,
    llama_files,
    origin_record,
    origin_sha256,
    streams_read,
)
from mutirao.core.workdir import Workdir

# Field of a shape -> name in config.json, and what transformers' LlamaConfig takes without it.
CONFIG = {
    "hidden_size": ("hidden_size", 4096),
    "intermediate_size": ("intermediate_size", 11008),
    "layers": ("num_hidden_layers", 32),
    "heads": ("num_attention_heads", 32),
    "kv_heads": ("num_key_value_heads", None),  # as many as heads
    "vocab_size": ("vocab_size", 32000),
    "tie_embeddings": ("tie_word_embeddings", False),
    "rope_theta": ("rope_theta", 10000.0),
    "norm_eps": ("rms_norm_eps", 1e-6),
}
# What a Llama may have and ours has not: name in config.json -> the only value that fits.
PLAIN = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
}
KINDS = {"F32", "F16", "BF16"}


def begins_at(job: StageJob, shape: ModelShape, reached: int) -> Path | None:
    """Where `train.from` leads; None where a training begins from its seed. Before the first
    checkpoint (`reached` 0) it is checked and noted. Raises RecipeError, DataError."""
    if not job.recipe.train.from_:
        return None
    workdir = Workdir(job.run_dir.parent.parent)
    folder = find_origin(job.recipe.train.from_, job.base, workdir).folder
    if not reached:
        check_origin(folder, job.recipe, shape, job.inputs["tokenizer"].directory)
        pack_hash = job.inputs["pack"].content_hash
        note_origin(job.run_dir, folder, job.recipe, pack_hash, shape.context)
    return folder


def check_origin(folder: Path, recipe: Recipe, shape: ModelShape, tokenizer: Path) -> None:
    """Raises RecipeError where weights of the origin, or its moments, can't be what the recipe's
    training begins with. tokenizer: the folder of the pack's."""
    _must_be_there(folder)
    if recipe.train.from_optimizer and not is_checkpoint(folder):
        raise RecipeError(
            "train.from_optimizer needs the moments of a checkpoint, and a Llama's folder has none",
            str(folder),
            "Name RUN@STEP in train.from, or leave train.from_optimizer out.",
            "no-moments",
        )
    check_tokenizer(folder, tokenizer)
    check_shape(folder, shape)


def note_origin(
    run_dir: Path, folder: Path, recipe: Recipe, pack_hash: str, context: int
) -> dict[str, Any]:
    """Write `origin.json` of the run unless it is there; returns it (see run_steps). Every rank
    may do so: they write the same."""
    record = origin_record(run_dir)
    if not record:
        record = {
            "format": FORMAT,
            "kind": "origin",
            "from": recipe.train.from_ or str(folder),
            "folder": str(folder),
            "sha256": origin_sha256(folder),
            "step": read_json(folder / "manifest.json")["step"] if is_checkpoint(folder) else None,
            "streams": streams_read(folder, recipe, pack_hash, context),
        }
        write_json(run_dir / RECORD, record)
    return record


def open_origin(folder: Path) -> Any:
    """Something with `shapes` and `full(name)`: a Checkpoint, or a `Llama`. Raises UserError."""
    from train_jobs.checkpoint import hold

    _must_be_there(folder)
    return hold(folder) if is_checkpoint(folder) else Llama(folder)


class Llama:
    """The safetensors of a Hugging Face folder, mapped; parameters come out in fp32."""

    def __init__(self, folder: Path):
        from safetensors import safe_open

        self.folder = folder
        self.files: dict[str, Any] = {}
        for path in llama_files(folder):
            try:
                handle = safe_open(path, framework="pt")
            except Exception as error:  # safetensors has an exception of its own for each fault
                raise DataError(f"Cannot read the weights: {error}", str(path)) from error
            self.files |= dict.fromkeys(handle.keys(), handle)
        self.shapes = {name: list(self._slice(name).get_shape()) for name in self.files}
        wrong = [name for name in self.files if self._slice(name).get_dtype() not in KINDS]
        if wrong:
            kind = self._slice(wrong[0]).get_dtype()
            hint = "Give weights in fp32, bf16 or fp16."
            raise RecipeError(f"train.from: {wrong[0]} is {kind}", str(folder), hint, "bad-origin")

    def full(self, name: str) -> Any:
        """A parameter in fp32 on the CPU."""
        return self.files[name].get_tensor(name).float()

    def _slice(self, name: str) -> Any:
        return self.files[name].get_slice(name)


def load_weights(model: Any, origin: Any) -> None:
    """Copy the parameters of a Checkpoint or Llama into `model`. Raises RecipeError where names or
    shapes are not the model's."""
    import torch

    named = dict(model.named_parameters())
    missing = sorted(set(named) - set(origin.shapes))
    tied = {"lm_head.weight"} if "lm_head.weight" not in named else set()
    more = {n for n in origin.shapes if not n.endswith("rotary_emb.inv_freq")} - set(named) - tied
    other = [n for n in set(named) & set(origin.shapes) if list(named[n].shape) != origin.shapes[n]]
    problems = [f"{len(missing)} missing ({missing[0]})"] if missing else []
    problems += [f"{len(more)} unknown ({min(more)})"] if more else []
    problems += [f"{min(other)} is {origin.shapes[min(other)]}"] if other else []
    if problems:
        raise RecipeError(
            f"The weights of train.from are not the model's: {', '.join(problems)}",
            str(origin.folder),
            "Give a LlamaForCausalLM of the recipe's model section.",
            "bad-origin",
        )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(origin.full(name))


def check_shape(folder: Path, shape: ModelShape) -> None:
    """Raises RecipeError that names each field in which the origin has another value. The context
    may be another: no weight depends on it."""
    then, now = origin_shape(folder), shape_record(shape)
    other = {name: then[name] for name in CONFIG if name in then and then[name] != now[name]}
    if other:
        said = "; ".join(f"model.{name}: {now[name]}, origin {v}" for name, v in other.items())
        raise RecipeError(
            f"The model is not the one that train.from leads to: {said}",
            str(folder),
            "Set " + " ".join(f"model.{name}={json.dumps(v)}" for name, v in other.items()),
            "other-shape",
        )


def origin_shape(folder: Path) -> dict[str, Any]:
    """The origin's values of the fields in CONFIG; none for a checkpoint of an earlier version,
    whose parameters say it."""
    if is_checkpoint(folder):
        return read_json(folder / "manifest.json")["state"]["identity"].get("shape", {})
    config = read_json(folder / "config.json")
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope["rope_type"]
    for name, plain in PLAIN.items():
        if config.get(name, plain) != plain:
            raise RecipeError(
                f"train.from: {name} is {config[name]}, and mutirão trains Llamas with {plain}",
                str(folder / "config.json"),
                code="bad-origin",
            )
    found = {field: config.get(name, default) for field, (name, default) in CONFIG.items()}
    found["kv_heads"] = found["kv_heads"] or found["heads"]
    found["rope_theta"] = rope.get("rope_theta", found["rope_theta"])
    return found


def check_tokenizer(folder: Path, tokenizer: Path) -> None:
    """The ids must mean what they meant: each token that is not special under the same id. Where
    the origin has no tokenizer at hand, its vocabulary's size is all that is compared, as a part
    of the shape. Raises RecipeError."""
    theirs = origin_tokenizer(folder)
    if theirs is None or not (tokenizer / "tokenizer.json").is_file():
        return
    old, old_special = _vocabulary(theirs / "tokenizer.json")
    new, new_special = _vocabulary(tokenizer / "tokenizer.json")
    special = old_special & new_special  # a spare id may have got a name for fine-tuning
    changed = [i for i in {*old, *new} - special if old.get(i) != new.get(i)]
    if changed or len(old) != len(new):
        raise RecipeError(
            f"The tokenizer is not the one that train.from was trained with: {len(old):,} and "
            f"{len(new):,} ids, {len(changed):,} of them mean something else",
            str(tokenizer),
            f"Set tokenizer.path: {theirs}",
            "other-tokenizer",
        )


def origin_tokenizer(folder: Path) -> Path | None:
    """A folder with the tokenizer.json that the origin was trained with, if there is one at hand:
    that of the checkpoint's run, or beside the Llama."""
    if is_checkpoint(folder):
        run_dir = folder.parent.parent
        try:
            stages = read_json(run_dir / "run.json")["stages"]
        except FileNotFoundError:
            return None
        key = stages.get("tokenizer", {}).get("key")
        folder = Workdir(run_dir.parent.parent).artefact("tokenizer", str(key))
    return folder if (folder / "tokenizer.json").is_file() else None


def _vocabulary(file: Path) -> tuple[dict[int, str], set[int]]:
    """(token of each id, ids of special tokens) of a tokenizer.json."""
    record = read_json(file)
    vocabulary = record["model"]["vocab"]
    if isinstance(vocabulary, dict):
        tokens = {number: token for token, number in vocabulary.items()}
    else:  # unigram: pairs of token and score
        tokens = {number: pair[0] for number, pair in enumerate(vocabulary)}
    added = record.get("added_tokens", [])
    tokens |= {one["id"]: one["content"] for one in added}
    return tokens, {one["id"] for one in added if one["special"]}


def _must_be_there(folder: Path) -> None:
    if folder.is_dir() and (is_checkpoint(folder) or (folder / "config.json").is_file()):
        return
    run_dir = folder.parent.parent
    there = ", ".join(map(str, kept_steps(run_dir))) or "none"
    raise RecipeError(
        "What train.from leads to is no longer there",
        str(folder),
        f"Steps that run {run_dir.name} has: {there}." if folder.name.startswith("step-") else "",
        "no-origin",
    )
