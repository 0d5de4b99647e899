"""The files besides its inputs that a stage reads; their sha256 is part of the stage's key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mutirao.core.errors import RecipeError
from mutirao.core.files import sha256_file, sha256_hex
from mutirao.core.languages import load_pack, pack_folder
from mutirao.core.recipe import Recipe


def assets_of(stage: str, recipe: Recipe, base: Path) -> dict[str, str]:
    """By name, the sha256 of the stage's assets. Raises RecipeError if a file is not there."""
    if stage == "langid":
        from data_jobs.langid import langid_assets

        return langid_assets(recipe, base)
    if stage == "clean":
        return {"pack": load_pack(recipe.language, pack_folder(recipe, base)).clean_sha256}
    if stage == "filter":
        pack = load_pack(recipe.language, pack_folder(recipe, base)).sha256
        return {"pack": pack} | _scores(recipe, base) | _licenses(recipe)
    if stage == "decontaminate":
        return {name: sha256_file(_file(name, base)) for name in recipe.decontaminate.against}
    if stage == "train":
        return {"preset": sha256_hex(preset_bytes(recipe.model.preset))}
    return {}


def _scores(recipe: Recipe, base: Path) -> dict[str, str]:
    if not recipe.filter.scores:
        return {}
    from data_jobs.quality.scores import model_paths

    return {f"score {name}": sha256_file(p) for name, p in model_paths(recipe, base).items()}


def _licenses(recipe: Recipe) -> dict[str, str]:
    """The table of licence names, where the recipe keeps and drops by them."""
    if not recipe.filter.allowed_licenses:
        return {}
    return {
        "licenses": sha256_hex(
            (resources.files("data_jobs.quality") / "licenses.yaml").read_bytes()
        )
    }


def preset_bytes(name: str) -> bytes:
    from mutirao.core.model_size import load_preset

    load_preset(name)  # an unknown name stops here with the nearest one
    return (resources.files("mutirao.models") / f"{name}.yaml").read_bytes()


def _file(name: str, base: Path) -> Path:
    path = base / name
    if not path.is_file():
        raise RecipeError("No such file", str(path), "The recipe names it.", "no-asset")
    return path
