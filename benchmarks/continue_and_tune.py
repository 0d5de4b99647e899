"""The whole life of a small model: pretrained, continued on new text, tuned to answer questions.

    python benchmarks/continue_and_tune.py --data DIR --work DIR [--tokens 400000] [--out FILE.json]

DIR holds corpus/*.jsonl.gz (Portuguese text) and tasks/faquad/{train,dev}.json. Each run is a
recipe and a `mutirao run` of its own: `base` on novels; `continued` from it on laws with novels
replayed and the rate warmed again, and `no-replay` the same on laws alone; `answers` and `all` from
`continued` on questions with their answers, with the loss on answers and on all tokens. Everything
else is equal between the two of a pair: tokens, order of the data, rate, seed. A question comes
with the 300 characters around its answer. Measured with transformers on the exported folders: bits
per byte of the held-out text of both kinds, and the loss in nats per token of the answers to the
questions of dev.json, no text of which is left in training (decontaminate). Prints a table; --out
writes JSON. On two cores about ten minutes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mutirao.core.files import read_json, write_json
from mutirao.core.manifest import Manifest, read_manifest

OLD, NEW = "machado_de_assis", "leis_planalto"
OLD_BYTES, NEW_BYTES = 6_000_000, 2_000_000
AROUND = 150  # characters kept on each side of an answer's beginning
MODEL = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "context": 256,
}
TRAIN = {
    "engine": "torch",
    "workers": 1,
    "global_batch": 16,
    "warmup_steps": 10,
    "checkpoint_every": 1_000,
    "eval_every": 1_000,
    "max_epochs": 8,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=400_000, help="of base; the others a third")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = options.work.resolve()
    write_text(options.data, work)
    walls = {}
    for name, recipe in recipes(work, options.tokens):
        walls[name] = run(work, name, recipe)
    rows = {name: measured(work, name, options.data) for name in walls}
    found = {"format": 1, "tokens": options.tokens, "wall_s": walls, "models": rows}
    if options.out:
        write_json(options.out, found)
    print(table(rows))


def write_text(data: Path, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    for name, size in ((OLD, OLD_BYTES), (NEW, NEW_BYTES)):
        with open(work / f"{name}.jsonl", "wb") as target:
            for line in lines(data / "corpus" / f"{name}.jsonl.gz", size):
                target.write(line)
    for side in ("train", "dev"):
        rows = list(questions(data, side))
        write_lines(work / f"{side}.jsonl", [{"messages": messages} for messages in rows])
        contents = [{"text": m["content"]} for messages in rows for m in messages]
        write_lines(work / f"{side}-texts.jsonl", contents)


def lines(path: Path, size: int) -> Iterator[bytes]:
    """Whole lines of about `size` bytes in all."""
    with gzip.open(path) as stream:
        for line in stream:
            yield line
            if (size := size - len(line)) <= 0:
                return


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def questions(data: Path, side: str) -> Iterator[list[dict[str, str]]]:
    """Each question of FaQuAD with the text around its answer, and the first answer."""
    for article in read_json(data / "tasks" / "faquad" / f"{side}.json")["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answer = asked["answers"][0]
                text, start = paragraph["context"], answer["answer_start"]
                around = text[max(0, start - AROUND) : start + max(AROUND, len(answer["text"]))]
                asking = f"{around}\n\n{asked['question']}"
                yield [
                    {"role": "user", "content": asking},
                    {"role": "assistant", "content": answer["text"]},
                ]


def recipes(work: Path, tokens: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, recipe) in the order of the runs; each later one begins where an earlier one ended."""
    old, new = ({"path": str(work / f"{name}.jsonl"), "name": name} for name in (OLD, NEW))
    third = tokens // 3
    yield "base", recipe(work, [old], tokens=tokens, lr=3e-3)
    base = "base"
    yield "continued", later(work, base, [{**old, "weight": 0.2}, new], tokens=third, lr=2e-3)
    yield "no-replay", later(work, base, [{**old, "weight": 0}, new], tokens=third, lr=2e-3)
    asked = {"path": str(work / "train.jsonl"), "name": "faquad", "kind": "instruction"}
    for kind in ("answers", "all"):
        yield kind, later(work, "continued", [asked], tokens=third, lr=1e-3, loss_on=kind)


def recipe(work: Path, sources: list[dict[str, Any]], **train: Any) -> dict[str, Any]:
    """Without what would drop questions about the same paragraph, or the text of a set that is the
    training text here; what the questions of dev.json share with it is dropped."""
    return {
        "sources": sources,
        "neardup": {"threshold": 1.0},
        "filter": {"thresholds": {"min_words": 1}},
        "decontaminate": {"pack_sets": False, "against": [str(work / "dev-texts.jsonl")]},
        "split": {"heldout": 0.03},
        "tokenizer": {"vocab_size": 2048},
        "model": MODEL,
        "train": {**TRAIN, **train},
        "evaluate": {"min_gain_bits": 0, "samples": 0},
        "energy": {"meter": "constant", "cpu_watts": 10.0},
    }


def later(work: Path, start: str, sources: list[dict[str, Any]], **train: Any) -> dict[str, Any]:
    """A recipe that goes on from the run `start`: its weights, its tokenizer, its rate anew."""
    folder = folder_of(work, start)
    begun = recipe(work, sources, **{"from": str(folder / "model")}, **train)
    return {**begun, "tokenizer": {"path": str(folder / "model")}}


def run(work: Path, name: str, content: dict[str, Any]) -> float:
    """`mutirao run` in a process of its own; returns the seconds it took."""
    path = work / f"{name}.yaml"
    write_json(path, {"name": name, **content})  # JSON is YAML
    began = time.monotonic()
    command = [sys.executable, "-m", "mutirao.cli.main", "run", str(path), "--no-ray", "--quiet"]
    done = subprocess.run([*command, "--workdir", str(work / "mutirao")], check=False)
    if done.returncode:
        raise SystemExit(f"the run {name} ended with {done.returncode}")
    return round(time.monotonic() - began, 1)


def folder_of(work: Path, name: str) -> Path:
    """The newest run of that name."""
    found = sorted(
        (work / "mutirao" / "runs").glob(f"{name}-????????"), key=lambda p: p.stat().st_mtime
    )
    return found[-1]


def measured(work: Path, name: str, data: Path) -> dict[str, float]:
    """{old, new: bits per byte of held-out text, answer_nats, answer_nats_as_text}: the last two in
    nats per token of an answer, in a conversation and as plain text."""
    from train_jobs.evaluate import by_stream, heldout_nats
    from train_jobs.sample import load_model, load_tokenizer

    model = load_model(folder_of(work, name) / "model")
    pack = artefact(work, "continued", "pack")
    streams = by_stream(pack, dict(heldout_nats(model, pack)))["streams"]
    bits = {row["name"]: row["bits_per_byte"] for row in streams}
    tokenizer = load_tokenizer(folder_of(work, "answers") / "model")
    dev = list(questions(data, "dev"))
    talks = [in_conversation(tokenizer, messages) for messages in dev]
    texts = [as_text(tokenizer, messages) for messages in dev]
    return {
        "old": round(bits[OLD], 4),
        "new": round(bits[NEW], 4),
        "answer_nats": round(nats(model, talks), 4),
        "answer_nats_as_text": round(nats(model, texts), 4),
    }


def artefact(work: Path, name: str, stage: str) -> Manifest:
    key = read_json(folder_of(work, name) / "run.json")["stages"][stage]["key"]
    found = read_manifest(work / "mutirao" / "store" / stage / key)
    assert found is not None
    return found


def in_conversation(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """(what is asked, what is answered with its end of turn) as ids, by the chat template."""
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    asked = tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_dict=False
    )
    assert whole[: len(asked)] == asked and whole[-1] == tokenizer.eos_token_id
    return asked, whole[len(asked) : -1]


def as_text(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    asked, answered = (
        tokenizer(m["content"], add_special_tokens=False).input_ids for m in messages
    )
    between = tokenizer("\n\n", add_special_tokens=False).input_ids
    return [tokenizer.eos_token_id, *asked, *between], answered


def nats(model: Any, pairs: list[tuple[list[int], list[int]]]) -> float:
    """Mean over all answer tokens; of a pair longer than the context its last tokens."""
    import torch
    import torch.nn.functional as F

    losses = []
    for asked, answered in pairs:
        ids = torch.tensor([(asked + answered)[-model.config.max_position_embeddings :]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        found = F.cross_entropy(logits.float(), ids[0, 1:], reduction="none")
        losses += found[-len(answered) :].tolist()
    return float(np.mean(losses))


def table(rows: dict[str, dict[str, float]]) -> str:
    head = f"{'model':<12}{'novels b/B':>12}{'laws b/B':>12}{'answer nats':>14}{'as text':>10}"
    return "\n".join(
        [head]
        + [
            f"{name:<12}{r['old']:>12.4f}{r['new']:>12.4f}{r['answer_nats']:>14.4f}"
            f"{r['answer_nats_as_text']:>10.4f}"
            for name, r in rows.items()
        ]
    )


if __name__ == "__main__":
    main()
