"""Language packs: what the platform knows about a language, as data in `mutirao/languages/<code>/`.

In: a code as people write it (`pt`, `por`, `pt-BR`, `por_Latn`), or a folder of one's own.
Out: a frozen `Pack`. A language without a pack gets `und`, which measures everything and drops only
documents that are too short.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from mutirao.core.errors import RecipeError, nearest
from mutirao.core.files import sha256_hex
from mutirao.core.language_codes import GENERIC, canonical, known_codes
from mutirao.core.recipe import Recipe

KEYS = (  # of pack.yaml
    *("name", "evidence", "note", "stop_words", "thresholds", "genres", "word_characters"),
    *("confusable", "evaluation", "tokenizer", "figures"),
)
EVIDENCE = ("measured", "thin", "none")
EVALUATION_KEYS = ("name", "title", "license", "origin", "ngrams", "file", "where")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, a tenth of the time


@dataclass(frozen=True)
class EvaluationSet:
    """A public set that models of the language are judged by. `decontaminate` looks for its
    `ngrams` (hashes) or its `file`; of one with neither only the name is known."""

    name: str
    title: str = ""
    license: str = ""  # of its texts: SPDX id
    origin: str = ""  # what the hashes were made from: repository, commit, files
    ngrams: str = ""  # a file beside the pack
    file: str = ""  # the texts themselves, beside the pack
    where: str = ""  # to get it

    def as_json(self) -> dict[str, str]:
        """The fields that are filled in, as pack.yaml has them."""
        return {key: value for key in EVALUATION_KEYS if (value := getattr(self, key))}


@dataclass(frozen=True)
class Pack:
    code: str  # of the pack: 'por_Latn', or 'und'
    language: str  # of the language asked for: 'por_Latn', 'yrl_Latn'
    name: str
    stop_words: frozenset[str]
    thresholds: dict[str, float] = field(default_factory=dict)
    # measured: the thresholds drop; thin or none: they are scored and reported, never dropped by
    evidence: str = "none"
    sha256: str = ""  # of pack.yaml: an asset of the filter stage
    cleaning: dict[str, Any] = field(default_factory=dict)  # clean.yaml: phrases, personal data
    clean_sha256: str = ""  # of clean.yaml: an asset of the clean stage
    note: str = ""  # on the evidence, in words
    genres: dict[str, dict[str, float | None]] = field(default_factory=dict)  # null: rule off
    word_characters: str = ""  # beyond `\w`: combining marks, apostrophes inside words
    confusable: tuple[str, ...] = ()  # ISO 639-3 codes of languages that are taken for it
    evaluation: tuple[EvaluationSet, ...] = ()
    tokenizer: dict[str, Any] = field(default_factory=dict)  # vocab_size, bytes_per_token to reach
    figures: dict[str, Any] = field(default_factory=dict)  # what the thresholds rest on


def load_pack(code: str, folder: Path | None = None) -> Pack:
    """The pack of a language, or the one in `folder`; a language without one gets `und`.

    Raises RecipeError if the pack is damaged, or `folder` holds none.
    """
    language = canonical(code)
    shipped = resources.files("mutirao.languages")
    place: Traversable = folder if folder is not None else shipped / language
    if not (place / "pack.yaml").is_file():
        if folder is not None:
            hint = "Make one with `mutirao lang new CODE INPUT... --output DIR`."
            raise RecipeError("There is no pack.yaml", str(folder), hint, "no-pack")
        place = shipped / GENERIC
    data = (place / "pack.yaml").read_bytes()
    rules = [one / "clean.yaml" for one in (place, shipped / language, shipped / GENERIC)]
    cleaning = next(one for one in rules if one.is_file()).read_bytes()
    try:
        return _pack(place.name, language, data, cleaning, folder is not None)
    except (yaml.YAMLError, KeyError, AttributeError, TypeError, ValueError) as error:
        where = str(folder / "pack.yaml") if folder else f"{place.name}/pack.yaml"
        raise RecipeError(f"Damaged language pack: {error}", where, code="bad-pack") from error


def pack_folder(recipe: Recipe, base: Path) -> Path | None:
    """The folder of `language_pack`, None for the shipped pack. Raises RecipeError."""
    if not recipe.language_pack:
        return None
    folder = base / Path(recipe.language_pack).expanduser()
    if not folder.is_dir():
        raise RecipeError(
            "There is no such folder", str(folder), "It is `language_pack`.", "no-pack"
        )
    return folder


def shipped_packs() -> list[Pack]:
    return [load_pack(code) for code in known_codes()]


@lru_cache(32)  # a run's plan asks for the pack at every stage
def _pack(name: str, language: str, data: bytes, cleaning: bytes, own: bool) -> Pack:
    content: dict[str, Any] = yaml.load(data, LOADER)
    for key in content:
        if key not in KEYS:
            raise ValueError(f"there is no field {key!r}. {nearest(str(key), KEYS)}")
    evidence = content["evidence"]
    if evidence not in EVIDENCE:
        raise ValueError(f"evidence is one of {', '.join(EVIDENCE)}, not {evidence!r}")
    genres = content.get("genres") or {}
    return Pack(
        language if own else name,
        language,
        content["name"],
        frozenset(content["stop_words"].split()),
        {name: value + 0 for name, value in content["thresholds"].items()},
        evidence,
        sha256_hex(data),
        yaml.load(cleaning, LOADER) or {},
        sha256_hex(cleaning),
        content.get("note", ""),
        {genre: _numbers(limits) for genre, limits in genres.items()},
        content.get("word_characters", ""),
        tuple(content.get("confusable") or ()),
        tuple(_evaluation(entry) for entry in content.get("evaluation") or ()),
        content.get("tokenizer") or {},
        content.get("figures") or {},
    )


def beside_pack(pack: Pack, folder: Path | None, name: str) -> Path:
    """A file that the pack names: in its own folder, else in the shipped pack's."""
    shipped = Path(str(resources.files("mutirao.languages") / pack.code))
    own = folder / Path(name).expanduser() if folder else None
    return own if own and (own.exists() or not (shipped / name).exists()) else shipped / name


def _evaluation(entry: Any) -> EvaluationSet:
    """An entry of `evaluation`: fields, or a name alone."""
    fields = {"name": entry} if isinstance(entry, str) else dict(entry)
    for key, value in fields.items():
        if key not in EVALUATION_KEYS:
            raise ValueError(f"evaluation: no field {key!r}. {nearest(str(key), EVALUATION_KEYS)}")
        if not isinstance(value, str) or not value:
            raise ValueError(f"evaluation: {key} must be a text, not {value!r}")
    if not fields.get("name") or (fields.get("ngrams") and fields.get("file")):
        raise ValueError("an evaluation set has a name, and `ngrams` or `file`, not both")
    return EvaluationSet(**fields)


def _numbers(limits: dict[str, Any] | None) -> dict[str, float | None]:
    return {k: None if v is None else v + 0 for k, v in (limits or {}).items()}
