"""The files besides its inputs that a stage reads; their sha256 is part of the stage's key."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from mutirao.core.files import sha256_file, sha256_hex
from mutirao.core.identity import stream_names
from mutirao.core.languages import load_pack, pack_folder
from mutirao.core.recipe import Recipe
from mutirao.core.run_steps import find_origin
from mutirao.core.runs import run_id
from mutirao.core.workdir import Workdir


def assets_of(
    stage: str, recipe: Recipe, base: Path, workdir: Workdir | None = None
) -> dict[str, str]:
    """By name, the sha256 of the stage's assets. Raises RecipeError if a file is not there.

    workdir: where `train.from` looks for runs; without it the origin of the weights is left out.
    """
    if stage not in ASSETS:
        return {}
    found = ASSETS[stage](recipe, base)
    if stage == "train" and workdir and (origin := origin_hash(recipe, base, workdir)):
        found["origin"] = origin
    return found


def origin_hash(recipe: Recipe, base: Path, workdir: Workdir) -> str:
    """Of the weights that `train.from` names, '' without it: of the run's id and of train's key."""
    word = recipe.train.from_
    return find_origin(word, base, workdir).sha256 if word else ""


def named_run(recipe: Recipe, base: Path, workdir: Workdir, sources: list[dict[str, Any]]) -> str:
    """The id of the recipe's run. sources: fingerprints. Raises RecipeError where `train.from`
    leads nowhere."""
    return run_id(recipe, [file["sha256"] for file in sources], origin_hash(recipe, base, workdir))


def evaluation_sets(recipe: Recipe, base: Path) -> bool:
    """Is there any set that `decontaminate` looks for?"""
    from data_jobs.decontaminate import evaluation_sets

    return bool(evaluation_sets(recipe, base))


def _clean(recipe: Recipe, base: Path) -> dict[str, str]:
    return {"pack": load_pack(recipe.language, pack_folder(recipe, base)).clean_sha256}


def _langid(recipe: Recipe, base: Path) -> dict[str, str]:
    from data_jobs.langid import langid_assets

    return langid_assets(recipe, base)


def _filter(recipe: Recipe, base: Path) -> dict[str, str]:
    pack = load_pack(recipe.language, pack_folder(recipe, base)).sha256
    return {"pack": pack} | _scores(recipe, base) | _licenses(recipe)


def _neardup(recipe: Recipe, base: Path) -> dict[str, str]:
    from data_jobs.neardup import neardup_assets

    return neardup_assets(recipe, base) | _preferred(recipe, base)


def _decontaminate(recipe: Recipe, base: Path) -> dict[str, str]:
    from data_jobs.decontaminate import decontaminate_assets

    return decontaminate_assets(recipe, base)


def _tokenizer(recipe: Recipe, base: Path) -> dict[str, str]:
    from data_jobs.tokenizer import tokenizer_assets

    return tokenizer_assets(recipe, base)


def _pack(recipe: Recipe, base: Path) -> dict[str, str]:
    from data_jobs.pack import pack_assets

    return pack_assets(recipe, base)


def _preferred(recipe: Recipe, base: Path) -> dict[str, str]:
    """The names of the sources, where some are preferred: a name may come from a path."""
    return _streams(recipe, base) if recipe.exact.prefer else {}


def _streams(recipe: Recipe, base: Path) -> dict[str, str]:
    names = stream_names(recipe)[: len(recipe.sources)]
    return {"streams": sha256_hex("\0".join(names).encode())}


def _train(recipe: Recipe, base: Path) -> dict[str, str]:
    return {"preset": sha256_hex(preset_bytes(recipe.model.preset))}


ASSETS: dict[str, Callable[[Recipe, Path], dict[str, str]]] = {
    "clean": _clean,
    "exact": _preferred,
    "langid": _langid,
    "filter": _filter,
    "neardup": _neardup,
    "decontaminate": _decontaminate,
    "split": _streams,
    "tokenizer": _tokenizer,
    "pack": _pack,
    "train": _train,
}


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
