"""Language packs: what the platform knows about a language, as data in `mutirao/languages/<code>/`.

In: a code as people write it (`pt`, `por`, `pt-BR`, `por_Latn`). Out: a frozen `Pack`. A language
without a pack gets `und`, which measures everything and drops only documents that are too short.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from mutirao.core.errors import RecipeError
from mutirao.core.files import sha256_hex

GENERIC = "und"

# Codes as people write them -> the pack's code (ISO 639-3, underscore, ISO 15924 script).
ALIASES: dict[str, str] = {
    "pt": "por_Latn",
    "por": "por_Latn",
    "pt-br": "por_Latn",
    "pt-pt": "por_Latn",
    "gug": "grn_Latn",  # Paraguayan Guarani; language models know the macro-language
    "grn": "grn_Latn",
    "gn": "grn_Latn",
    "swh": "swa_Latn",
    "swa": "swa_Latn",
    "sw": "swa_Latn",
    "es": "spa_Latn",
    "en": "eng_Latn",
    "gl": "glg_Latn",
}


@dataclass(frozen=True)
class Pack:
    code: str  # of the pack: 'por_Latn', or 'und'
    language: str  # of the language asked for: 'por_Latn', 'yrl_Latn'
    name: str
    stop_words: frozenset[str]
    thresholds: dict[str, float] = field(default_factory=dict)
    evidence: str = ""  # what the thresholds rest on
    sha256: str = ""  # of pack.yaml: the pack is an asset of the filter stage


def load_pack(code: str) -> Pack:
    """Raises RecipeError if the pack is damaged; a language without one gets the generic pack."""
    language = canonical(code)
    folder = resources.files("mutirao.languages")
    chosen = language if (folder / language / "pack.yaml").is_file() else GENERIC
    data = (folder / chosen / "pack.yaml").read_bytes()
    try:
        content: dict[str, Any] = yaml.safe_load(data)
        return Pack(
            chosen,
            language,
            content["name"],
            frozenset(content["stop_words"].split()),
            {name: float(value) for name, value in content["thresholds"].items()},
            content["evidence"],
            sha256_hex(data),
        )
    except (yaml.YAMLError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise RecipeError(f"Damaged language pack: {error}", f"{chosen}/pack.yaml") from error


def canonical(code: str) -> str:
    """'pt' -> 'por_Latn'; a code without an alias stays, with `_Latn` added to three bare letters.

    Raises RecipeError for what cannot be a code, with the nearest one known.
    """
    if code.lower() in ALIASES:
        return ALIASES[code.lower()]
    language, _, script = code.partition("_")
    language = ALIASES.get(language, f"{language}_Latn").partition("_")[0]
    if not (
        len(language) == 3 and language.isascii() and language.isalpha() and language.islower()
    ):
        raise _unknown(code)
    if script and not (len(script) == 4 and script.isalpha() and script.istitle()):
        raise _unknown(code)
    return f"{language}_{script or 'Latn'}"


def iso639_3(code: str) -> str:
    """The language part: 'por_Latn' -> 'por'."""
    return canonical(code).partition("_")[0]


def known_codes() -> list[str]:
    """Languages that have a pack."""
    folder = resources.files("mutirao.languages")
    found = [entry.name for entry in folder.iterdir() if (entry / "pack.yaml").is_file()]
    return sorted(set(found) - {GENERIC})


def _unknown(code: str) -> RecipeError:
    close = difflib.get_close_matches(code, [*ALIASES, *known_codes()], n=3)
    hint = (
        f"Did you mean {', '.join(close)}?" if close else "Use ISO 639-3 codes such as por or grn."
    )
    return RecipeError(f"Not a language code: {code!r}", "language", hint, "unknown-language")
