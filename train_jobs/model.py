"""The model: a shape -> Hugging Face LlamaConfig -> LlamaForCausalLM with seeded weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from mutirao.core.model_size import ModelShape
from mutirao.core.recipe import Train
from train_jobs.cross_entropy import LossHead
from train_jobs.kernels import ATTENTION, check_kernels, set_kernels, varlen_bounds


class TrainingLlama(LlamaForCausalLM):
    """The Hugging Face model under its own parameter names; called with `weights` it returns the
    loss instead of logits."""

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        drawn = self.lm_head.weight  # the embedding's where they are tied
        vocab_size, hidden_size = drawn.shape
        self.lm_head = LossHead(hidden_size, vocab_size, bias=False, device="meta")
        self.lm_head.weight = drawn

    def forward(self, input_ids, labels=None, weights=None, position_ids=None, **options):
        """input_ids, labels, position_ids int64 [b, L], weights float32 [b, L] -> the sum of weight
        times nats over the tokens, a float32 scalar; without `weights` as Hugging Face has it.

        Where position_ids begin anew, attention does not look back past that place: transformers
        makes the mask out of them, since no attention_mask is given.
        """
        if weights is None:
            return super().forward(input_ids, labels=labels, position_ids=position_ids, **options)
        bounds = {}
        if position_ids is not None and self.config._attn_implementation == ATTENTION["varlen"]:
            bounds = varlen_bounds(position_ids)
        output = self.model(input_ids, position_ids=position_ids, use_cache=False, **bounds)
        return self.lm_head(output.last_hidden_state, labels, weights)


def build_model(shape: ModelShape, seed: int, train: Train | None = None) -> TrainingLlama:
    """Fp32 weights drawn from `seed` alone: equal on every rank and machine of the same torch.

    train: how its layers are computed. Raises EnvironmentProblem where that cannot be done here.
    """
    if train:
        check_kernels(train, torch.cuda.is_available())
    torch.manual_seed(seed)
    model = TrainingLlama(llama_config(shape))
    if train:
        set_kernels(model, train)
    return model


def meta_model(shape: ModelShape) -> LlamaForCausalLM:
    """The same model without memory behind it, for counting and for reading names and shapes."""
    with torch.device("meta"):
        return LlamaForCausalLM(llama_config(shape))


def llama_config(shape: ModelShape, eos_id: int | None = None) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tie_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        rms_norm_eps=shape.norm_eps,
        initializer_range=shape.initializer_range,
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
        pad_token_id=None,
        use_cache=False,
    )


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats per token: logits [b, L, V], labels int64 [b, L] -> float32 [b, L]."""
    flat = logits.float().view(-1, logits.size(-1))
    return F.cross_entropy(flat, labels.reshape(-1), reduction="none").view(labels.shape)


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups of the optimizer: matrices decay, norms (one dimension) do not."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for _, p in named if p.dim() >= 2]
    vectors = [p for _, p in named if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
