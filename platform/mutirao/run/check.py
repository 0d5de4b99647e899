"""What can be known to be wrong with a recipe before any work: nobody should wait hours for it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mutirao.core.recipe import Recipe
from mutirao.core.stages import STAGE_NAMES
from mutirao.run.assets import assets_of
from mutirao.run.plan import stages_of


def check_recipe(recipe: Recipe, base: Path, stages: Collection[str] = STAGE_NAMES) -> None:
    """Raises RecipeError for a file, model, language, variety, threshold, licence or preset that
    one of `stages` would ask for in vain, and for settings of `train` that exclude one another.
    Sources are not looked at."""
    wanted = [stage.name for stage in stages_of(recipe, base) if stage.name in stages]
    for name in wanted:
        assets_of(name, recipe, base)
    if "exact" in wanted or "neardup" in wanted:
        from data_jobs import exact

        exact.check(recipe)
    if "langid" in wanted:
        from data_jobs import langid

        langid.check(recipe, base)
    if "filter" in wanted:
        from data_jobs import filter

        filter.check(recipe, base)
    if "decontaminate" in wanted:
        from data_jobs import decontaminate

        decontaminate.check(recipe, base)
    if "train" in wanted:
        from train_jobs import check

        check.check(recipe)
