"""The held-out loss while training: the first sequences of each stream, on all ranks together.

`evaluate` reads all of them; this is for the curve.
"""

from __future__ import annotations

from typing import Any

import torch

from mutirao.core.manifest import Manifest
from train_jobs import ranks
from train_jobs.engine import Engine
from train_jobs.evaluate import stream_bits
from train_jobs.loader import heldout_batches, stream_names

SEQUENCES = 64
ROWS = 8  # of one pass


@torch.no_grad()
def heldout_losses(engine: Engine, pack: Manifest, context: int) -> list[dict[str, Any]]:
    """[{name, loss (nats per token), tokens, bits_per_byte}] of the streams with held-out text.

    Bits per byte take the bytes per token of the stream's whole held-out side, since the bytes of
    its first sequences are not known."""
    eos = pack.content["info"]["eos_id"]
    engine.module.eval()
    found = []
    for stream, name in enumerate(stream_names(pack)):
        nats, tokens = 0.0, 0.0
        batches = heldout_batches(pack, context, ROWS, eos, SEQUENCES, only=stream)
        for number, (ids, labels, weights) in enumerate(batches):
            # ZeRO 3 gathers each layer on all ranks together, so every rank walks every batch.
            mine = number % ranks.world() == ranks.rank()
            if not mine and not engine.gathers:
                continue
            arrays = {"input_ids": ids, "labels": labels, "weights": weights}
            inputs = {k: torch.from_numpy(v).to(engine.device) for k, v in arrays.items()}
            nats += float(engine.loss(inputs)) * mine
            tokens += float(weights.sum()) * mine
        nats, tokens = ranks.total([nats, tokens], engine.device)
        if tokens:
            loss = nats / tokens
            bits = stream_bits(pack, stream, loss)
            found.append({"name": name, "loss": loss, "tokens": int(tokens), "bits_per_byte": bits})
    engine.module.train()
    return found
