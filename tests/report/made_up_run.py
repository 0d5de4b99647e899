"""A finished run without running one: manifests, metrics and a record, as stages write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutirao.core.files import write_json
from mutirao.core.manifest import Manifest, commit
from mutirao.core.metrics import MetricsWriter
from mutirao.core.recipe import Recipe

SAMPLE = {
    "prompt": "Escreva para <b>Ana</b>",
    "continuation": ": ana@exemplo.org ou (11) 98765-4321",
}
RECIPE = Recipe.model_validate({"name": "tiny", "sources": [{"path": "texts.jsonl"}]})


def stage(directory: Path, name: str, counts: dict[str, Any], info: dict[str, Any]) -> Manifest:
    provenance = {
        "key": f"key-of-{name}",
        "run": "tiny-00000000",
        "host": "workstation",
        "wall_s": 1.5,
        "versions": {"python": "3.12.0"},
    }
    content = {"stage": name, "parts": [], "counts": counts, "info": info}
    return commit(directory / "store" / name, content, provenance)


def finished_run(root: Path) -> tuple[Path, dict[str, Manifest]]:
    """(the run's folder, manifests of its stages): 10 documents in, 6 kept, a model trained."""
    kept = {"documents": 6, "text_bytes": 600}
    dropped = {"filter": {"min_words": {"documents": 3, "text_bytes": 30}}}
    refused = {"documents": 3, "text_bytes": 30}
    tokens = {"train": 180, "heldout": 20}
    sizes = {"tokens": tokens, "text_bytes": {"train": 540, "heldout": 60}}
    manifests = {
        "ingest": stage(root, "ingest", {"files": 1}, {"bytes_per_source": {"texts": 1234}}),
        "clean": stage(
            root,
            "clean",
            {"documents_in": 10, "documents_out": 9, "rejected": {"invalid-json": 1}},
            {"sources": {"texts": {"documents_in": 10}}},
        ),
        "filter": stage(root, "filter", {"reasons": {"min_words": 4}}, {}),
        "split": stage(
            root,
            "split",
            {"documents_in": 9, "documents_out": 6},
            {
                "dropped": dropped,
                "kept_per_source": {"texts": kept},
                "licenses": {"CC0-1.0": kept},
                "shares": {"texts": {"CC0-1.0": {"law": {"kept": kept, "dropped": refused}}}},
            },
        ),
        "tokenizer": stage(root, "tokenizer", {}, {"vocab_size": 512}),
        "pack": stage(root, "pack", {}, {**sizes, "sources": {"train": {"texts": 180}}}),
        "train": stage(
            root,
            "train",
            {},
            {"parameters": 1_234_567, "tokens": 360, "unigram_bits_per_byte": 3.0},
        ),
        "evaluate": stage(root, "evaluate", {}, {}),
        "export": stage(root, "export", {}, {}),
    }
    evaluated = manifests["evaluate"].directory
    write_json(evaluated / "evaluation.json", {"bits_per_byte": 2.0, "loss": 4.16})
    write_json(evaluated / "samples.json", {"format": 1, "samples": [SAMPLE]})
    run_dir = root / "runs" / "tiny-00000000"
    record = {"id": "tiny-00000000", "created": 1.79e9, "status": "running", "attempts": 2}
    write_json(run_dir / "run.json", record)
    write_metrics(run_dir)
    return run_dir, manifests


def write_metrics(run_dir: Path) -> None:
    writer = MetricsWriter(run_dir)
    writer.write("attempt", {"step": 0})
    for step in (10, 20, 30):
        losses = [6.0 - 0.1 * s for s in range(step - 9, step + 1)]
        row = {"step": step, "first_step": step - 9, "losses": losses, "lr": 1e-3}
        writer.write("train", {**row, "tokens_per_s": 5000.0, "skipped": 0})
    writer.write("heldout", {"step": 30, "loss": 3.5, "tokens": 20})
    writer.close()
