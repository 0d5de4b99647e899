"""A tokenizer that is already there: find its files, read it, find its end of text.

In: `tokenizer.path`: a folder of a Hugging Face tokenizer, its tokenizer.json, or a SentencePiece
`.model`. Out: the tokenizer as it is (the same ids), and the text of its tokenizer.json and
tokenizer_config.json. Anything else is a RecipeError that says what was found there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError

HINT = "Give a folder with tokenizer.json, such a file, or a SentencePiece .model."
CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json")
# Where no configuration names the end of text: the usual names, the commonest first.
EOS_NAMES = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<eos>",
    "<|eot_id|>",
    "[EOS]",
    "<|im_end|>",
)


@dataclass(frozen=True)
class Eos:
    token: str
    id: int


@dataclass(frozen=True)
class Existing:
    """json: the text of tokenizer.json; tokenizer: a `tokenizers.Tokenizer` that encodes special
    tokens in a text as plain text and neither cuts nor fills up; eos: None if there is none."""

    json: str
    tokenizer: Any
    config: dict[str, Any]
    eos: Eos | None


def read_existing(path: Path) -> Existing:
    """Raises RecipeError for a path that is not there or is no tokenizer."""
    file = tokenizer_file(path)
    if file.suffix == ".model":
        from data_jobs.tokens.sentencepiece_file import convert

        text, named = convert(file)
        settings = {"eos_token": named} if named else {}
    else:
        text, settings = _text(file), _settings(file.parent)
    tokenizer = _parsed(text, file)
    eos = find_eos(tokenizer, settings)
    return Existing(text, tokenizer, configuration(settings, eos), eos)


def read_tokenizer(path: Path) -> Any:
    """The `tokenizers.Tokenizer` of a file or folder, as in `Existing`."""
    return read_existing(path).tokenizer


def tokenizer_file(path: Path) -> Path:
    """The tokenizer.json (or the SentencePiece model) of a folder, or the file itself; the folder
    of `mutirao data tokenizer` has it in `tokenizer/`."""
    if not path.is_dir():
        if not path.is_file():
            raise RecipeError("There is no such tokenizer", str(path), HINT, "no-tokenizer")
        return path
    models = sorted(path.glob("*.model"))
    named = [path / name for name in ("tokenizer.json", "tokenizer.model")]
    for file in (*named, *models[:1], path / "tokenizer" / "tokenizer.json"):
        if file.is_file():
            return file
    raise RecipeError("The folder holds no tokenizer", str(path), HINT, "no-tokenizer")


def asset_files(path: Path) -> list[Path]:
    """The files that decide about ids and special tokens."""
    file = tokenizer_file(path)
    beside = [file.parent / name for name in CONFIG_FILES] if file.suffix != ".model" else []
    return [file, *(one for one in beside if one.is_file() and one != file)]


def find_eos(tokenizer: Any, settings: dict[str, Any]) -> Eos | None:
    """The end of text that the configuration names, else the first usual name that is a token."""
    named = _content(settings.get("eos_token"))
    for name in (named, *EOS_NAMES) if named else EOS_NAMES:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return Eos(name, number)
    return None


def no_eos(path: Path) -> RecipeError:
    return RecipeError(
        "The tokenizer has no end-of-text token",
        str(path),
        'Name it in a tokenizer_config.json beside the file: {"eos_token": "..."}.',
        "no-eos",
    )


def configuration(settings: dict[str, Any], eos: Eos | None) -> dict[str, Any]:
    """The tokenizer_config.json to write beside: as it was, but read from tokenizer.json alone (a
    class of its own may build another tokenizer, or code), and with the end of text named."""
    dropped = ("auto_map", "tokenizer_file", "name_or_path", "tokenizer_class", "backend")
    kept = {name: value for name, value in settings.items() if name not in dropped}
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    if eos:
        kept["eos_token"] = eos.token
        kept["pad_token"] = _content(settings.get("pad_token")) or eos.token
    return kept


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _not_one(file, "it is not a text file") from error


def _parsed(text: str, file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # `tokenizers` raises plain Exception
        raise _not_one(file, (str(error).splitlines() or [""])[0][:120]) from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if tokenizer.get_vocab_size() == 0:
        raise _not_one(file, "its vocabulary is empty")
    return tokenizer


def _not_one(file: Path, why: str) -> RecipeError:
    return RecipeError(f"Not a tokenizer: {why}", str(file), HINT, "no-tokenizer")


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json, where they are and are readable."""
    found: dict[str, Any] = {}
    for name in reversed(CONFIG_FILES):
        try:
            value = json.loads((folder / name).read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise _not_one(folder / name, "not a JSON file") from error
        if isinstance(value, dict):
            found |= {key: one for key, one in value.items() if one is not None}
    return found


def _content(token: Any) -> str:
    """Configurations write a token as a text, or as {"content": text, ...}."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""
