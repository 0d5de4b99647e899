"""The size of a Llama: dimensions, parameters, FLOPs per token, bytes per worker. No torch.

In: the recipe's `model` section (a preset name and overrides) and the tokenizer's vocabulary.
Out: a `ModelShape` and exact or estimated numbers about it, for the planner, `--dry-run` and the
training loop. Presets are data: `mutirao/models/<name>.yaml`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files

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


def flops_per_token(shape: ModelShape) -> int:
    """Training FLOPs (forward and backward) for one token: 6 N + 12 L h s.

    Convention: N counts every parameter with the embeddings (one multiply-add is 2 FLOPs, times 3
    for the backward pass); attention is counted over the whole context s, not its causal half
    (PaLM, arXiv 2204.02311, appendix B). An MFU that leaves the second term out is lower.
    """
    attention = 12 * shape.layers * shape.hidden_size * shape.context
    return 6 * parameter_count(shape) + attention


def memory_per_worker(shape: ModelShape, train: Train, cuda: bool = False) -> dict[str, int]:
    """Estimated bytes per worker: parameters, gradients, optimizer, activations, logits, total.

    States: ZeRO (arXiv 1910.02054, section 5): 2 + 2 + 12 bytes a parameter in bf16; in fp32
    DeepSpeed keeps a second master copy, 4 + 4 + 12. Stage 1 divides the optimizer's 12 by the
    workers, stage 2 the gradients too, stage 3 the parameters too; the torch engine divides none.
    Activations: 34 s b h L bytes at 2 bytes a value (Korthikanti, arXiv 2205.05198, table 2,
    without the score matrix, which the fused attention never stores); with gradient checkpointing
    2 s b h L and one whole layer. Logits: in the model's type, in fp32, their gradient.
    """
    count, width, workers = parameter_count(shape), dtype_bytes(train, cuda), train.workers
    stage = train.zero_stage if train.engine == "deepspeed" else 0
    weight = width if stage else 4  # the torch engine keeps fp32 weights and casts as it computes
    optimizer = 12 if stage else 8
    tokens = sequences_per_pass(train, workers) * shape.context
    bytes_ = {
        "parameters": weight * count // (workers if stage >= 3 else 1),
        "gradients": weight * count // (workers if stage >= 2 else 1),
        "optimizer": optimizer * count // (workers if stage >= 1 else 1),
        "activations": _activation_bytes(shape, tokens, width, train.gradient_checkpointing),
        "logits": tokens * shape.vocab_size * (width + 4 + 4),
    }
    return {**bytes_, "total": sum(bytes_.values())}


def sequences_per_pass(train: Train, workers: int) -> int:
    """Sequences of one pass on each worker; `micro_batch: auto` counts as all at once here."""
    share = -(-train.global_batch // workers)
    return share if train.micro_batch in (0, "auto") else min(int(train.micro_batch), share)


def dtype_bytes(train: Train, cuda: bool) -> int:
    bf16 = train.dtype == "bf16" or (train.dtype == "auto" and cuda)
    return 2 if bf16 else 4


def shape_record(shape: ModelShape) -> dict:
    return asdict(shape)


def _activation_bytes(shape: ModelShape, tokens: int, width: int, recompute: bool) -> int:
    one_layer = 34 * tokens * shape.hidden_size * width // 2
    if recompute:
        return width * tokens * shape.hidden_size * shape.layers + one_layer
    return one_layer * shape.layers


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
