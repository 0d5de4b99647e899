"""Language codes: as people write them, as packs are named, as language models label them.

A pack is named by ISO 639-3, underscore, ISO 15924 script (`por_Latn`). Language models speak of
other codes: two letters (`pt`), macro-languages (`grn` for Paraguayan Guarani, `swa` for Swahili),
`por_Latn`. One table, `mutirao/languages/codes.yaml`, maps them.
"""

from __future__ import annotations

import difflib
from importlib import resources

from mutirao.core.errors import RecipeError

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
