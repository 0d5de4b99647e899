"""The way of one document through the stages: each value beside its threshold, and what dropped it.

In: {stage: committed Manifest} of a run, its recipe, a document's id, SHARD:ROW or its source's own
id. Out: a plain dict for the command line. Memory: the decisions of one text shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data_jobs.results.view import (
    NOBODY,
    SNIPPET,
    decision,
    decision_stages,
    document_id,
    duplicate_of,
    plain,
    rejects,
)
from data_jobs.shards import text_paths
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Filter, Recipe
from mutirao.core.schemas import read_ipc

ID_DIGITS = 8  # of the 32, at least


def explain(
    manifests: dict[str, Manifest], key: str, recipe: Recipe, base: Path | None = None
) -> dict[str, Any]:
    """Everything decided about one document: `key` is its id (32 hex digits, or the first 8 at
    least), SHARD:ROW, or the name that its source gave it. base: where the recipe's paths start;
    with it the thresholds of a thin pack, which drop nothing, are told too.

    {id, shard, row, source, ..., kept, stage, drop_reason, stages: [{stage, drop_reason, checks:
    [{name, value, sign ('<=', '>=' or 'in'), threshold, drops, would_drop, reason, what}], values,
    duplicate_of}]}. A document that `clean` rejected has no shard and row. Raises RecipeError if
    no document has this key.
    """
    place = find(manifests, key)
    if isinstance(place, dict):
        return _explain_reject(place)
    shard, row = place
    document = read_ipc(text_paths(manifests["clean"])[shard], "text").slice(row, 1).to_pylist()[0]
    if document["id"] == NOBODY:
        raise RecipeError("The document was taken down", key, code="taken-down")
    stages = [
        _stage(manifests, name, shard, row, document, recipe) for name in decision_stages(manifests)
    ]
    for stage in stages:
        if stage["stage"] == "filter" and base is not None:
            stage["checks"] += _thin(stage, manifests["filter"], document, recipe, base)
    first = next((s for s in stages if s["drop_reason"] is not None), None)
    copied = ("source", "name", "url", "license", "kind", "genre", "position", "meta")
    return {
        "id": document["id"].hex(),
        "shard": shard,
        "row": row,
        **{name: document[name] for name in copied},
        "snippet": document["text"][:SNIPPET],
        "text_bytes": len(document["text"].encode()),
        "kept": first is None,
        "stage": first["stage"] if first else "",
        "drop_reason": first["drop_reason"] if first else None,
        "stages": stages,
    }


def find(manifests: dict[str, Manifest], key: str) -> tuple[int, int] | dict[str, Any]:
    """(shard, row) of a document, or its row in the rejects of `clean`.

    Raises RecipeError if there is none, or more than one.
    """
    paths = text_paths(manifests["clean"])
    shard, _, row = key.partition(":")
    if shard.isdecimal() and row.isdecimal():
        place = int(shard), int(row)
        if place[0] < len(paths) and place[1] < read_ipc(paths[place[0]], "text").num_rows:
            return place
    found = [(n, row) for n, path in enumerate(paths) for row in _rows_called(path, key)]
    if len(found) == 1:
        return found[0]
    rejected = [] if found else _rejects_called(manifests["clean"], key)
    if len(rejected) == 1:
        return rejected[0]
    places = ", ".join(f"{s}:{r}" for s, r in found[:5])
    count = len(found) or len(rejected)
    problem = f"{count} documents are called {key} ({places})" if count else "No such document"
    hint = "Give the id, or SHARD:ROW; `mutirao data show` lists both."
    raise RecipeError(problem, key, hint, "no-document")


def _rows_called(path: Any, key: str) -> list[int]:
    table = read_ipc(path, "text")
    mask = pc.equal(table.column("name"), key) if key else None
    rows = set(pc.indices_nonzero(mask).to_pylist()) if mask is not None else set()
    prefix = _prefix(key)
    if prefix:
        ids = table.column("id").to_pylist()
        rows |= {i for i, one in enumerate(ids) if one != NOBODY and one.hex().startswith(prefix)}
    return sorted(rows)


def _rejects_called(clean: Manifest, key: str) -> list[dict[str, Any]]:
    prefix, found = _prefix(key), []
    for row in rejects(clean) if prefix else ():
        known = document_id(row["source"], row["file"], row["position"]).hex()
        if known.startswith(prefix):
            found.append({**row, "id": known})
    return found


def _prefix(key: str) -> str:
    lowered = key.lower()
    is_hex = len(key) >= ID_DIGITS and all(c in "0123456789abcdef" for c in lowered)
    return lowered if is_hex else ""


def _explain_reject(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        **{name: row[name] for name in ("source", "file", "position", "offset", "bytes")},
        "snippet": row["snippet"],
        "kept": False,
        "stage": "clean",
        "drop_reason": row["reason"],
        "stages": [{"stage": "clean", "drop_reason": row["reason"], "checks": [], "values": {}}],
    }


def _stage(
    manifests: dict[str, Manifest],
    name: str,
    shard: int,
    row: int,
    document: dict[str, Any],
    recipe: Recipe,
) -> dict[str, Any]:
    values = decision(manifests, name, shard).slice(row, 1).to_pylist()[0]
    checks = CHECKS[name](values, manifests[name].content.get("info", {}), document, recipe)
    values = plain(values)
    return {
        "stage": name,
        "drop_reason": values.pop("reason"),
        "checks": checks,
        "values": values,
        "duplicate_of": duplicate_of(manifests, values),
    }


def check(
    name: str, value: Any, sign: str, threshold: Any, reason: str, what: str = ""
) -> dict[str, Any]:
    """One value beside what it is held against; `drops` says that it fails. A threshold is
    compared as float32, like the values."""
    limit: Any = float(np.float32(threshold)) if isinstance(value, float) else threshold
    passes = value in limit if sign == "in" else value <= limit if sign == "<=" else value >= limit
    found = {"name": name, **plain({"value": value}), "sign": sign, "threshold": threshold}
    return {**found, "drops": not passes, "would_drop": False, "reason": reason, "what": what}


def _exact(values: dict[str, Any], info: Any, document: Any, recipe: Recipe) -> list[Any]:
    copies = int(values["duplicate_of_shard"] is not None)
    what = f"no earlier document with the same text ({recipe.exact.normalize})"
    return [check("earlier_copies", copies, "<=", 0, "exact-duplicate", what)]


def _langid(values: dict[str, Any], info: Any, document: Any, recipe: Recipe) -> list[Any]:
    config = recipe.langid
    keep = list(info.get("keep", ()))
    rows = [
        check("lang", values["lang"], "in", keep, "language", "the languages to keep"),
        check(
            "confidence",
            values["confidence"],
            ">=",
            config.min_confidence,
            "language-unsure",
            "how sure the identification must be",
        ),
    ]
    if config.mode == "paragraph":
        what = "share of the text in the languages to keep"
        rows.append(check("share", values["share"], ">=", config.min_share, "language", what))
    if config.varieties:
        wanted = list(config.varieties)
        rows.append(check("variety", values["variety"], "in", wanted, "variety", "to keep"))
    return rows


def _filter(values: dict[str, Any], info: Any, document: Any, recipe: Recipe) -> list[Any]:
    """Every rule with a threshold in the pack (or in its profile for the document's genre), in the
    order of judging; then the licence."""
    from data_jobs.quality.rules import rules_with

    limits = info.get("genres", {}).get(document["genre"]) or info.get("thresholds", {})
    measured = {**values, **dict(values.get("scores") or {})}
    rows = [
        check(
            rule.value,
            measured[rule.value],
            ">=" if rule.sign < 0 else "<=",
            limits[rule.threshold],
            rule.reason,
            rule.words,
        )
        for rule in rules_with(recipe.filter.scores)
        if rule.threshold in limits and measured.get(rule.value) is not None
    ]
    if allowed := recipe.filter.allowed_licenses:
        found = check("license", document["license"], "in", list(allowed), "license", "to keep")
        rows.append({**found, "drops": values.get("reason") == "license"})
    return rows


def _thin(
    stage: dict[str, Any],
    manifest: Manifest,
    document: dict[str, Any],
    recipe: Recipe,
    base: Path,
) -> list[dict[str, Any]]:
    """The checks of a thin pack's own thresholds; none if the pack is another one by now."""
    from data_jobs.quality.rules import profiles, rules_with
    from mutirao.core.languages import load_pack, pack_folder

    if manifest.content["info"].get("evidence") != "thin":
        return []
    try:
        pack = load_pack(recipe.language, pack_folder(recipe, base))
    except RecipeError:
        return []
    if pack.sha256 != manifest.content.get("assets", {}).get("pack"):
        return []
    rules = rules_with(recipe.filter.scores)
    by_genre = profiles(pack, recipe.filter.thresholds, rules)
    limits = by_genre.get(document["genre"], by_genre[""])
    judged = {"thresholds": limits}
    values = {**stage["values"], "reason": stage["drop_reason"]}
    own = recipe.model_copy(update={"filter": Filter(scores=recipe.filter.scores)})
    enforced = {(one["name"], one["sign"], one["threshold"]) for one in stage["checks"]}
    return [
        {**one, "drops": False, "would_drop": one["drops"]}
        for one in _filter(values, judged, {**document, "genre": ""}, own)
        if (one["name"], one["sign"], one["threshold"]) not in enforced
    ]


def _neardup(values: dict[str, Any], info: Any, document: Any, recipe: Recipe) -> list[Any]:
    if values["jaccard"] is None:
        return []
    what = "Jaccard similarity with the document that stays"
    limit = recipe.neardup.threshold
    row = check("jaccard", values["jaccard"], "<=", limit, "near-duplicate", what)
    return [{**row, "drops": values["reason"] is not None, "sign": "<"}]


def _decontaminate(values: dict[str, Any], info: Any, document: Any, recipe: Recipe) -> list[Any]:
    limit = recipe.decontaminate.max_overlap
    what = "share of word n-grams that stand in an evaluation set"
    return [check("overlap", values["overlap"], "<=", limit, "evaluation-text", what)]


CHECKS = {
    "exact": _exact,
    "langid": _langid,
    "filter": _filter,
    "neardup": _neardup,
    "decontaminate": _decontaminate,
}
