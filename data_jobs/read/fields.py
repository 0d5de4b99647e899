"""One value out of a record by its name: plain, or with dots into nested objects (`data.text`)."""

from __future__ import annotations

from typing import Any

MISSING: Any = object()
Fields = dict[str, Any]


def take(fields: Fields, name: str) -> Any:
    """Remove and return the value of `name`, else MISSING; the plain name comes before the dots.

    `fields` belongs to the caller, but objects nested in it may not: those along a dotted name are
    copied before they lose a value.
    """
    value = fields.pop(name, MISSING)
    if value is not MISSING or "." not in name:
        return value
    first, _, rest = name.partition(".")
    inner = fields.get(first)
    if not isinstance(inner, dict):
        return MISSING
    inner = dict(inner)
    value = take(inner, rest)
    if value is not MISSING:
        fields[first] = inner
        if not inner:
            del fields[first]
    return value
