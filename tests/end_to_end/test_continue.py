"""A model is pretrained, goes on from its weights on new text, and learns to answer questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from in_process import here
from mutirao.core.files import read_json
from mutirao.core.manifest import read_manifest
from mutirao.core.schemas import read_ipc

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

NUMBERS = ["zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove"]
RECIPE = {
    "language": "por_Latn",
    "langid": {"keep": ["por", "glg", "spa"], "min_confidence": 0.0},
    "filter": {"thresholds": {"min_words": 1, "min_stop_words": None}},
    "neardup": {"threshold": 1.0},
    "decontaminate": {"pack_sets": False},
    "split": {"heldout": 0.1},
    "model": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "context": 64,
    },
    "energy": {"meter": "constant", "cpu_watts": 10.0},
    "evaluate": {"samples": 1, "sample_tokens": 10},
}
TRAIN = {
    "engine": "torch",
    "workers": 1,
    "tokens": 81_920,
    "global_batch": 16,
    "lr": 5e-3,
    "warmup_steps": 5,
    "checkpoint_every": 40,
    "max_epochs": 50,
}
MANUAL = {"path": "sample://manual.parquet", "name": "manual"}
OTHER = {"path": "sample://docs.jsonl.gz", "name": "docs"}


def questions() -> list[list[dict[str, str]]]:
    """Sums of two numbers, asked in words."""
    return [
        [
            {"role": "user", "content": f"Se tenho {a} e recebo mais {b}, com quantos eu fico?"},
            {"role": "assistant", "content": f"Você fica com {i + j}, que são {a} mais {b}."},
        ]
        for i, a in enumerate(NUMBERS)
        for j, b in enumerate(NUMBERS)
    ]


class Place:
    """A folder with recipes and their runs."""

    def __init__(self, root: Path):
        self.root = root
        rows = "".join(json.dumps({"messages": m}, ensure_ascii=False) + "\n" for m in questions())
        (root / "questions.jsonl").write_text(rows, "utf-8")

    def run(self, name: str, sources: list[dict], tokenizer: dict, **train):
        content = {**RECIPE, "name": name, "sources": sources, "tokenizer": tokenizer}
        content["train"] = {**TRAIN, **train}
        (self.root / f"{name}.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
        return here("run", f"{name}.yaml", "--no-ray", "--quiet", cwd=self.root)

    def folder(self, name: str) -> Path:
        (found,) = (self.root / "mutirao-work" / "runs").glob(f"{name}-*")
        return found

    def model(self, name: str) -> Path:
        return self.folder(name) / "model"

    def artefact(self, name: str, stage: str):
        key = read_json(self.folder(name) / "run.json")["stages"][stage]["key"]
        return read_manifest(self.root / "mutirao-work" / "store" / stage / key)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """base: pretrained; continued: on other text, with the old replayed; tuned: on questions."""
    place = Place(tmp_path_factory.mktemp("continue"))
    done = place.run("base", [MANUAL], {"vocab_size": 700})
    assert done.returncode == 0, done.stderr
    tokenizer = {"path": str(place.model("base"))}
    step = {"from": f"{place.folder('base').name}@80", "tokens": 40_960}
    done = place.run("continued", [{**MANUAL, "weight": 0.3}, OTHER], tokenizer, **step)
    assert done.returncode == 0, done.stderr
    asked = {"path": "questions.jsonl", "name": "questions", "kind": "instruction"}
    begin = {"from": str(place.model("continued")), "loss_on": "answers"}
    done = place.run("tuned", [asked], tokenizer, **begin)
    assert done.returncode == 0, done.stderr
    return place


def stream_bits(place: Place, name: str) -> dict[str, float]:
    """Bits per byte of the held-out text of `continued`, by source, of the model of a run."""
    from train_jobs.evaluate import by_stream, heldout_nats
    from train_jobs.sample import load_model

    pack = place.artefact("continued", "pack")
    streams = by_stream(pack, dict(heldout_nats(load_model(place.model(name)), pack)))["streams"]
    return {row["name"]: row["bits_per_byte"] for row in streams}


def test_going_on_learns_the_new_text_and_replay_keeps_the_old(place):
    before, after = stream_bits(place, "base"), stream_bits(place, "continued")
    assert after["docs"] < before["docs"] - 0.1
    assert after["manual"] < before["manual"] + 0.1


def test_the_exported_chat_template_gives_the_ids_of_the_pack(place):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place.model("tuned"))
    pack = place.artefact("tuned", "pack")
    assert (
        tokenizer.convert_tokens_to_ids("<|assistant|>")
        == pack.content["info"]["chat"]["assistant"]
    )
    packed: set[tuple[int, ...]] = set()
    for path in pack.paths(""):
        if path.name.endswith(".tokens.arrow"):
            packed |= set(documents(read_ipc(path, "tokens")["token"].to_pylist(), tokenizer))
    templated = {
        tuple(tokenizer.apply_chat_template(messages, return_dict=False))
        for messages in questions()
    }
    assert packed == templated


def documents(tokens: list[int], tokenizer):
    begin = 0
    for place, token in enumerate(tokens):
        if token == tokenizer.eos_token_id:
            yield tuple(tokens[begin : place + 1])
            begin = place + 1


def test_tuning_on_answers_learns_to_answer_unseen_questions(place):
    before, after = (heldout_answer_nats(place, name) for name in ("base", "tuned"))
    assert after < before / 2
    evaluated = place.artefact("tuned", "evaluate").content["info"]
    assert evaluated["answer_loss"] == pytest.approx(after, rel=0.05)
    assert evaluated["answer_loss"] < evaluated["unigram_answer_loss"]
    ends = read_json(place.model("tuned") / "generation_config.json")["eos_token_id"]
    chat = place.artefact("tuned", "pack").content["info"]["chat"]
    assert ends == [0, chat["end_of_turn"]]


def heldout_answer_nats(place: Place, name: str) -> float:
    """Nats per token of the held-out answers, by the weights that training would use."""
    import torch

    from train_jobs.answers import Answers
    from train_jobs.loader import token_streams
    from train_jobs.model import token_losses
    from train_jobs.sample import load_model

    model, pack = load_model(place.model(name)), place.artefact("tuned", "pack")
    answers, (stream,) = Answers(pack.content["info"]), token_streams(pack, "heldout")
    context = model.config.max_position_embeddings
    nats = count = 0.0
    for start in range(0, len(stream) - context - 1, context):
        tokens = stream.read(start, context + 1).astype("int64")
        weights = torch.from_numpy(answers.weights(stream, start, tokens))
        ids = torch.from_numpy(tokens)[None]
        with torch.no_grad():
            losses = token_losses(model(input_ids=ids[:, :-1]).logits, ids[:, 1:])[0]
        nats += float((losses * weights).sum())
        count += float(weights.sum())
    assert count > 30
    return nats / count


def test_loss_on_answers_without_conversations_is_refused_before_training(place):
    tokenizer = {"path": str(place.model("base"))}
    done = place.run("wrong", [MANUAL], tokenizer, loss_on="answers")
    assert done.returncode not in (0, 1)
    assert "no token of this text marks an answer" in done.stderr
    assert "kind: instruction" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((place.folder("wrong") / "checkpoints").glob("*"))
