"""In which fields the recipes of several runs differ, and in which content that no field names.

In: runs. Out: a `Difference` for each name, with the value of each run. A changed identity field
gives another result; a changed execution field only another way to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.identity import role
from mutirao.core.runs import Run

LEFT_OUT = ("name", "format")  # the runs' ids say the one, the other is the file's
HASH_DIGITS = 8
NAMED = ("preset", "streams")  # content that follows from the recipe's own words


@dataclass(frozen=True)
class Difference:
    """values: one for each run, in their order; None where it is unset, or not known yet."""

    name: str  # dotted, as in the recipe; or 'content of ...'
    role: str  # identity, execution
    values: tuple[Any, ...]


def recipe_differences(runs: list[Run]) -> list[Difference]:
    """Fields in the order of the recipe, then content."""
    every = [dict(_fields(run.recipe(), "", "identity")) for run in runs]
    roles: dict[str, str] = {}
    for fields in every:
        roles |= {name: kind for name, (kind, _) in fields.items()}
    columns = {n: tuple(f[n][1] if n in f else None for f in every) for n in roles}
    found = [Difference(name, roles[name], values) for name, values in columns.items()]
    return [one for one in found if _differs(one.values)] + _contents(runs)


def _fields(section: BaseModel, path: str, kind: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    """(dotted name, (role, value)) of each field; what stands in an execution field is execution.
    Lists of sections are numbered from 0, as `--set` takes them."""
    for name, field in type(section).model_fields.items():
        spelled = field.alias or name
        if not path and spelled in LEFT_OUT:
            continue
        mine = role(type(section), name) if kind == "identity" else kind
        yield from _values(getattr(section, name), f"{path}{spelled}", mine)


def _values(value: Any, path: str, kind: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    if isinstance(value, BaseModel):
        yield from _fields(value, f"{path}.", kind)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for number, one in enumerate(value):
            yield from _fields(one, f"{path}.{number}.", kind)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _values(one, f"{path}.{key}", kind)
    else:
        yield path, (kind, value)


def _differs(values: tuple[Any, ...]) -> bool:
    return any(value != values[0] for value in values[1:])


def _contents(runs: list[Run]) -> list[Difference]:
    """What stages' keys have besides the recipe: the text of the sources, files that the recipe
    names, the versions of stages. Only among the runs that came so far."""
    every = [_content(run) for run in runs]
    found = []
    for name in dict.fromkeys(name for content in every for name in content):
        values = tuple(content.get(name) for content in every)
        known = tuple(value for value in values if value is not None)
        if _differs(known):
            found.append(Difference(name, "identity", values))
    return found


def _content(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage, entry in run.stages.items():
        parts = entry.get("key_parts") or {}
        if stage == "ingest" and "inputs" in parts:
            hashes = [entry["sha256"] for entry in parts["inputs"].get("files", [])]
            found["content of the sources"] = sha256_hex(canonical_json(hashes))[:HASH_DIGITS]
        for name, digest in parts.get("assets", {}).items():
            if name not in NAMED:
                found[f"content of {name} ({stage})"] = digest[:HASH_DIGITS]
        if "output_version" in parts:
            found[f"version of {stage}"] = parts["output_version"]
    return found
