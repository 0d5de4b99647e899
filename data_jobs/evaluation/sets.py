"""Which evaluation sets a recipe is held against: those of its language pack, and its own files.

In: `decontaminate.pack_sets` and `decontaminate.against`. Out: for each set its name and the file
of its texts or of their n-gram hashes; of sets that the pack only names, the names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_jobs.evaluation.ngrams import Ngrams, check_index, ngrams_of_texts, read_index
from data_jobs.evaluation.texts import evaluation_texts
from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, sha256_file, sha256_hex
from mutirao.core.languages import beside_pack, load_pack, pack_folder
from mutirao.core.recipe import Recipe


@dataclass(frozen=True)
class LookedFor:
    """A set and its file; about: further fields of the pack's entry (title, license, origin)."""

    name: str
    path: Path
    hashed: bool = False  # the file holds n-gram hashes instead of texts
    about: dict[str, str] = field(default_factory=dict)

    def ngrams(self, n: int, least: int) -> Ngrams:
        """Raises RecipeError if the file is damaged. Hashes keep the n they were made with."""
        if self.hashed:
            return read_index(self.path, least)
        return ngrams_of_texts(evaluation_texts(self.path), n, least)


def sets_of(recipe: Recipe, base: Path) -> list[LookedFor]:
    """The sets in the order of the pack, then of `against`. Opens none. Raises RecipeError if the
    pack is not there or damaged."""
    found = []
    if recipe.decontaminate.pack_sets:
        folder = pack_folder(recipe, base)
        pack = load_pack(recipe.language, folder)
        for one in pack.evaluation:
            if name := one.ngrams or one.file:
                about = {k: v for k, v in one.as_json().items() if k in ("title", "license")}
                path = beside_pack(pack, folder, name)
                found.append(LookedFor(one.name, path, bool(one.ngrams), about))
    own = [LookedFor(name, base / Path(name).expanduser()) for name in recipe.decontaminate.against]
    return found + own


def names_without_file(recipe: Recipe, base: Path) -> list[str]:
    """Sets that the pack names and nobody gave a file for; one of `against` counts by its name."""
    if not recipe.decontaminate.pack_sets:
        return []
    given = {_plain(Path(name).name.split(".")[0]) for name in recipe.decontaminate.against}
    pack = load_pack(recipe.language, pack_folder(recipe, base))
    return [
        one.name
        for one in pack.evaluation
        if not (one.ngrams or one.file) and _plain(one.name) not in given
    ]


def assets_of_sets(recipe: Recipe, base: Path) -> dict[str, str]:
    """{set: sha256 of its file}, and of what the pack says of its sets, which is copied into the
    result. Raises RecipeError for a file that is not there."""
    sets = sets_of(recipe, base)
    found = {}
    for one in sets:
        if not one.path.is_file():
            what = "A folder, not a file" if one.path.is_dir() else "No such file"
            hint = "Correct decontaminate.against (--against): it takes files, one by one."
            hint = "The language pack names it." if one.about else hint
            raise RecipeError(what, str(one.path), hint, "no-asset")
        found[one.name] = sha256_file(one.path)
    told = [[one.name, one.about] for one in sets if one.about]
    names = names_without_file(recipe, base)
    if told or names:
        found["evaluation of the pack"] = sha256_hex(canonical_json([told, names]))
    return found


def check_sets(recipe: Recipe, base: Path) -> None:
    """Raises RecipeError for a file that is missing, damaged or without text, or is named twice."""
    assets_of_sets(recipe, base)
    names = [one.name for one in sets_of(recipe, base)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        hint = "Name each file once in `decontaminate.against`."
        raise RecipeError(f"Two evaluation sets are called {twice[0]}", "", hint, "same-name")
    for one in sets_of(recipe, base):
        if one.hashed:
            check_index(one.path)
        else:
            evaluation_texts(one.path)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
