"""Conversations as token ids: a role marker, the turn's ids and an end of turn, turn after turn.

In: a tokenizer.json and its configuration; the `messages` of kept instruction documents. Out: the
same tokenizer with five spare ids named as markers and a chat template, so that transformers'
`apply_chat_template` gives the ids that `pack` writes; the ids of a record batch. No other id
changes and the vocabulary keeps its size, so a model of the tokenizer can be tuned further.
Markers are special tokens: written inside a text they are encoded as plain text, like all special
tokens. Memory: a record batch of text and its ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from data_jobs.tokens.engines import Encoder, Ids
from mutirao.core.errors import RecipeError

ROLES = ("system", "user", "assistant", "tool")
END_OF_TURN = "end_of_turn"
MARKERS = {name: f"<|{name}|>" for name in (*ROLES, END_OF_TURN)}
# Ids that a tokenizer keeps free, as several families of models name them.
SPARE = re.compile(r"<\|(?:spare|reserved_special_token)_\d+\|>|<unused\d+>|\[unused\d+\]")
# One line: the engines that read it strip line ends in different ways.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('Roles are system, user, assistant and tool, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end_of_turn|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
CHECKED = (
    {"role": "system", "content": "Você responde em português."},
    {"role": "user", "content": "  Onde fica a UFMS?\n\nE o que é?"},
    {"role": "assistant", "content": "Em Campo Grande; é uma universidade. <|user|> 1.234,5"},
)


def chat_format() -> str:
    """The sha256 of all that decides how a conversation is written."""
    return hashlib.sha256("\0".join([*MARKERS.values(), TEMPLATE]).encode()).hexdigest()


def with_markers(text: str, config: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """(tokenizer.json, tokenizer_config.json) with markers and template; None where the tokenizer
    has neither the markers nor enough spare ids. Markers that are there keep their ids.

    Raises RecipeError for a tokenizer that would give other ids inside a conversation.
    """
    content = json.loads(text)
    added, vocabulary = content.setdefault("added_tokens", []), _vocabulary(content)
    ids = vocabulary | {token["content"]: token["id"] for token in added}
    missing = [token for token in MARKERS.values() if token not in ids]
    spare = sorted((token for token in ids if SPARE.fullmatch(token)), key=lambda one: ids[one])
    if len(spare) < len(missing):
        return None
    renamed = dict(zip(spare, missing, strict=False))
    ids |= {new: ids[old] for old, new in renamed.items()}
    if not missing and _are_special(added):
        named = text
    else:
        _rename(content, renamed)
        _make_special(added, {token: ids[token] for token in MARKERS.values()}, renamed)
        named = json.dumps(content, ensure_ascii=False)
    check(named)
    return named, {**_renamed(config, renamed), "chat_template": TEMPLATE}


def chat_ids(tokenizer: Any) -> dict[str, int]:
    """{system, user, assistant, tool, end_of_turn: id} of a `tokenizers.Tokenizer`; empty where it
    lacks one."""
    ids = {name: tokenizer.token_to_id(token) for name, token in MARKERS.items()}
    return {} if None in ids.values() else ids


def check(text: str) -> None:
    """Raises RecipeError where the text of a conversation, encoded at once, gives other ids than
    its turns one by one: such a tokenizer treats the beginning of a text in a way of its own."""
    from tokenizers import Tokenizer

    whole, parts = Tokenizer.from_str(text), Tokenizer.from_str(text)
    parts.encode_special_tokens = True
    ids = chat_ids(whole)
    turns: list[int] = []
    for message in CHECKED:
        inside = parts.encode(message["content"], add_special_tokens=False).ids
        turns += [ids[message["role"]], *inside, ids[END_OF_TURN]]
        plain = {**message, "content": message["content"].replace("<|user|>", "")}
        said = MARKERS[plain["role"]] + plain["content"] + MARKERS[END_OF_TURN]
        want = parts.encode(plain["content"], add_special_tokens=False).ids
        if whole.encode(said, add_special_tokens=False).ids[1:-1] != want:
            raise _refused("it gives other ids to a text that follows a marker")
    if sum(turns.count(number) for number in ids.values()) != 2 * len(CHECKED):
        raise _refused("it takes a marker that is written in a text for a marker")


def encode(encoder: Encoder, batch: pa.RecordBatch, chat: dict[str, int]) -> Ids:
    """The ids of the kept documents of a batch as `Encoder.encode` gives them, with instruction
    documents turn by turn. chat: from `chat_ids`; empty: all documents are plain text."""
    messages = batch.column("messages").to_pylist()
    if not chat or not any(messages):
        return encoder.encode(batch.column("text"))
    texts: list[str] = []
    roles: list[int] = []  # the marker before each text, -1 for none
    counts = []  # texts of each document
    for row, written in enumerate(messages):
        turns = orjson.loads(written) if written else []
        texts += [turn["content"] for turn in turns] or [batch.column("text")[row].as_py()]
        roles += [chat[turn["role"]] for turn in turns] or [-1]
        counts.append(max(len(turns), 1))
    ids, offsets = encoder.encode(pa.array(texts, pa.large_string()))
    marked, starts = _with_turns(ids, offsets, np.array(roles), chat[END_OF_TURN])
    return marked, starts[np.concatenate([[0], np.cumsum(counts)])]


def _with_turns(ids: np.ndarray, offsets: np.ndarray, roles: np.ndarray, end: int) -> Ids:
    """Texts ids[offsets[i] : offsets[i + 1]] with a marker before and `end` after each whose role
    is not negative."""
    turns = roles >= 0
    starts = np.concatenate([[0], np.cumsum(np.diff(offsets) + 2 * turns)])
    marked = np.empty(starts[-1], ids.dtype)
    first, last = starts[:-1][turns], starts[1:][turns] - 1
    inner = np.ones(len(marked), dtype=bool)
    inner[first] = inner[last] = False
    marked[inner] = ids
    marked[first], marked[last] = roles[turns], end
    return marked, starts


def _vocabulary(content: dict[str, Any]) -> dict[str, int]:
    """{piece: id} of the model in a tokenizer.json."""
    found = content["model"].get("vocab") or {}
    if isinstance(found, dict):
        return dict(found)
    return {piece: number for number, (piece, _) in enumerate(found)}


def _rename(content: dict[str, Any], renamed: dict[str, str]) -> None:
    """Gives pieces of the model other names; each keeps its id and its place."""
    model = content["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {renamed.get(one, one): number for one, number in model["vocab"].items()}
    elif model.get("vocab"):
        model["vocab"] = [[renamed.get(one, one), score] for one, score in model["vocab"]]


def _renamed(value: Any, renamed: dict[str, str]) -> Any:
    """A configuration may list its special tokens by name, which transformers would add anew."""
    if isinstance(value, dict):
        return {key: _renamed(one, renamed) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, renamed) for one in value]
    return renamed.get(value, value) if isinstance(value, str) else value


def _make_special(
    added: list[dict[str, Any]], ids: dict[str, int], renamed: dict[str, str]
) -> None:
    """Among the added tokens, markers that take no space beside them and are no part of a text."""
    rule = {"single_word": False, "lstrip": False, "rstrip": False}
    rule |= {"normalized": False, "special": True}
    gone = {*renamed, *ids}
    added[:] = [token for token in added if token["content"] not in gone]
    added += [{"id": number, "content": token, **rule} for token, number in ids.items()]
    added.sort(key=lambda token: token["id"])


def _are_special(added: list[dict[str, Any]]) -> bool:
    special = {token["content"] for token in added if token["special"]}
    return special.issuperset(MARKERS.values())


def _refused(why: str) -> RecipeError:
    return RecipeError(
        f"The tokenizer can't write conversations: {why}",
        "tokenizer",
        "Use a byte-level BPE, or take `kind: instruction` from the sources to pack their text "
        "without roles.",
        "no-chat",
    )
