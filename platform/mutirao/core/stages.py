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
    Stage("ingest", (), ("sources", "ingest"), 3, "fingerprint the sources, plan units of work"),
    Stage("clean", ("ingest",), ("clean",), 3, "parse, repair, write text shards; quarantine"),
    Stage("langid", ("clean",), ("language", "langid"), 2, "identify the language (fastText)"),
    Stage("filter", ("clean",), ("language", "filter"), 2, "measure and judge quality"),
    Stage(
        "exact",
        ("clean", "langid", "filter"),
        ("exact",),
        2,
        "drop documents equal after normalisation",
    ),
    Stage(
        "neardup",
        ("clean", "langid", "filter", "exact"),
        ("exact", "neardup"),
        2,
        "MinHash near-dedup",
    ),
    Stage(
        "decontaminate",
        ("clean", "langid", "filter", "exact", "neardup"),
        ("language", "decontaminate"),
        2,
        "drop text shared with evaluation sets",
    ),
    Stage(
        "split",
        ("clean", "langid", "filter", "exact", "neardup", "decontaminate"),
        ("split",),
        3,
        "join the decisions, write the kept text shards, hold some out",
    ),
    Stage(
        "tokenizer",
        ("split",),
        ("tokenizer", "seed"),
        2,
        "train the tokenizer, or take the one that is named",
    ),
    Stage(
        "pack",
        ("split", "tokenizer"),
        ("tokenized", "split", "pack"),  # split: the share held out of token files
        2,
        "write the token shards",
    ),
    Stage(
        "train", ("pack", "tokenizer"), ("model", "train", "mix", "seed"), 3, "pretrain the model"
    ),
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
DECISION_STAGES: tuple[str, ...] = ("langid", "filter", "exact", "neardup", "decontaminate")
