"""Held-out bits per byte of the trained model, beside the unigram model, and sample continuations.

In: the committed `train` (weights), `pack` (held-out tokens), `tokenizer`. Out: `evaluation.json`,
`samples.json`. The run checks itself here: a model that does not beat token frequencies by
`evaluate.min_gain_bits` has not learned, and the run ends with both numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mutirao.core import schemas
from mutirao.core.errors import DataError
from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Manifest, write_part
from train_jobs.loader import TokenStream, heldout_batches, stream_names, token_streams

CHUNK = 1 << 24  # tokens counted at a time
PASS_TOKENS = 4096  # of one forward pass; more did not go faster on CPU
PROMPT_TOKENS = 16
KINDS = ("tokens", "text_bytes")


def run_evaluate(job: StageJob) -> StageResult:
    """Raises DataError (code no-learning) when the model is not better than the unigram model."""
    from train_jobs.sample import load_model

    pack, trained = job.inputs["pack"], job.inputs["train"]
    model = load_model(trained.directory)
    streams = heldout_nats(model, pack, job.progress)
    bits = _bits(sum(nats for _, nats in streams), pack.content["info"]["text_bytes"]["heldout"])
    unigram = trained.content["info"]["unigram_bits_per_byte"]
    check_learning(job, bits, unigram)
    evaluation = {
        "format": 1,
        "bits_per_byte": bits,
        "unigram_bits_per_byte": unigram,
        "heldout_tokens": pack.content["info"]["tokens"]["heldout"],
        "heldout_bytes": pack.content["info"]["text_bytes"]["heldout"],
        "loss": bits_to_loss(bits, pack),
        **by_stream(pack, dict(streams)),
    }
    samples = {"format": 1, "samples": continuations(job, model)}
    parts = [
        write_part(job.directory, "evaluation.json", _json_writer(evaluation)),
        write_part(job.directory, "samples.json", _json_writer(samples)),
    ]
    return StageResult(parts, {"heldout_tokens": evaluation["heldout_tokens"]}, evaluation)


def bits_per_byte(model: Any, pack: Manifest, progress: Any = None) -> float:
    """-log2 of the probability of the held-out text, by its bytes in UTF-8 (Gao, The Pile, arXiv
    2101.00027, section 3.1): comparable between tokenizers. Each token counts once, the first of a
    stream from eos; context is cut at multiples of the model's context."""
    nats = sum(nats for _, nats in heldout_nats(model, pack, progress))
    return _bits(nats, pack.content["info"]["text_bytes"]["heldout"])


def by_stream(pack: Manifest, nats: dict[str, float]) -> dict[str, Any]:
    """{streams: [{name, bits_per_byte, tokens, text_bytes}]} of those with held-out text; nothing
    for a pack of an older version, which does not know its streams."""
    rows = [
        {
            "name": stream["name"],
            "bits_per_byte": _bits(nats[stream["name"]], stream["heldout"]["text_bytes"]),
            "tokens": stream["heldout"]["tokens"],
            "text_bytes": stream["heldout"]["text_bytes"],
        }
        for stream in pack.content["info"].get("streams", [])
        if stream["heldout"]["text_bytes"]
    ]
    return {"streams": rows} if rows else {}


def stream_bits(pack: Manifest, stream: int, loss: float) -> float | None:
    """Bits per byte of a loss in nats per token, by the bytes per token of the held-out side of the
    stream (of the whole pack, where it does not know its streams); None without text."""
    info = pack.content["info"]
    streams = info.get("streams", [])
    sizes = streams[stream]["heldout"] if streams else {k: info[k]["heldout"] for k in KINDS}
    return _bits(loss * sizes["tokens"], sizes["text_bytes"]) if sizes["text_bytes"] else None


def _bits(nats: float, text_bytes: int) -> float:
    return nats / math.log(2) / text_bytes


def heldout_nats(model: Any, pack: Manifest, progress: Any = None) -> list[tuple[str, float]]:
    """(stream, -ln of the probability of its held-out tokens), in the order of the streams."""
    import torch

    from train_jobs.model import token_losses

    info = pack.content["info"]
    context = model.config.max_position_embeddings
    rows = max(1, PASS_TOKENS // context)
    device = next(model.parameters()).device
    found = []
    if progress:
        progress.start(-(-info["tokens"]["heldout"] // (rows * context)), "evaluate", "passes")
    for number, name in enumerate(stream_names(pack)):
        nats = 0.0
        with torch.no_grad():
            for batch in heldout_batches(pack, context, rows, info["eos_id"], only=number):
                ids, labels, weights = (torch.from_numpy(a).to(device) for a in batch)
                losses = token_losses(model(input_ids=ids, use_cache=False).logits, labels)
                nats += float((losses * weights).double().sum())
                if progress:
                    progress.advance()
        found.append((name, nats))
    if progress:
        progress.finish()
    return found


def unigram_bits_per_byte(pack: Manifest, vocab_size: int) -> float:
    """The same measure for the model that knows token frequencies alone: those of the training
    split with one added to each. One pass over the tokens; memory is the vocabulary's."""
    train = _counts(token_streams(pack, "train"), vocab_size) + 1
    heldout = _counts(token_streams(pack, "heldout"), vocab_size)
    log2_share = np.log2(train) - np.log2(train.sum())
    return float(-(heldout * log2_share).sum() / pack.content["info"]["text_bytes"]["heldout"])


def check_learning(job: StageJob, bits: float, unigram: float) -> None:
    gain = job.recipe.evaluate.min_gain_bits
    job.progress.say(f"  evaluate: {bits:.4f} bits per byte, unigram model {unigram:.4f}")
    if not bits <= unigram - gain:
        raise DataError(
            f"The model has not learned: {bits:.4f} bits per byte on held-out text, and a unigram "
            f"model reaches {unigram:.4f} (it must be {gain:g} below)",
            str(job.run_dir),
            "The run checks itself. Train on more tokens (train.tokens), or look at the loss "
            "in the report: a flat one asks for another train.lr. Margin: evaluate.min_gain_bits.",
            "no-learning",
        )


def continuations(job: StageJob, model: Any) -> list[dict[str, Any]]:
    """Seeded continuations of the beginnings of held-out documents, evenly spread over them."""
    from train_jobs.sample import generate, load_tokenizer

    pack, wanted = job.inputs["pack"], job.recipe.evaluate
    tokenizer = load_tokenizer(job.inputs["tokenizer"].directory)
    stream = TokenStream(pack.paths("heldout"))
    offsets = document_offsets(pack)
    chosen = offsets[:: max(1, len(offsets) // max(1, wanted.samples))][: wanted.samples]
    found = []
    for number, offset in enumerate(chosen):
        prompt = stream.read(offset, min(PROMPT_TOKENS, len(stream) - offset)).tolist()
        text = generate(
            model,
            tokenizer,
            prompt,
            tokens=wanted.sample_tokens,
            temperature=wanted.temperature,
            seed=job.recipe.seed + number,
        )
        found.append({"prompt": tokenizer.decode(prompt), "continuation": text})
    return found


def document_offsets(pack: Manifest) -> list[int]:
    """First tokens of the held-out documents in the sequence that all held-out shards make up."""
    offsets: list[np.ndarray] = [np.zeros(0, np.int64)]
    base = 0
    for path in pack.paths("heldout"):
        if path.name.endswith(".documents.arrow"):
            table = schemas.read_ipc(path, "documents")
            offsets.append(base + table["offset"].to_numpy())
            base += int(table["tokens"].to_numpy().sum())
    return np.concatenate(offsets).tolist()


def bits_to_loss(bits: float, pack: Manifest) -> float:
    """Nats per token of a number of bits per byte on this held-out split."""
    info = pack.content["info"]
    return bits * math.log(2) * info["text_bytes"]["heldout"] / info["tokens"]["heldout"]


def _counts(streams: list[TokenStream], vocab_size: int) -> np.ndarray:
    counts = np.zeros(vocab_size, dtype=np.int64)
    for chunk in (chunk for stream in streams for chunk in stream.chunks):
        for start in range(0, len(chunk), CHUNK):
            counts += np.bincount(chunk[start : start + CHUNK], minlength=vocab_size)
    return counts


def _json_writer(value: Any):
    def write(stream) -> int:
        stream.write(canonical_json(value) + b"\n")
        return 1

    return write
