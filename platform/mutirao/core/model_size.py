"""The size of a Llama: dimensions, parameters, FLOPs per token, MFU, bytes per worker. No torch.

In: the recipe's `model` section (a preset name and overrides) and the tokenizer's vocabulary.
Out: a `ModelShape` and exact or estimated numbers about it, for the planner, `--dry-run` and the
training loop. Presets are data: `mutirao/models/<name>.yaml`, peaks of GPUs: `core/peaks.yaml`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from mutirao.core.errors import RecipeError, nearest
from mutirao.core.recipe import Model, Train

FORMAT = 1


@dataclass(frozen=True)
class ModelShape:
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    context: int  # tokens
    vocab_size: int
    tie_embeddings: bool
    rope_theta: float
    norm_eps: float
    initializer_range: float

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads


def resolve(model: Model, vocab_size: int) -> ModelShape:
    """The shape a recipe asks for; `vocab_size` is the tokenizer's (spare ids included).

    Raises RecipeError for an unknown preset and for dimensions that do not fit together.
    """
    preset = load_preset(model.preset)
    overrides = {k: v for k, v in model.model_dump(exclude={"preset"}).items() if v is not None}
    overrides.setdefault("vocab_size", vocab_size)
    shape = ModelShape(**{**preset, **overrides})
    _check(shape, vocab_size)
    return shape


def load_preset(name: str) -> dict:
    """The dimensions of a shipped preset. Raises RecipeError with the nearest name if unknown."""
    path = files("mutirao.models") / f"{name}.yaml"
    if "/" in name or not path.is_file():
        raise RecipeError(
            f"Unknown model preset {name!r}", "model.preset", nearest(name, presets()), "no-preset"
        )
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert record["format"] == FORMAT, path
    return {k: v for k, v in record.items() if k not in ("format", "name", "what")}


def presets() -> list[str]:
    found = (item.name for item in files("mutirao.models").iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def parameter_count(shape: ModelShape) -> int:
    """Exact number of trained parameters; tied embeddings count once."""
    h, v = shape.hidden_size, shape.vocab_size
    embeddings = v * h if shape.tie_embeddings else 2 * v * h
    return embeddings + shape.layers * layer_parameters(shape) + h


def layer_parameters(shape: ModelShape) -> int:
    h, kv = shape.hidden_size, shape.kv_heads * shape.head_size
    attention = 2 * h * h + 2 * h * kv
    return attention + 3 * h * shape.intermediate_size + 2 * h


def flops_per_token(
    shape: ModelShape,
    embedding: bool = True,
    attention: Literal["whole", "causal", "none"] = "whole",
) -> int:
    """Training FLOPs (forward and backward) for one token: 6 N + 12 L h s.

    Convention: N counts every parameter with the embeddings (one multiply-add is 2 FLOPs, times 3
    for the backward pass); attention is counted over the whole context s (PaLM, arXiv 2204.02311,
    appendix B). embedding=False leaves the input embedding out of N, which is looked up and not
    multiplied; tied, the same matrix stays as the head. attention="causal" counts the half that a
    causal mask leaves, "none" the first term alone. What is recomputed is never counted.
    """
    count = parameter_count(shape)
    if not embedding and not shape.tie_embeddings:
        count -= shape.vocab_size * shape.hidden_size
    scores = {"whole": 12, "causal": 6, "none": 0}[attention]
    return 6 * count + scores * shape.layers * shape.hidden_size * shape.context


def mfu(
    tokens_per_s: float,
    shape: ModelShape,
    peak: float | None,
    embedding: bool = True,
    attention: Literal["whole", "causal", "none"] = "whole",
) -> float | None:
    """Model FLOPs utilisation, 0 to 1: what the tokens need of what the cards could do (PaLM,
    arXiv 2204.02311, appendix B). None where the peak is unknown.

    tokens_per_s: of all workers together. peak: FLOPS of all their cards, `peak_flops` times their
    number. embedding, attention: what counts, as in `flops_per_token`.
    """
    return tokens_per_s * flops_per_token(shape, embedding, attention) / peak if peak else None


def mfu_by_convention(
    tokens_per_s: float, shape: ModelShape, peak: float | None
) -> dict[str, float | None]:
    """The same speed by the ways of counting in use; `with_attention` is `mfu` without options."""
    return {
        "matrices": mfu(tokens_per_s, shape, peak, embedding=False, attention="none"),
        "matrices_causal_attention": mfu(tokens_per_s, shape, peak, False, "causal"),
        "matrices_attention": mfu(tokens_per_s, shape, peak, embedding=False),
        "parameters": mfu(tokens_per_s, shape, peak, attention="none"),
        "with_attention": mfu(tokens_per_s, shape, peak),
    }


def peak_flops(card: str, dtype: str) -> float | None:
    """Dense peak FLOPS of one card (`torch.cuda.get_device_name()`) in fp32, bf16 or fp16; None for
    a card that peaks.yaml does not know, a part of one (MIG), and a CPU."""
    words = {word.casefold() for word in re.findall(r"[A-Za-z0-9]+", card)}
    table = _peaks()
    excluded = {word.casefold() for word in table["not"]}
    for entry in table["cards"]:
        named = {word.casefold() for word in entry["words"]}
        if named <= words and not (excluded - named) & words:
            return None if entry[dtype] is None else entry[dtype] * 1e12
    return None


@cache
def _peaks() -> dict[str, Any]:
    path = files("mutirao.core") / "peaks.yaml"
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert table["format"] == FORMAT, path
    return table


def memory_per_worker(shape: ModelShape, train: Train, cuda: bool = False) -> dict[str, int]:
    """Estimated bytes per worker: parameters, gradients, optimizer, activations, logits, total.

    States: ZeRO (arXiv 1910.02054, section 5): 2 + 2 + 12 bytes a parameter in bf16; in fp32
    DeepSpeed keeps a second master copy, 4 + 4 + 12. Stage 1 divides the optimizer's 12 by the
    workers, stage 2 the gradients too, stage 3 the parameters too; the torch engine divides none.
    Activations: 34 s b h L bytes at 2 bytes a value (Korthikanti, arXiv 2205.05198, table 2,
    without the score matrix, which the fused attention never stores); with gradient checkpointing
    2 s b h L and one whole layer. Logits: a chunk of them, in the model's type and twice in fp32,
    and the gradient of the head, which is added up in fp32.
    """
    count, width, workers = parameter_count(shape), dtype_bytes(train, cuda), train.workers
    stage = train.zero_stage if train.engine == "deepspeed" else 0
    weight = width if stage else 4  # the torch engine keeps fp32 weights and casts as it computes
    optimizer = 12 if stage else 8
    if cuda and stage and train.offload == "optimizer":
        optimizer = 0  # of the card: it lies in host memory
    tokens = sequences_per_pass(train, workers) * shape.context
    bytes_ = {
        "parameters": weight * count // (workers if stage >= 3 else 1),
        "gradients": weight * count // (workers if stage >= 2 else 1),
        "optimizer": optimizer * count // (workers if stage >= 1 else 1),
        "activations": _activation_bytes(shape, tokens, width, train.gradient_checkpointing),
        "logits": _logits_bytes(shape, min(tokens, logits_chunk(shape.vocab_size, cuda)), width),
    }
    return {**bytes_, "total": sum(bytes_.values())}


def logits_chunk(vocab_size: int, cuda: bool) -> int:
    """Tokens whose logits are alive at once; fewer where they would pass 64 MB in fp32, on CUDA
    256 MB.

    Each chunk adds to the whole gradient of the head: with fewer tokens that costs more than the
    products, and with more the logits leave a CPU's cache (0.94 of the CPU time of whole logits at
    512 tokens, 2,048 of them, 32,000 ids and 768 dimensions).
    """
    tokens, bytes_ = (2048, 2**28) if cuda else (512, 2**26)
    return min(tokens, max(1, bytes_ // (4 * vocab_size)))


def sequences_per_pass(train: Train, workers: int) -> int:
    """Sequences of one pass on each worker; `micro_batch: auto` counts as all at once here."""
    share = -(-train.global_batch // workers)
    return share if train.micro_batch in (0, "auto") else min(int(train.micro_batch), share)


def precision(train: Train, cuda: bool, native_bf16: bool = True) -> str:
    """fp32, bf16 or fp16: what the passes compute in; the optimizer's own copy is fp32 always."""
    if train.dtype != "auto":
        return train.dtype
    if not cuda:
        return "fp32"
    return "bf16" if native_bf16 else "fp16"


def dtype_bytes(train: Train, cuda: bool) -> int:
    return 4 if precision(train, cuda) == "fp32" else 2


def shape_record(shape: ModelShape) -> dict:
    return asdict(shape)


def _activation_bytes(shape: ModelShape, tokens: int, width: int, recompute: bool) -> int:
    one_layer = 34 * tokens * shape.hidden_size * width // 2
    if recompute:
        return width * tokens * shape.hidden_size * shape.layers + one_layer
    return one_layer * shape.layers


def _logits_bytes(shape: ModelShape, tokens: int, width: int) -> int:
    return shape.vocab_size * (tokens * (width + 4 + 4) + 4 * shape.hidden_size)


def _check(shape: ModelShape, vocab_size: int) -> None:
    if shape.hidden_size % shape.heads or shape.head_size % 2:
        raise RecipeError(
            f"hidden_size {shape.hidden_size} does not make {shape.heads} heads of even size",
            "model.hidden_size",
            f"Choose a multiple of {2 * shape.heads}.",
            "bad-shape",
        )
    if shape.heads % shape.kv_heads:
        raise RecipeError(
            f"{shape.heads} heads cannot share {shape.kv_heads} key-value heads",
            "model.kv_heads",
            "kv_heads must divide heads.",
            "bad-shape",
        )
    if shape.vocab_size < vocab_size:
        raise RecipeError(
            f"vocab_size {shape.vocab_size} is smaller than the tokenizer's {vocab_size}",
            "model.vocab_size",
            "Leave it out to take the tokenizer's, or give a larger one.",
            "bad-shape",
        )
