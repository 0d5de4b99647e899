"""The stages: one list, one spelling, used in folders, recipe, command line, ledger and report.

`output_version` rises by one whenever the same input and config give other bytes; the golden tests
fail when the bytes change and the number does not. `inputs` names the stages whose committed output
the stage reads; `sections` the recipe sections whose identity fields enter its key.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    name: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    output_version: int
    what: str


STAGES: tuple[Stage, ...] = (
    Stage("ingest", (), ("sources", "ingest"), 2, "fingerprint the sources, plan units of work"),
    Stage("clean", ("ingest",), ("clean",), 2, "parse, repair, write text shards; quarantine"),
    Stage("exact", ("clean",), ("exact",), 1, "drop documents equal after normalisation"),
    Stage("langid", ("clean",), ("language", "langid"), 2, "identify the language (fastText)"),
    Stage("filter", ("clean",), ("language", "filter"), 2, "measure and judge quality"),
    Stage("neardup", ("clean", "exact", "langid", "filter"), ("neardup",), 1, "MinHash near-dedup"),
    Stage(
        "decontaminate",
        ("clean", "neardup"),
        ("decontaminate",),
        1,
        "drop text shared with evaluation sets",
    ),
    Stage(
        "split",
        ("clean", "exact", "langid", "filter", "neardup", "decontaminate"),
        ("split", "seed"),
        2,
        "join the decisions, write the kept text shards, hold some out",
    ),
    Stage("tokenizer", ("split",), ("tokenizer", "seed"), 1, "train the byte-level BPE tokenizer"),
    Stage("pack", ("split", "tokenizer"), ("pack",), 1, "write the token shards"),
    Stage("train", ("pack", "tokenizer"), ("model", "train", "seed"), 1, "pretrain the model"),
    Stage("evaluate", ("train", "pack", "tokenizer"), ("evaluate",), 1, "held-out bits per byte"),
    Stage(
        "export",
        ("train", "tokenizer", "evaluate"),
        ("export",),
        1,
        "write the Hugging Face folder",
    ),
)

STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)
BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}
DATA_STAGES: tuple[str, ...] = STAGE_NAMES[: STAGE_NAMES.index("train")]
DECISION_STAGES: tuple[str, ...] = ("exact", "langid", "filter", "neardup", "decontaminate")
