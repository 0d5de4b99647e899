"""Licences of documents: one spelling for each, and a policy that keeps or drops by it.

In: what sources write ('cc-by-4.0', 'CC BY 4.0', 'Public domain', an URL). Out: an SPDX id or
expression, `LicenseRef-public-domain`, '' where none is stated, or the words as they stand where
nobody knows them; and for a column of licences the rows that a recipe does not allow. The table of
names is `licenses.yaml`. It compares names and gives no legal advice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from mutirao.core.errors import RecipeError, nearest

# For sources whose recipe names none. Wikipedia: since June 2023, CC-BY-SA-3.0 before.
OF_FORMAT = {"wikipedia": "CC-BY-SA-4.0"}
TABLE = "licenses.yaml"


@lru_cache(4096)
def spdx(written: str) -> str:
    """'CC BY 4.0' -> 'CC-BY-4.0'; 'unknown' -> ''; what nobody knows comes back as it was."""
    table = _table()
    name = re.sub(r"[\s_]+", "-", written.strip()).lower()
    if name in table["not_stated"]:
        return ""
    if name in table["names"]:
        return str(table["names"][name])
    if name.startswith("public-domain"):  # 'Public domain (author died in 1908)'
        return str(table["public_domain"])
    for family in table["families"]:
        if found := family["pattern"].search(name):
            name = family["id"].format(**found.groupdict())
            break
    return _canonical(name) or _canonical(written.strip()) or written.strip()


def policy(allowed: Iterable[str]) -> frozenset[str]:
    """The allowed licences in one spelling; '' allows documents that state none.

    Raises RecipeError for a name that is no SPDX id, with the nearest ones.
    """
    found = set()
    for written in allowed:
        name = spdx(written)
        if name and not _canonical(name):
            where = f"filter.allowed_licenses: {written}"
            raise RecipeError("Not an SPDX licence id", where, _nearest(name), "unknown-license")
        found.add(name)
    return frozenset(found)


@lru_cache(4096)
def label(written: str) -> str:
    """Under which name a licence is counted; words that nobody knows are counted as one."""
    name = spdx(written)
    if not name:
        return "unknown"
    return name if _canonical(name) else "unrecognised"


def permitted(written: str, allowed: frozenset[str]) -> bool:
    """`A OR B` needs one of the two, any other expression all of its parts."""
    name = spdx(written)
    if name in allowed or not name:
        return name in allowed
    parts = re.split(r" OR | AND | WITH [^ ()]+", name.replace("(", "").replace(")", ""))
    either = " OR " in name and " AND " not in name
    return (any if either else all)(part in allowed for part in parts if part)


def disallowed(column: pa.Array | pa.ChunkedArray, allowed: Iterable[str]) -> pa.Array:
    """bool[rows]: True where the licence is not among `allowed` (SPDX ids, '' for none stated).

    Each different licence is judged once. Raises RecipeError as `policy` does.
    """
    names = policy(allowed)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.fill_null(array.cast(pa.string()), "").dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    refused = [not permitted(one, names) for one in encoded.dictionary.to_pylist()]
    return pa.array(refused, pa.bool_()).take(encoded.indices)


def _nearest(name: str) -> str:
    usual = {one.lower(): one for one in _table()["usual"]}
    close = difflib.get_close_matches(name.lower(), usual, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {', '.join(usual[one] for one in close)}?"
    return nearest(name, usual.values())


def _canonical(name: str) -> str:
    try:
        return str(canonicalize_license_expression(name))
    except InvalidLicenseExpression:
        return ""


@lru_cache(1)
def _table() -> dict[str, Any]:
    text = (resources.files("data_jobs.quality") / TABLE).read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    for family in table["families"]:
        family["pattern"] = re.compile(family["pattern"], re.I)
    return table
