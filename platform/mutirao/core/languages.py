"""Language packs: what the platform knows about a language, as data in `mutirao/languages/<code>/`.

In: a code as people write it (`pt`, `por`, `pt-BR`, `por_Latn`). Out: a frozen `Pack`. A language
without a pack gets `und`, which measures everything and drops only documents that are too short.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from mutirao.core.errors import RecipeError
from mutirao.core.files import sha256_hex
from mutirao.core.language_codes import GENERIC, canonical


@dataclass(frozen=True)
class Pack:
    code: str  # of the pack: 'por_Latn', or 'und'
    language: str  # of the language asked for: 'por_Latn', 'yrl_Latn'
    name: str
    stop_words: frozenset[str]
    thresholds: dict[str, float] = field(default_factory=dict)
    evidence: str = ""  # what the thresholds rest on
    sha256: str = ""  # of pack.yaml: an asset of the filter stage
    cleaning: dict[str, Any] = field(default_factory=dict)  # clean.yaml: phrases, personal data
    clean_sha256: str = ""  # of clean.yaml: an asset of the clean stage


def load_pack(code: str) -> Pack:
    """Raises RecipeError if the pack is damaged; a language without one gets the generic pack."""
    language = canonical(code)
    folder = resources.files("mutirao.languages")
    chosen = language if (folder / language / "pack.yaml").is_file() else GENERIC
    data = (folder / chosen / "pack.yaml").read_bytes()
    own_rules = (folder / chosen / "clean.yaml").is_file()
    cleaning = (folder / (chosen if own_rules else GENERIC) / "clean.yaml").read_bytes()
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
            yaml.safe_load(cleaning),
            sha256_hex(cleaning),
        )
    except (yaml.YAMLError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise RecipeError(f"Damaged language pack: {error}", f"{chosen}/pack.yaml") from error
