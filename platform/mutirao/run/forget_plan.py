"""What has to be rewritten so that documents are forgotten: the search, before anything changes.

In: a workdir and what was asked for. Out: a `Plan` of places only (files, rows, token spans, byte
spans), without ids or text of the forgotten documents, so it may lie on the disk while it is being
carried out. Every finished result of the store is looked at, whether a run needs it or not.
Memory: what data_jobs.results.forgotten says, and 50 bytes a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_jobs.results.forgotten import (
    Place,
    Traces,
    Wanted,
    answers_of,
    documents,
    equal_texts,
    exact_copies,
    find_rows,
)
from data_jobs.results.view import document_id
from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.schemas import read_ipc
from mutirao.core.stages import STAGE_NAMES
from mutirao.core.takedown import normalized
from mutirao.core.workdir import Workdir
from mutirao.run.forget_near import near_places
from mutirao.run.forget_parts import (
    Action,
    Store,
    action_of,
    inputs_are,
    made_from,
    naming,
    parts_of,
    rows_of,
)


@dataclass
class Plan:
    """actions: what to rewrite. near: ids of near-duplicates that stay. listed: for the takedown
    list, by kind; never written as it is."""

    documents: int = 0  # that were asked for
    unmatched: int = 0  # ids, URLs and lines that no document answers to
    copies: int = 0  # equal texts, other results' copies, and near-duplicates where asked for
    near: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    listed: dict[str, set[str]] = field(default_factory=dict)

    @property
    def results(self) -> set[tuple[str, str]]:
        """(stage, key) of the results that are rewritten."""
        return {(a["stage"], a["key"]) for a in self.actions if "stage" in a}


def make_plan(workdir: Workdir, wanted: Wanted, near: bool) -> Plan:
    """Search everything. Raises DataError where a result cannot be read."""
    store = {stage: list(committed(workdir, stage)) for stage in STAGE_NAMES}
    found, asked = _all_places(workdir, store, wanted, near)
    alike = near_places(workdir, store, found)
    plan, traces = Plan(documents=asked), Traces()
    traces.needles |= wanted.urls
    plan.listed = {"id": set(), "text": set(), "url": set(wanted.urls), "name": set()}
    ids: set[str] = set()
    answers: set[str] = set()
    for clean in store["clean"]:
        for _, document in documents(clean, found[clean.directory]):
            traces.add(document)
            ids.add(document["id"].hex())
            answers |= answers_of(document, wanted)
            _list(plan, document, wanted)
    plan.copies = max(0, len(ids) - asked)
    for clean in store["clean"]:
        places = found[clean.directory]
        plan.near += [d["id"].hex() for _, d in documents(clean, alike[clean.directory])]
        plan.actions += rows_of(clean, "text-", "text", places)
        plan.actions += _rejects(clean, traces, ids, wanted, plan)
        plan.actions += made_from(store, clean, places, traces)
    plan.actions += naming(store["neardup"], ids)
    asked_for = {normalized(one) for one in wanted.words | wanted.urls}
    plan.unmatched = len(asked_for - answers - plan.listed["id"])
    plan.near = sorted(set(plan.near) - ids)
    plan.actions += list(_text_files(workdir, traces))
    return plan


def committed(workdir: Workdir, stage: str) -> Iterator[Manifest]:
    folder = workdir.store / stage
    for directory in sorted(folder.iterdir()) if folder.is_dir() else []:
        manifest = read_manifest(directory) if directory.is_dir() else None
        if manifest is not None:
            yield manifest


def _all_places(
    workdir: Workdir, store: Store, wanted: Wanted, near: bool
) -> tuple[dict[Path, set[Place]], int]:
    """By result of `clean` the documents to forget, and how many were asked for.

    With `near` also those that resemble them, but not what resembles these in turn.
    """
    found = {clean.directory: find_rows(clean, wanted) for clean in store["clean"]}
    asked = {
        document["id"]
        for clean in store["clean"]
        for _, document in documents(clean, found[clean.directory])
    }
    _add_copies(store, found)
    if near:
        for folder, places in near_places(workdir, store, found).items():
            found[folder] |= places
        _add_copies(store, found)
    return found, len(asked)


def _add_copies(store: Store, found: dict[Path, set[Place]]) -> None:
    """Copies of copies count, in other results too, so this goes on until nothing is added."""
    before = -1
    while (now := sum(map(len, found.values()))) != before:
        before = now
        for clean in store["clean"]:
            places = found[clean.directory]
            for exact in inputs_are(store["exact"], "clean", clean):
                places |= exact_copies(exact, places)
        _copies_elsewhere(store["clean"], found)


def _copies_elsewhere(cleans: list[Manifest], found: dict[Path, set[Place]]) -> None:
    """The same ids and the same texts in every result of `clean`."""
    texts, ids = set(), set()
    for clean in cleans:
        for _, document in documents(clean, found[clean.directory]):
            texts.add(document["text"])
            ids.add(document["id"].hex())
    for clean in cleans if ids else ():
        found[clean.directory] |= find_rows(clean, Wanted(frozenset(ids), frozenset()))
        found[clean.directory] |= equal_texts(clean, texts)


def _list(plan: Plan, document: dict[str, Any], wanted: Wanted) -> None:
    plan.listed["id"].add(document["id"].hex())
    plan.listed["text"].add(document["text"])
    if document["name"] in wanted.words:
        plan.listed["name"].add(f"{document['source']}\0{document['name']}")


def _rejects(
    clean: Manifest, traces: Traces, ids: set[str], wanted: Wanted, plan: Plan
) -> list[Action]:
    """Snippets of rejected lines that hold a forgotten text or were asked for; their ids join the
    list."""
    actions = []
    for name, path in parts_of(clean, "rejects-"):
        rows = []
        for number, row in enumerate(read_ipc(path, "reject").to_pylist()):
            known = document_id(row["source"], row["file"], row["position"]).hex()
            asked = known in wanted.words or wanted.names_line_of(row["snippet"])
            if row["snippet"] and (asked or known in ids or traces.holds_text(row["snippet"])):
                rows.append(number)
                plan.documents += asked and known not in ids | plan.listed["id"]
                plan.listed["id"].add(known)
        if rows:
            actions.append(action_of(clean, name, do="rows", kind="reject", rows=rows))
    return actions


def _text_files(workdir: Workdir, traces: Traces) -> Iterator[Action]:
    """Logs, records and recipes of all runs, and the receipts of earlier takedowns."""
    patterns = ("runs/*/logs/*.log", "runs/*/run.json", "runs/*/recipe.yaml", "result.json")
    for pattern in (*patterns, "takedown/receipts/*.json"):
        for path in sorted(workdir.root.glob(pattern)):
            spans = _byte_spans(path, traces, log=path.suffix == ".log")
            if spans:
                file = path.relative_to(workdir.root).as_posix()
                yield {"do": "bytes", "file": file, "spans": spans}


def _byte_spans(path: Path, traces: Traces, log: bool) -> list[list[int]]:
    """Where a text file names a forgotten document. In a log the whole line where it quotes the
    text; in a record URLs and our ids only, since a source's own id could be any word."""
    spans, start = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        text = line.decode("utf-8", "surrogateescape")
        if log and traces.holds_text(text.rstrip("\r\n")):
            spans.append([start, start + len(line.rstrip(b"\r\n"))])
        elif not log:
            for first, last in traces.spans(text, names=False):
                ahead = len(text[:first].encode("utf-8", "surrogateescape"))
                size = len(text[first:last].encode("utf-8", "surrogateescape"))
                spans.append([start + ahead, start + ahead + size])
        start += len(line)
    return spans
