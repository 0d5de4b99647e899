"""The four packages must be one copy of one version: checked at each start of the command line.

A `data_jobs` or `cluster` folder that happens to stand earlier on the import path would otherwise
run old or foreign code under the name of this version. Nothing is imported to find out, and the
check lives in `mutirao.core` because `cluster` itself is the likeliest name to be taken.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mutirao.core.errors import EnvironmentProblem

PACKAGES = ("mutirao", "data_jobs", "train_jobs", "cluster")
SOURCE_ROOT = "platform"  # where `mutirao` stands in a source tree


def check_one_distribution() -> Path:
    """The folder all four packages come from: site-packages, or the root of a source tree.

    Raises EnvironmentProblem (exit 4) if one is missing or comes from another place.
    """
    home = _root("mutirao")
    for name in PACKAGES[1:]:
        root = _root(name)
        if root != home:
            raise EnvironmentProblem(
                f"{name} and mutirao come from different places",
                f"{name}: {root}, mutirao: {home}",
                f"Rename or remove {root / name}, or take its folder out of PYTHONPATH; "
                "then run the same command again.",
                "two-distributions",
            )
    return home


def is_source_tree(root: Path) -> bool:
    return (root / SOURCE_ROOT / "mutirao").is_dir() and (root / "pyproject.toml").is_file()


def _root(name: str) -> Path:
    """The folder above a package; above `platform/` as well where that is a source tree's."""
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise EnvironmentProblem(
            f"The package {name} is not installed",
            hint="Install mutirao again (in a source tree: pip install -e .).",
            code="no-package",
        )
    parent = Path(places[0]).resolve().parent
    if parent.name == SOURCE_ROOT and is_source_tree(parent.parent):
        return parent.parent
    return parent
