"""The recipe that inputs, flags and `--set` of a `mutirao data` command on plain files stand for.

In: files, folders, globs or URLs (one source each), token files, or an earlier result, whose recipe
is carried on. Out: a `LoadedRecipe`, all else at its default. Nothing is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from mutirao.core.errors import RecipeError
from mutirao.core.languages import load_pack
from mutirao.core.manifest import Manifest
from mutirao.core.recipe_file import LoadedRecipe, dump_recipe, parse_recipe
from mutirao.core.stages import BY_NAME
from mutirao.run.plain_stages import COMMANDS, NEEDS_LANGUAGE
from mutirao.run.results import RESULT, Result, open_folder

ANY_LANGUAGE = "und"
TOKEN_FILES = (".npy", ".bin", ".idx")
PATHS = ("neardup.against", "decontaminate.against", "tokenizer.path")  # flags that name files
Flags = Mapping[str, Any]  # recipe field -> value; None or () where the flag was not given


def recipe_for(
    command: str, inputs: tuple[str, ...], language: str, flags: Flags, overrides: tuple[str, ...]
) -> LoadedRecipe:
    """For source files. Raises RecipeError where the language is needed, or they hold tokens."""
    if not language and command in NEEDS_LANGUAGE:
        hint = "Such as --language pt; a code without a pack measures and drops next to nothing."
        raise RecipeError("Which language? Give --language CODE", hint=hint, code="no-language")
    for entry in inputs:
        if entry.lower().endswith(TOKEN_FILES):
            hint = "`mutirao data pack --pretokenized` takes token files."
            raise RecipeError("These are tokens, not text", entry, hint, "bad-input")
    sources = {"sources": [{"path": entry, **_name(entry, inputs)} for entry in inputs]}
    return _parsed(command, language or ANY_LANGUAGE, sources, flags, overrides)


def tokenized_recipe(
    command: str, inputs: tuple[str, ...], language: str, flags: Flags, overrides: tuple[str, ...]
) -> LoadedRecipe:
    """For token files, with the tokenizer that made them."""
    if not flags.get("tokenizer.path"):
        hint = "Give --tokenizer PATH, the one that made the ids."
        raise RecipeError("Which tokenizer?", hint=hint, code="no-tokenizer")
    listed = [{"path": entry, **_name(entry, inputs)} for entry in inputs]
    tree = {"tokenized": listed, "tokenizer": {"path": "of the flag"}}
    return _parsed(command, language or ANY_LANGUAGE, tree, flags, overrides)


def carried_recipe(
    earlier: Result,
    command: str,
    language: str,
    flags: Flags,
    overrides: tuple[str, ...],
    folder: str,
    taken: Collection[str],
) -> LoadedRecipe:
    """The recipe of an earlier result with changes to the stages that are made anew."""
    allowed = {name for name in COMMANDS[command] if name not in (*taken, "ingest")}
    _check_overrides(allowed, overrides, folder)
    recipe = earlier.run.recipe()
    if language and load_pack(language).language != recipe.language:
        raise RecipeError(
            f"{folder} was made for {recipe.language}, not {load_pack(language).language}",
            hint="Leave out --language, or begin with the source files.",
            code="other-language",
        )
    text = dump_recipe(recipe.model_copy(update={"name": command}))
    base = Path(earlier.run.record["base"])
    changed = (*flag_overrides(flags, base), *overrides)
    return LoadedRecipe(parse_recipe(text, folder, changed), text, folder, base)


def check_clean(clean: Manifest, stages: Collection[str], taken: Collection[str]) -> None:
    """Raises RecipeError where text that an older version cleaned is to be written out."""
    if "split" in stages and "split" not in taken:
        now, made = BY_NAME["clean"].output_version, clean.content["output_version"]
        if made < now:
            raise RecipeError(
                f"The text was cleaned by an older version (output {made}, now {now})",
                str(clean.directory),
                "Begin with the source files again.",
                "old-result",
            )


def flag_overrides(flags: Flags, base: Path) -> tuple[str, ...]:
    """As `--set` would have them; paths start at the current folder, so they are written out where
    the recipe's start elsewhere."""
    found = []
    for name, value in flags.items():
        if value is None or value == ():
            continue
        if name in PATHS:
            value = _place(value, base) if isinstance(value, str) else [
                _place(one, base) for one in value
            ]  # fmt: skip
        found.append(f"{name}={json.dumps(value, ensure_ascii=False)}")
    return tuple(found)


def made_tokenizer(path: str | None) -> str | None:
    """The tokenizer inside the folder that `mutirao data tokenizer` made, else the path itself.

    Raises RecipeError for the folder of another command.
    """
    if not path or not (Path(path) / RESULT).is_file():
        return path
    found = open_folder(Path(path)).manifests.get("tokenizer")
    if found is None:
        hint = "Give the folder of `mutirao data tokenizer`, or a tokenizer.json."
        raise RecipeError("The folder holds no tokenizer", path, hint, "no-tokenizer")
    return str(found.directory)


def _parsed(
    command: str, language: str, tree: dict[str, Any], flags: Flags, overrides: tuple[str, ...]
) -> LoadedRecipe:
    whole = {"name": command, "language": load_pack(language).language, **tree}
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    changed = (*flag_overrides(flags, Path.cwd()), *overrides)
    return LoadedRecipe(
        parse_recipe(text, "the command line", changed), text, "the command line", Path.cwd()
    )


def _name(entry: str, inputs: tuple[str, ...]) -> dict[str, str]:
    """A name only where two inputs end alike: else documents may bring their own source."""
    stems = [Path(one).name.split(".")[0] for one in inputs]
    stem = Path(entry).name.split(".")[0]
    if stems.count(stem) < 2:
        return {}
    return {"name": f"{stem or 'input'}-{inputs.index(entry) + 1}"}


def _place(entry: str, base: Path) -> str:
    return entry if base == Path.cwd() or "://" in entry else os.path.abspath(entry)


def _check_overrides(allowed: set[str], overrides: tuple[str, ...], folder: str) -> None:
    """Cleaned documents are not read again: only what is made anew can be set."""
    allowed = (allowed | {"ray", "energy"}) - {"clean"}
    for override in overrides:
        section = override.split("=")[0].split(".")[0].strip()
        if section not in allowed:
            raise RecipeError(
                f"--set {section} has no effect on documents that were read before",
                folder,
                f"Set values of: {', '.join(sorted(allowed))}; or begin with the source files.",
                "bad-override",
            )
