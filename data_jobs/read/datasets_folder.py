"""Folders that Hugging Face `datasets` saved (`save_to_disk`), as a list of files with rows.

In: the files found in a folder. Out: the same without what is no row of the dataset: beside its
shards such a folder may hold `cache-*.arrow` of later `map` calls, which would be read as well.
`state.json` names the shards in their order, which is the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from mutirao.core.errors import RecipeError

STATE = "state.json"


def rows_only(paths: Iterable[Path]) -> list[Path]:
    """Of each saved dataset among `paths` the shards that its state.json names; other files stay.

    Raises RecipeError for a shard that is named and missing, and for an old dataset of selected
    rows (its shards hold the others too).
    """
    paths = list(paths)
    shards = {path.parent: saved_shards(path) for path in paths if path.name == STATE}
    return [
        path
        for path in paths
        if path.suffix != ".arrow" or path in (shards.get(path.parent) or (path,))
    ]


def saved_shards(state: Path) -> list[Path]:
    """The shards that a state.json names, in order; none if it is some other program's file."""
    try:
        content: Any = orjson.loads(state.read_bytes())
        names = [str(entry["filename"]) for entry in content["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if content.get("_indices_data_files"):
        raise RecipeError(
            "The saved dataset is a selection of rows by an index, which is not read",
            str(state),
            "Save it again with a newer `datasets`: load_from_disk(F).save_to_disk(G).",
            "indexed-dataset",
        )
    shards = [state.parent / name for name in names]
    if missing := [path for path in shards if not path.exists()]:
        raise RecipeError(
            f"The saved dataset lacks {len(missing)} of its {len(shards)} files",
            str(missing[0]),
            "Copy the folder again, or save the dataset again.",
            "missing-shard",
        )
    return shards
