"""The way of one document through the stages: each value beside its threshold, and what dropped it.

In: {stage: committed Manifest} of a run, its recipe, a document's id, SHARD:ROW or its source's own
id. Out: a plain dict for the command line. Memory: the decisions of one text shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.evaluation.texts import passage
from data_jobs.results.duplicates import SNIPPET, duplicate_of, edges_of, in_the_end, place_of
from data_jobs.results.find import find
from data_jobs.results.kept_text import spans_at
from data_jobs.results.view import NOBODY, decision, decision_stages, plain
from data_jobs.shards import text_paths
from mutirao.core.earlier import open_earlier
from mutirao.core.errors import RecipeError, UserError
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Filter, Recipe
from mutirao.core.schemas import read_ipc

EDGES = 10  # near-duplicates that are named, the most alike first
CHOOSY = ("exact", "neardup", "decontaminate")  # look only at what the stages before them keep


def explain(
    manifests: dict[str, Manifest], key: str, recipe: Recipe, base: Path | None = None
) -> dict[str, Any]:
    """Everything decided about one document: `key` is its id (32 hex digits, or the first 8 at
    least), SHARD:ROW, or the name that its source gave it. base: where the recipe's paths start;
    with it the thresholds of a thin pack, which drop nothing, are told too.

    {id, shard, row, source, ..., text_bytes, kept_text_bytes (without paragraphs that are cut out),
    kept, stage, drop_reason, stages: [{stage, drop_reason, checks: [{name, value, sign ('<=', '>='
    or 'in'), threshold, drops, would_drop, reason, what}], values, duplicate_of, in_the_end,
    looked_at (False where the stage leaves out what was dropped before)}]}.
    duplicate_of: the document that stayed at that stage; in_the_end:
    where that one was dropped as a duplicate too, the last of the chain. neardup also has edges
    (how many documents are verified near to it) and near (EDGES of them). A document that `clean`
    rejected has no shard and row. Raises RecipeError if no document has this key.
    """
    place = find(manifests, key)
    if isinstance(place, dict):
        return _explain_reject(place)
    shard, row = place
    table = read_ipc(text_paths(manifests["clean"])[shard], "text")
    document = table.slice(row, 1).to_pylist()[0]
    if document["id"] == NOBODY:
        raise RecipeError("The document was taken down", key, code="taken-down")
    stages = [
        _stage(manifests, name, shard, row, document, recipe) for name in decision_stages(manifests)
    ]
    for stage in stages:
        if stage["stage"] == "filter" and base is not None:
            stage["checks"] += _thin(stage, manifests["filter"], document, recipe, base)
    if base is not None:
        _look_up_earlier(stages, base)
    _mark_looked_at(stages, manifests)
    first = next((s for s in stages if s["drop_reason"] is not None), None)
    spans = spans_at(manifests, shard, table.num_rows)
    size = len(document["text"].encode())
    left = spans[row] if spans else None
    copied = ("source", "name", "url", "license", "kind", "genre", "position", "meta")
    return {
        "id": document["id"].hex(),
        "shard": shard,
        "row": row,
        **{name: document[name] for name in copied},
        "snippet": document["text"][:SNIPPET],
        "text_bytes": size,
        "kept_text_bytes": size if left is None else sum(left[1::2]) - sum(left[::2]),
        "kept": first is None,
        "stage": first["stage"] if first else "",
        "drop_reason": first["drop_reason"] if first else None,
        "stages": stages,
    }


def _mark_looked_at(stages: list[dict[str, Any]], manifests: dict[str, Manifest]) -> None:
    """False, and no checks, where the stage leaves out what one before it had dropped."""
    dropped = {stage["stage"] for stage in stages if stage["drop_reason"] is not None}
    for stage in stages:
        before = dropped & set(manifests[stage["stage"]].content.get("inputs", ()))
        stage["looked_at"] = stage["stage"] not in CHOOSY or not before
        stage["checks"] = stage["checks"] if stage["looked_at"] else []


def _look_up_earlier(stages: list[dict[str, Any]], base: Path) -> None:
    """Name the documents of earlier results, where these are still there."""
    shown = [
        one for stage in stages for one in (stage["duplicate_of"], *stage.get("near", ())) if one
    ]
    folders: dict[Any, dict[str, Manifest]] = {}
    for one in shown:
        folder = one.get("against")
        if not isinstance(folder, str) or one["shard"] is None:
            continue
        try:
            found = folders.get(folder) or folders.setdefault(folder, open_earlier(base / folder))
            one |= place_of(found, one["shard"], one["row"])
        except (UserError, OSError, IndexError):
            continue


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
    against = recipe.neardup.against
    other = duplicate_of(manifests, (shard, row), values, against)
    found = {
        "stage": name,
        "drop_reason": values.pop("reason"),
        "checks": checks,
        "values": values,
        "duplicate_of": _judged(manifests, other),
        "in_the_end": _judged(manifests, in_the_end(manifests, other, against)),
    }
    if name == "neardup":
        found["edges"], found["near"] = edges_of(manifests, shard, row, EDGES, against)
    return found


def _judged(manifests: dict[str, Manifest], other: dict[str, Any] | None) -> dict[str, Any] | None:
    """With the stage that dropped it in turn ('' where it is kept) and why."""
    if other is None or "against" in other:
        return other
    for name in decision_stages(manifests):
        why = decision(manifests, name, other["shard"]).column("reason")[other["row"]].as_py()
        if why is not None:
            return {**other, "stage": name, "drop_reason": why}
    return {**other, "stage": "", "drop_reason": None}


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
    what = f"no equal text ({recipe.exact.normalize}) that is first by exact.prefer, then by id"
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
    if recipe.neardup.survivors == "closure":
        what += " of its cluster (closure: it may be under the threshold)"
    limit = recipe.neardup.threshold
    row = check("jaccard", values["jaccard"], "<=", limit, "near-duplicate", what)
    return [{**row, "drops": values["reason"] is not None, "sign": "<"}]


def _decontaminate(values: dict[str, Any], info: Any, document: Any, recipe: Recipe) -> list[Any]:
    limit = recipe.decontaminate.max_overlap
    what = "share of word n-grams that stand in an evaluation set"
    if values["matched"] is not None and values.get("ngrams"):
        words = passage(document["text"], values["offset"], recipe.decontaminate.ngram)
        what = f"{values['ngrams']} n-grams of {values['matched']}, the first: {words}"
    row = check("overlap", values["overlap"], "<=", limit, "evaluation-text", what)
    return [{**row, "drops": values["reason"] is not None}]


CHECKS = {
    "exact": _exact,
    "langid": _langid,
    "filter": _filter,
    "neardup": _neardup,
    "decontaminate": _decontaminate,
}
