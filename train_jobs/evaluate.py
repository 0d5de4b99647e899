"""Held-out bits per byte of the trained model, beside the unigram model, and sample continuations.

In: the committed `train` (weights), `pack` (held-out tokens), `tokenizer`. Out: `evaluation.json`,
`samples.json`. Text is read as training read it: with its document mask. The run checks itself
here: a model that does not beat token frequencies by `evaluate.min_gain_bits` has not learned, and
the run ends with both numbers. One that was trained on answers alone is judged on answers, in bits
per token, since it may well have become worse at the questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutirao.core import schemas
from mutirao.core.errors import DataError
from mutirao.core.files import canonical_json
from mutirao.core.job import StageJob, StageResult
from mutirao.core.manifest import Manifest, write_part
from mutirao.core.recipe import Train
from train_jobs.answers import Answers
from train_jobs.loader import (
    Batch,
    TokenStream,
    heldout_batches,
    stream_names,
    token_streams,
    with_the_one_before,
)

CHUNK = 1 << 24  # tokens counted at a time
ANSWER_CHUNK = 1 << 20  # the same where it is asked of each whether it counts
PASS_TOKENS = 4096  # of one forward pass; more did not go faster on CPU
PROMPT_TOKENS = 16
KINDS = ("tokens", "text_bytes")


@dataclass
class Measured:
    """Of the held-out side of one stream: -ln of the probability of all its tokens, and of those
    of answers where `train.loss_on` asks for them."""

    name: str
    nats: float = 0.0
    answer_nats: float = 0.0
    answer_tokens: int = 0


def run_evaluate(job: StageJob) -> StageResult:
    """Raises DataError (code no-learning) when the model is not better than the unigram model."""
    from train_jobs.sample import load_model

    pack, trained = job.inputs["pack"], job.inputs["train"]
    model = load_model(trained.directory)
    streams = measured(model, pack, job.recipe.train, job.progress)
    nats = {one.name: one.nats for one in streams}
    bits = _bits(sum(nats.values()), pack.content["info"]["text_bytes"]["heldout"])
    unigram = trained.content["info"]["unigram_bits_per_byte"]
    vocab_size = trained.content["info"]["shape"]["vocab_size"]
    answers = answer_losses(streams, pack, job.recipe.train, vocab_size)
    check_learning(job, bits, unigram, answers)
    evaluation = {
        "format": 1,
        "bits_per_byte": bits,
        "unigram_bits_per_byte": unigram,
        "heldout_tokens": pack.content["info"]["tokens"]["heldout"],
        "heldout_bytes": pack.content["info"]["text_bytes"]["heldout"],
        "loss": bits_to_loss(bits, pack),
        **answers,
        **by_stream(pack, nats),
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
    stream; None without text."""
    sizes = heldout_sizes(pack, stream)
    return _bits(loss * sizes["tokens"], sizes["text_bytes"]) if sizes["text_bytes"] else None


def heldout_sizes(pack: Manifest, stream: int) -> dict[str, int]:
    """{tokens, text_bytes} of the held-out side of a stream; of the whole pack, where it does not
    know its streams."""
    info = pack.content["info"]
    streams = info.get("streams", [])
    return streams[stream]["heldout"] if streams else {k: info[k]["heldout"] for k in KINDS}


def _bits(nats: float, text_bytes: int) -> float:
    return nats / math.log(2) / text_bytes


def heldout_nats(model: Any, pack: Manifest, progress: Any = None) -> list[tuple[str, float]]:
    """(stream, -ln of the probability of its held-out tokens), in the order of the streams; each
    sequence read as one text."""
    return [(one.name, one.nats) for one in measured(model, pack, Train(), progress)]


def measured(model: Any, pack: Manifest, train: Train, progress: Any = None) -> list[Measured]:
    """In the order of the streams. train: how the model was trained to read."""
    info = pack.content["info"]
    context = model.config.max_position_embeddings
    rows = max(1, PASS_TOKENS // context)
    rule = Answers(info, plain=False) if train.loss_on == "answers" else None
    about: dict[str, Any] = {"document_mask": train.document_mask, "answers": rule}
    found = [Measured(name) for name in stream_names(pack)]
    if progress:
        progress.start(-(-info["tokens"]["heldout"] // (rows * context)), "evaluate", "passes")
    for number, one in enumerate(found):
        for batch in heldout_batches(pack, context, rows, only=number, **about):
            one.nats += _nats(losses := _losses(model, batch), batch.weights)
            if batch.answers is not None:
                one.answer_nats += _nats(losses, batch.answers)
                one.answer_tokens += int(batch.answers.sum())
            if progress:
                progress.advance()
    if progress:
        progress.finish()
    return found


def _losses(model: Any, batch: Batch) -> Any:
    """A float32 tensor [rows, L] where the model is: nats per token."""
    import torch

    from train_jobs.model import token_losses

    device = next(model.parameters()).device
    inputs = {"input_ids": batch.input_ids}
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    given = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    with torch.no_grad():
        logits = model(**given, use_cache=False).logits
        return token_losses(logits, torch.from_numpy(batch.labels).to(device))


def _nats(losses: Any, weights: np.ndarray) -> float:
    import torch

    return float((losses * torch.from_numpy(weights).to(losses.device)).double().sum())


def answer_losses(
    streams: list[Measured], pack: Manifest, train: Train, vocab_size: int
) -> dict[str, Any]:
    """{answer_tokens, answer_loss, unigram_answer_loss (nats per token)} of the held-out answers,
    the losses None where there is none; {} for a model that was trained on all text."""
    if train.loss_on != "answers":
        return {}
    tokens = sum(one.answer_tokens for one in streams)
    loss = sum(one.answer_nats for one in streams) / tokens if tokens else None
    unigram = unigram_answer_loss(pack, vocab_size) if tokens else None
    return {"answer_tokens": tokens, "answer_loss": loss, "unigram_answer_loss": unigram}


def unigram_answer_loss(pack: Manifest, vocab_size: int) -> float:
    """Nats per token of held-out answers for the model that knows how often each token stands in
    the answers of the training side, one added to each."""
    train, heldout = (_answer_counts(pack, side, vocab_size) for side in ("train", "heldout"))
    share = np.log(train + 1) - np.log((train + 1).sum())
    return float(-(heldout * share).sum() / heldout.sum())


def _answer_counts(pack: Manifest, side: str, vocab_size: int) -> np.ndarray:
    """int64 [vocab_size]: how often each token stands in the answers of a side."""
    info = pack.content["info"]
    rule, counts = Answers(info, plain=False), np.zeros(vocab_size, dtype=np.int64)
    for stream in token_streams(pack, side):
        for start in range(0, len(stream), ANSWER_CHUNK):
            tokens = with_the_one_before(stream, start, ANSWER_CHUNK, info["eos_id"])
            counted = rule.weights(stream, max(0, start - 1), tokens) > 0
            counts += np.bincount(tokens[1:][counted], minlength=vocab_size)
    return counts


def unigram_bits_per_byte(pack: Manifest, vocab_size: int) -> float:
    """The same measure for the model that knows token frequencies alone: those of the training
    split with one added to each. One pass over the tokens; memory is the vocabulary's."""
    train = _counts(token_streams(pack, "train"), vocab_size) + 1
    heldout = _counts(token_streams(pack, "heldout"), vocab_size)
    log2_share = np.log2(train) - np.log2(train.sum())
    return float(-(heldout * log2_share).sum() / pack.content["info"]["text_bytes"]["heldout"])


def check_learning(job: StageJob, bits: float, unigram: float, answers: dict[str, Any]) -> None:
    """answers: of `answer_losses`."""
    said, unit, where = f"  evaluate: {bits:.4f} bits per byte", "bits per byte", "text"
    if answers:
        job.progress.say(said)
        if not answers["answer_tokens"]:
            job.progress.say("  no answer is held out: whether the model learned is not judged")
            return
        nats = (answers[name] for name in ("answer_loss", "unigram_answer_loss"))
        bits, unigram = (one / math.log(2) for one in nats)
        said, unit, where = f"  answers: {bits:.4f} bits per token", "bits per token", "answers"
    job.progress.say(f"{said}, unigram model {unigram:.4f}")
    gain = job.recipe.evaluate.min_gain_bits
    if not bits <= unigram - gain:
        raise DataError(
            f"The model has not learned: {bits:.4f} {unit} on held-out {where}, and a unigram "
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
