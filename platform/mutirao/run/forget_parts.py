"""The parts of finished results that hold a forgotten document, and the places in them.

In: results of the store by stage, the places (shard, row) of the documents in one result of
`clean`. Out: actions, each a part, what to do with it (`data_jobs/results/scrub.py`) and where.
Memory: 50 bytes a place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_jobs.results.forgotten import Place, Traces, by_shard, named_duplicates
from mutirao.core.files import read_json
from mutirao.core.manifest import Manifest
from mutirao.core.schemas import read_ipc
from mutirao.core.stages import DECISION_STAGES

Action = dict[str, Any]
Store = dict[str, list[Manifest]]


def made_from(store: Store, clean: Manifest, places: set[Place], traces: Traces) -> list[Action]:
    """Everything that the documents of one result of `clean` went into, but models."""
    actions: list[Action] = []
    for stage in DECISION_STAGES if places else ():
        for decided in inputs_are(store[stage], "clean", clean):
            actions += rows_of(decided, f"{stage}-", f"decision.{stage}", places)
    for neardup in inputs_are(store["neardup"], "clean", clean) if places else ():
        actions += _index(neardup, places)
    for split in inputs_are(store["split"], "clean", clean) if places else ():
        actions += _kept(split, places)
        for pack in inputs_are(store["pack"], "split", split):
            actions += _tokens(pack, places)
            for evaluated in inputs_are(store["evaluate"], "pack", pack):
                actions += _samples(evaluated, traces)
    return actions


def _index(neardup: Manifest, places: set[Place]) -> list[Action]:
    """Band keys and signatures are hashes of the text; without them no later crawl is compared
    with it."""
    actions = rows_of(neardup, "signatures-", "signatures", places)
    bands = parts_of(neardup, "bands-")
    for shard, rows in by_shard(places).items() if bands else ():
        actions.append(action_of(neardup, bands[shard][0], do="bands", rows=rows))
    return actions


def naming(neardups: list[Manifest], ids: set[str]) -> list[Action]:
    """Decisions that name a forgotten document as the one that stays; of other crawls too."""
    raw = {bytes.fromhex(one) for one in ids}
    return [
        action_of(
            neardup, parts_of(neardup, "neardup-")[shard][0], do="rows", kind="duplicate", rows=rows
        )
        for neardup in neardups
        for shard, rows in named_duplicates(neardup, raw).items()
    ]


def inputs_are(results: list[Manifest], stage: str, made: Manifest) -> list[Manifest]:
    return [m for m in results if m.content.get("inputs", {}).get(stage) == made.content_hash]


def parts_of(manifest: Manifest, prefix: str) -> list[tuple[str, Path]]:
    names = [part.path for part in manifest.parts if part.path.startswith(prefix)]
    return [(name, manifest.directory / name) for name in names]


def action_of(manifest: Manifest, part: str, **what: Any) -> Action:
    return {
        "stage": manifest.content["stage"],
        "key": manifest.directory.name,
        "part": part,
        **what,
    }


def rows_of(manifest: Manifest, prefix: str, kind: str, places: set[Place]) -> list[Action]:
    parts = parts_of(manifest, prefix)
    if not parts:  # an older version wrote none
        return []
    return [
        action_of(manifest, parts[shard][0], do="rows", kind=kind, rows=rows)
        for shard, rows in by_shard(places).items()
    ]


def _kept(split: Manifest, places: set[Place]) -> list[Action]:
    actions = []
    for name, path in [*parts_of(split, "train-"), *parts_of(split, "heldout-")]:
        rows = _at(read_ipc(path, "kept"), places)
        if rows:
            actions.append(action_of(split, name, do="rows", kind="kept", rows=rows))
    return actions


def _tokens(pack: Manifest, places: set[Place]) -> list[Action]:
    actions = []
    for name, path in parts_of(pack, ""):
        if not name.endswith(".documents.arrow"):
            continue
        table = read_ipc(path, "documents")
        documents = [table.slice(row, 1).to_pylist()[0] for row in _at(table, places)]
        spans = [[d["offset"], d["offset"] + d["tokens"]] for d in documents]
        if spans:
            tokens = name.replace(".documents.", ".tokens.")
            eos = pack.content["info"]["eos_id"]
            actions.append(action_of(pack, tokens, do="tokens", spans=spans, eos=eos))
    return actions


def _at(table: Any, places: set[Place]) -> list[int]:
    pairs = zip(table.column("shard").to_pylist(), table.column("row").to_pylist(), strict=True)
    return [number for number, place in enumerate(pairs) if place in places]


def _samples(evaluated: Manifest, traces: Traces) -> list[Action]:
    path = evaluated.directory / "samples.json"
    rows = []
    for number, sample in enumerate(read_json(path).get("samples", [])):
        pieces = f"{sample['prompt']}<|endoftext|>{sample['continuation']}".split("<|endoftext|>")
        if any(traces.holds_text(piece) for piece in pieces):
            rows.append(number)
    return [action_of(evaluated, path.name, do="samples", rows=rows)] if rows else []
