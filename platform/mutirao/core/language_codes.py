"""Language codes: as people write them, as packs are named, as language models label them.

A pack is named by ISO 639-3, underscore, ISO 15924 script (`por_Latn`). Language models speak of
other codes: two letters (`pt`), macro-languages (`grn` for Paraguayan Guarani, `swa` for Swahili),
`por_Latn`. One table, `mutirao/languages/codes.yaml`, maps them.

    canonical('pt') == 'por_Latn'          a pack
    label_language('__label__gug') == 'grn'   our label of what a model said
    labels_of('gug') == {'gug', 'grn'}     our labels that count as this language
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from mutirao.core.errors import RecipeError

GENERIC = "und"
LABEL = "__label__"  # before every label of a fastText model


@dataclass(frozen=True)
class CodeTable:
    """`languages/codes.yaml`, read once."""

    two_letters: dict[str, str]  # pt -> por
    labels: dict[str, str]  # gug -> grn
    macros: dict[str, frozenset[str]]  # grn -> {gug, ...}
    packs: dict[str, str]  # grn -> gug_Latn
    scripts: dict[str, str]  # rus -> Cyrl
    confusable: frozenset[str]  # languages easily taken for another
    twins: frozenset[str]  # languages hardly told apart at all


@cache
def codes() -> CodeTable:
    content = yaml.safe_load((resources.files("mutirao.languages") / "codes.yaml").read_bytes())
    return CodeTable(
        _pairs(content["two_letters"]),
        _pairs(content["labels"]),
        {macro: frozenset(own.split()) for macro, own in content["macros"].items()},
        _pairs(content["packs"]),
        {code: script for script, own in content["scripts"].items() for code in own.split()},
        frozenset(" ".join(content["confusable"]).split()),
        frozenset(" ".join(content["twins"]).split()),
    )


def canonical(code: str) -> str:
    """'pt' -> 'por_Latn', 'gn' and 'grn_Latn' -> 'gug_Latn', 'ru' -> 'rus_Cyrl'.

    Raises RecipeError for what cannot be a code, with the nearest one known.
    """
    table = codes()
    if code.lower() in table.packs:
        return table.packs[code.lower()]
    language, underscore, script = code.partition("_")
    language = table.two_letters.get(language.lower() if not script else language, language)
    language, _, usual = table.packs.get(language, language).partition("_")
    letters = language.isascii() and language.isalpha() and language.islower()
    if not (len(language) == 3 and letters):
        raise _unknown(code)
    if underscore and not (len(script) == 4 and script.isalpha() and script.istitle()):
        raise _unknown(code)
    return f"{language}_{script or usual or table.scripts.get(language, 'Latn')}"


def iso639_3(code: str) -> str:
    """The language part: 'por_Latn' -> 'por'."""
    return canonical(code).partition("_")[0]


def label_language(label: str) -> str:
    """Our ISO 639-3 label of a language model's label: 'pt', 'por_Latn', '__label__por' -> 'por';
    'gug_Latn' -> 'grn', 'zh-Hant' -> 'zho'. What the table does not know stays as it is."""
    table = codes()
    label = label.removeprefix(LABEL)
    if label in table.labels:
        return table.labels[label]
    language = label.partition("_")[0]
    language = table.two_letters.get(language, language)
    return table.labels.get(language, language)


def labels_of(code: str) -> frozenset[str]:
    """Our labels that count as the language of `code`: its own, and those of the macro-language
    that holds it or of the languages that it holds. 'quy' -> {'quy', 'que'}.

    Raises RecipeError for what cannot be a code.
    """
    table = codes()
    language = iso639_3(code)
    found = {language, *table.macros.get(language, ())}
    found |= {macro for macro, own in table.macros.items() if language in own}
    return frozenset(found | {label_language(one) for one in found})


def known_codes() -> list[str]:
    """Languages that have a pack."""
    folder = resources.files("mutirao.languages")
    found = [entry.name for entry in folder.iterdir() if (entry / "pack.yaml").is_file()]
    return sorted(set(found) - {GENERIC})


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in text.split())


def _unknown(code: str) -> RecipeError:
    names = [*codes().packs, *known_codes()]
    close = difflib.get_close_matches(code.lower(), names, n=3)
    hint = (
        f"Did you mean {', '.join(close)}?" if close else "Use ISO 639-3 codes such as por or gug."
    )
    return RecipeError(f"Not a language code: {code!r}", "language", hint, "unknown-language")
