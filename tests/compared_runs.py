"""Runs to compare, without running them: records, results and metrics as the stages write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from mutirao.core.files import canonical_json, write_bytes, write_json
from mutirao.core.manifest import Manifest, commit, write_part
from mutirao.core.metrics import MetricsWriter
from mutirao.core.recipe import Recipe
from mutirao.core.runs import Run, open_run, run_id
from mutirao.core.schemas import KEPT, write_ipc
from mutirao.core.workdir import Workdir

CONTEXT, BATCH = 16, 4
TEXTS = ("Era uma vez.", "Outra vez.", "E mais uma.")
TRAIN = {"tokens": 40 * BATCH * CONTEXT, "global_batch": BATCH}  # 40 steps


def begin(workdir: Workdir, text: str = "aa", **sections: Any) -> Run:
    """A run of which nothing is done; text: hash of its source."""
    train = {**TRAIN, **sections.pop("train", {})}
    model = {"context": CONTEXT, **sections.pop("model", {})}
    made = {"name": "tiny", "sources": [{"path": "x.txt"}], "model": model, "train": train}
    recipe = Recipe.model_validate({**made, **sections})
    run = open_run(workdir, run_id(recipe, [text]), recipe, Path())
    parts = {"inputs": {"files": [{"file": "x.txt", "sha256": text}]}, "assets": {}}
    run.stages["ingest"] = {"key": "none", "key_parts": parts, "status": "done"}
    run.save()
    return run


def pack(workdir: Workdir, run: Run, texts=TEXTS, per_shard: int = 9, tokenizer: str = "t") -> None:
    """Hold `texts` out, in text shards of `per_shard` documents."""
    size = sum(len(text.encode()) for text in texts)
    sides = {"train": {"documents": 9, "text_bytes": 900, "tokens": 300}}
    sides["heldout"] = {"documents": len(texts), "text_bytes": size, "tokens": size // 3}
    info = {k: {side: n[k] for side, n in sides.items()} for k in ("tokens", "text_bytes")}
    add(workdir, run, "split", {}, {}, kept_shards(texts, per_shard))
    add(workdir, run, "tokenizer", {}, {"vocab_size": 300, "made": tokenizer})
    add(workdir, run, "pack", sides, {**info, "streams": []})


def kept_shards(texts, per_shard: int):
    def parts(directory: Path) -> list:
        pieces = [texts[i : i + per_shard] for i in range(0, len(texts), per_shard)]
        return [
            write_part(directory, f"heldout-{n:05d}.arrow", shard(piece))
            for n, piece in enumerate(pieces)
        ]

    return parts


def shard(texts):
    """Writes a shard of kept text; all columns but the text are empty."""
    columns = [pa.nulls(len(texts), field.type) for field in KEPT]
    columns[KEPT.get_field_index("text")] = pa.array(texts, KEPT.field("text").type)
    batch = pa.RecordBatch.from_arrays(columns, schema=KEPT)

    def write(stream) -> int:
        write_ipc(stream, KEPT, [batch])
        return len(texts)

    return write


def train(run: Run, steps: int = 40, loss: float = 3.0, each: int = 10) -> None:
    """Metrics of `steps` steps, losses falling by 0.01 a step to `loss`."""
    writer = MetricsWriter(run.directory)
    writer.write("attempt", {"step": 0})
    for step in range(each, steps + 1, each):
        losses = [loss + 0.01 * (steps - s) for s in range(step - each + 1, step + 1)]
        row = {"step": step, "first_step": step - each + 1, "losses": losses, "skipped": 1}
        tokens = {"tokens": step * BATCH * CONTEXT, "tokens_per_s": 1000.0 + step}
        writer.write("train", {**row, **tokens, "loss": losses[-1]})
    writer.write("heldout", {"step": steps, "loss": loss, "tokens": 9, "bits_per_byte": loss / 2})
    writer.close()


def finish(workdir: Workdir, run: Run, bits: float, maker: str = "") -> None:
    add(workdir, run, "train", {}, {"parameters": 1234}, losses, maker or run.id)
    add(workdir, run, "evaluate", {}, {"bits_per_byte": bits})
    directory = workdir.artefact("evaluate", run.stages["evaluate"]["key"])
    write_json(directory / "evaluation.json", {"bits_per_byte": bits})
    run.record["status"] = "done"
    run.save()


def losses(directory: Path) -> list:
    text = b"".join(canonical_json({"step": s, "loss": 2.0}) + b"\n" for s in range(1, 41))
    write_bytes(directory / "losses.jsonl", text)
    return []


def add(workdir, run, stage, counts, info, parts=lambda directory: [], maker="") -> Manifest:
    """Commit a result of the run's stage."""
    key = f"{stage}-of-{run.id}"
    directory = workdir.artefact(stage, key)
    directory.mkdir(parents=True, exist_ok=True)
    found = [vars(part) for part in parts(directory)]
    content = {"stage": stage, "inputs": {}, "parts": found, "counts": counts, "info": info}
    manifest = commit(directory, content, {"run": maker or run.id, "wall_s": 1.0})
    run.stages[stage] = {"key": key, "key_parts": {}, "status": "done"}
    run.save()
    return manifest


def whole(workdir: Workdir, bits: float = 1.5, texts=TEXTS, per_shard=9, tokenizer="t", **made):
    """A run from its beginning to its end."""
    run = begin(workdir, **made)
    pack(workdir, run, texts, per_shard, tokenizer)
    train(run, loss=2 * bits)
    finish(workdir, run, bits)
    return run
