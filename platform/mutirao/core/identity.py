"""What of a recipe is identity: hashed into the keys of stages and the id of the run.

In: a `Recipe`, whose fields carry their role in their type. Out: plain JSON without the fields that
are at their default, the difference of two such trees in words, and the names of token streams.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from mutirao.core.recipe import Recipe, Source, Tokenized


def stream_names(recipe: Recipe) -> list[str]:
    """The name of each source's token stream, of `sources` and then of `tokenized`: its own, else
    the stem of its first path; a name that was taken gets a number."""
    names: list[str] = []
    every: list[Source | Tokenized] = [*recipe.sources, *recipe.tokenized]
    for one in every:
        path = one.path if isinstance(one.path, str) else one.path[0]
        plain = path.rstrip("/").rsplit("/", 1)[-1].lstrip(".").split(".")[0].replace("*", "")
        name = stem = one.name or plain or "source"
        while name in names:
            name = f"{stem}-{names.count(name) + sum(n.startswith(f'{stem}-') for n in names) + 1}"
        names.append(name)
    return names


def role(model: type[BaseModel], field: str) -> str:
    """'identity' or 'execution', from the type of the field."""
    metadata = model.model_fields[field].metadata
    roles = [mark for mark in metadata if mark in ("identity", "execution")]
    assert len(roles) == 1, f"{model.__name__}.{field} must be marked identity or execution"
    return roles[0]


def identity(value: Any, mixing: bool = True) -> Any:
    """The identity fields of a section (or recipe) that are not at their default, as plain JSON.

    mixing: with those that only training reads."""
    if isinstance(value, BaseModel):
        kept = {}
        for name, field in type(value).model_fields.items():
            if role(type(value), name) != "identity" or (not mixing and "mixing" in field.metadata):
                continue
            part = identity(getattr(value, name), mixing)
            if field.is_required() or part != identity(
                field.get_default(call_default_factory=True), mixing
            ):
                kept[name] = part
        return kept
    if isinstance(value, tuple | list):
        return [identity(item, mixing) for item in value]
    if isinstance(value, dict):
        return {key: identity(item, mixing) for key, item in value.items()}
    return value


def section_identity(recipe: Recipe, sections: tuple[str, ...]) -> dict[str, Any]:
    """What a stage's key takes from the recipe: identity fields without those at default.

    The section `mix` is the weights and epoch caps that stand with the sources.
    """
    found: dict[str, Any] = {}
    for name in sections:
        if name == "mix":
            if mix := mix_identity(recipe):
                found[name] = mix
            continue
        field = Recipe.model_fields[name]
        value = identity(getattr(recipe, name), mixing=False)
        if field.is_required() or value != identity(field.get_default(call_default_factory=True)):
            found[name] = value
    return found


def mix_identity(recipe: Recipe) -> list[dict[str, Any]]:
    """Weights and epoch caps, source by source, where they are not at their default."""
    rows = [
        {name: getattr(one, name) for name in ("weight", "max_epochs")}
        for one in (*recipe.sources, *recipe.tokenized)
    ]
    default = {"weight": 1.0, "max_epochs": None}
    return [{"source": i, **row} for i, row in enumerate(rows) if row != default]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted names of the values in which two JSON trees differ, as 'train.lr: 0.001 -> 0.002'."""
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = old or {}, new or {}  # a whole section at its default is not there
        rows = []
        for key in sorted(set(old) | set(new)):
            rows += differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return rows
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        if all(isinstance(one, dict) for one in (*old, *new)):  # such as sources.1.weight
            return [row for k, (a, b) in pairs for row in differences(a, b, f"{path}.{k}")]
    return [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
