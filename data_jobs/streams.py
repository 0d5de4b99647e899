"""Which source of the recipe a text shard belongs to, and whose documents go before whose.

In: the manifest of `clean` and the recipe. Out: by text shard the name of its token stream
(`recipe.stream_names`) and its rank, the place of that name in `exact.prefer`.
"""

from __future__ import annotations

from mutirao.core.errors import RecipeError, nearest
from mutirao.core.identity import stream_names
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Recipe


def shard_streams(clean: Manifest, recipe: Recipe) -> list[str]:
    """The stream of each text shard. Where `clean` did not note the number of the source in the
    recipe (before format 3), its name."""
    names = stream_names(recipe)
    of: dict[str, str] = {}
    for part in clean.parts:
        for text in part.info.get("text_parts", ()):
            known = part.info.get("number", len(names)) < len(names)
            of[text] = names[part.info["number"]] if known else part.info["source"]
    return [of[path.name] for path in clean.paths("text-")]


def shard_ranks(clean: Manifest, recipe: Recipe) -> list[int]:
    """The place of each text shard's stream in `exact.prefer`; one more than the last if it is not
    there. Documents of a lower rank stay before equal ones of a higher."""
    prefer = recipe.exact.prefer
    places = {name: place for place, name in enumerate(prefer)}
    return [places.get(name, len(prefer)) for name in shard_streams(clean, recipe)]


def rank_runs(clean: Manifest, recipe: Recipe) -> list[list[int]]:
    """The same as [rank, how many shards in a row]: each unit of a key range carries it."""
    runs: list[list[int]] = []
    for rank in shard_ranks(clean, recipe):
        if runs and runs[-1][0] == rank:
            runs[-1][1] += 1
        else:
            runs.append([rank, 1])
    return runs


def ranks_of(runs: list[list[int]]) -> list[int]:
    """The rank of each text shard, from `rank_runs`."""
    return [rank for rank, shards in runs for _ in range(shards)]


def check_prefer(recipe: Recipe) -> None:
    """Raises RecipeError where `exact.prefer` names no source, or one twice."""
    names, prefer = stream_names(recipe)[: len(recipe.sources)], recipe.exact.prefer
    for name in prefer:
        if name not in names:
            hint = nearest(name, names)
            raise RecipeError(f"There is no source {name!r}", "exact.prefer", hint, "no-source")
        if prefer.count(name) > 1:
            hint = "Name each source once, the best first."
            raise RecipeError(f"{name!r} is there twice", "exact.prefer", hint, "doubled-source")
