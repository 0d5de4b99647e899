"""The held-out loss while training: the first sequences of each stream, on all ranks together.

They are read and weighed as training reads and weighs its own (`train.document_mask`, `loss_on`).

`evaluate` reads all of them; this is for the curve, at a bounded cost: whatever the size of the
held-out side, about SEQUENCES of them in all and LEAST of each stream, so that a small domain has a
curve too. A forward pass costs a third of a training step's, so with 64 sequences every 100 steps
of 64 it is a third of a percent.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Train
from train_jobs import ranks
from train_jobs.answers import Answers
from train_jobs.engine import Engine, tensors
from train_jobs.evaluate import heldout_sizes, stream_bits
from train_jobs.loader import heldout_batches, stream_names

SEQUENCES = 64  # of all streams
LEAST = 8  # of one stream
ROWS = 8  # of one pass


@torch.no_grad()
def heldout_losses(
    engine: Engine, pack: Manifest, context: int, train: Train
) -> list[dict[str, Any]]:
    """[{name, loss (nats per token), bits_per_byte, tokens (looked at that count), of_tokens (held
    out)}] of the streams with a held-out token that counts; a collective.

    Bits per byte take the bytes per token of the stream's whole held-out side, since the bytes of
    its first sequences are not known; None where only answers count, whose bytes nobody knows."""
    names = stream_names(pack)
    engine.module.eval()
    found = []
    for stream, name in enumerate(names):
        rows = max(LEAST, SEQUENCES // len(names))
        nats, tokens, seen = _nats(engine, pack, context, train, stream, rows)
        if tokens:
            loss, whole = nats / tokens, heldout_sizes(pack, stream)["tokens"]
            bits = stream_bits(pack, stream, loss) if train.loss_on == "all" else None
            found.append(
                {
                    "name": name,
                    "loss": loss,
                    "bits_per_byte": bits,
                    "tokens": int(tokens),
                    "of_tokens": round(whole * tokens / seen),  # exact where all tokens count
                }
            )
    engine.module.train()
    return found


def heldout_mean(streams: list[dict[str, Any]]) -> dict[str, Any]:
    """{loss (nats per token), tokens (looked at)} of all streams together, each by the size of its
    whole held-out side."""
    whole = sum(one["of_tokens"] for one in streams)
    loss = sum(one["loss"] * one["of_tokens"] for one in streams) / max(1, whole)
    return {"loss": loss, "tokens": sum(one["tokens"] for one in streams)}


def _nats(
    engine: Engine, pack: Manifest, context: int, train: Train, stream: int, sequences: int
) -> list[float]:
    """[-ln of the probability of the tokens that count, how many these are, tokens looked at] of
    the first sequences of a stream, over all ranks."""
    found = [0.0, 0.0, 0.0]
    answers = Answers(pack.content["info"]) if train.loss_on == "answers" else None
    batches = heldout_batches(
        pack, context, ROWS, only=stream, document_mask=train.document_mask, answers=answers
    )
    for number, batch in enumerate(islice(batches, -(-sequences // ROWS))):
        # ZeRO 3 gathers each layer on all ranks together, so every rank walks every batch.
        mine = number % ranks.world() == ranks.rank()
        if not mine and not engine.gathers:
            continue
        weights = batch.weights if batch.answers is None else batch.answers
        arrays = {**batch.rows(0, ROWS), "weights": weights}
        nats = float(engine.loss(tensors(arrays, engine.device)))
        if mine:
            here = (nats, float(weights.sum()), float(batch.weights.sum()))
            found = [one + more for one, more in zip(found, here, strict=True)]
    return ranks.total(found, engine.device)
