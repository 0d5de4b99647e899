"""Reading recipes: YAML -> `Recipe`, with the line of every mistake and the nearest right name.

A recipe argument is a file if it exists or ends in .yaml, else the name of a shipped recipe.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mutirao.core.errors import RecipeError, nearest
from mutirao.core.recipe import FORMAT, Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    recipe: Recipe
    text: str  # as written, before overrides
    where: str  # the file's path or the shipped name
    base: Path  # relative source paths start here


def shipped_names() -> list[str]:
    folder = resources.files("mutirao.recipes")
    return sorted(f.name[: -len(".yaml")] for f in folder.iterdir() if f.name.endswith(".yaml"))


def shipped_text(name: str) -> str:
    if name not in shipped_names():
        hint = f"{nearest(name, shipped_names())} Or give the path of a .yaml file."
        raise RecipeError(f"There is no recipe called {name!r}", hint=hint, code="unknown-recipe")
    return (resources.files("mutirao.recipes") / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(argument: str, overrides: tuple[str, ...] = ()) -> LoadedRecipe:
    """Load and check. Raises RecipeError with file, line and cure for anything wrong."""
    path = Path(argument)
    if path.is_file() or argument.endswith((".yaml", ".yml")):
        text, where, base = _read(path), str(path), path.resolve().parent
    else:
        text, where, base = shipped_text(argument), f"recipe {argument}", Path.cwd()
    return LoadedRecipe(parse_recipe(text, where, overrides), text, where, base)


def parse_recipe(text: str, where: str, overrides: tuple[str, ...] = ()) -> Recipe:
    tree = _parse_yaml(text, where)
    if not isinstance(tree, dict):
        raise RecipeError("A recipe is a list of `key: value` lines", where, code="bad-recipe")
    _check_format(tree.get("format"), where)
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, text, where, overrides) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every field written out: what a run keeps in its folder."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f"Shipped recipes: {', '.join(shipped_names())} (`mutirao recipe list`)."
        raise RecipeError("No such recipe file", str(path), hint, "no-recipe") from None
    except UnicodeDecodeError:
        raise RecipeError("The recipe is not UTF-8 text", str(path), code="bad-recipe") from None
    except OSError as error:
        raise RecipeError(f"Cannot read the recipe: {error.strerror}", str(path)) from None


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise RecipeError(f"Not valid YAML: {problem}", f"{where}{line}", code="bad-yaml") from None


def _check_format(number: Any, where: str) -> None:
    if number is None or number == FORMAT:
        return
    if isinstance(number, int) and number > FORMAT:
        raise RecipeError(
            f"The recipe has format {number}, this version reads format {FORMAT}",
            where,
            "Upgrade mutirao: pip install --upgrade mutirao",
            "newer-format",
        )
    raise RecipeError(f"Unknown recipe format {number!r}", where, f"Write `format: {FORMAT}`.")


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set `a.b.c=value` (the value is read as YAML) in a tree of dictionaries."""
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise RecipeError(f"--set takes KEY=VALUE, not {override!r}", code="bad-override")
    *parents, last = name.strip().split(".")
    node: Any = tree
    for key in parents:
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
            if node is None:
                raise RecipeError(
                    f"--set {name}: {key} is empty in the recipe", code="bad-override"
                )
        else:
            raise RecipeError(f"--set {name}: {key} is not a section", code="bad-override")
    if not isinstance(node, dict):
        raise RecipeError(f"--set {name}: not a section", code="bad-override")
    node[last] = _parse_yaml(value, f"--set {name}")


def _explain(
    error: ValidationError, text: str, where: str, overrides: tuple[str, ...]
) -> RecipeError:
    """The first mistake as one sentence with its line; the number of the others."""
    mistakes = _own(error)
    first = mistakes[0]
    path = _untagged(first["loc"])
    name = ".".join(str(part) for part in path)
    hint = ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(path[:-1])
        problem = f"Unknown key {name!r}"
        close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
        hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."
    elif first["type"] == "missing":
        problem = f"The recipe lacks {name!r}"
    else:
        # A field that may be of several kinds has a mistake for each of them.
        alike = [one for one in mistakes if _untagged(one["loc"]) == path]
        mistakes = [first, *(one for one in mistakes if one not in alike)]
        message = " or ".join(dict.fromkeys(_expected(one["msg"]) for one in alike))
        message = message.replace(" or input should be ", " or ")
        problem = f"{name}: {message}, not {_short(first.get('input'))}"
    if len(mistakes) > 1:
        hint = f"{hint} ({len(mistakes) - 1} more after this one.)".strip()
    from_set = any(o.split("=")[0].strip() == name for o in overrides)
    line = None if from_set else _line_of(text, path)
    place = f"--set {name}" if from_set else f"{where}, line {line}" if line else where
    return RecipeError(problem, place, hint, "bad-recipe")


def _own(error: ValidationError) -> list[Any]:
    """Without the lists that pydantic calls too short because an item of theirs is wrong."""
    listed: list[Any] = error.errors()
    wrong = [one["loc"] for one in listed]
    return [
        one
        for one in listed
        if one["type"] != "too_short"
        or not any(loc != one["loc"] and loc[: len(one["loc"])] == one["loc"] for loc in wrong)
    ]


def _untagged(loc: tuple[Any, ...]) -> list[Any]:
    return [part for part in loc if not _is_type_tag(part)]


def _expected(message: str) -> str:
    """Pydantic's sentence in the words of a recipe."""
    message = message.removeprefix("Value error, ").split(", unable to parse")[0]
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    return message[0].lower() + message[1:]


def _is_type_tag(part: Any) -> bool:
    return isinstance(part, str) and (
        part in ("str",) or part.startswith(("tuple[", "function-", "constrained-", "literal["))
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(path: list[Any]) -> list[str]:
    model: Any = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        named = {field.alias or name: field for name, field in model.model_fields.items()}
        annotation = named[part].annotation
        args = getattr(annotation, "__args__", ())
        model = next((a for a in (annotation, *args) if _is_model(a)), None)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _line_of(text: str, path: list[Any]) -> int | None:
    """The line (from 1) of the key at `path`, or of its nearest ancestor."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
