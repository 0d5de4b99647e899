"""The turns of an instruction record, whatever way it writes them down, as (role, content) pairs.

In: the fields of a record. Out: a tuple of turns, or 'reason: detail' in one string. Known forms:
a list (or the JSON text of one) of {role, content} or of ShareGPT's {from, value}, where content
may be a list of {type: text, text}; and a prompt with its completion, where `prompt_field:
instruction+context` joins fields and `instruction` alone also takes Alpaca's `input`.
"""

from __future__ import annotations

from typing import Any

import orjson

from data_jobs.read.documents import ReadOptions
from data_jobs.read.fields import MISSING, Fields, take

Turn = tuple[str, str]

# What data sets call the speakers -> the four roles of a document.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}


def conversation(fields: Fields, options: ReadOptions) -> tuple[Turn, ...] | str:
    """Takes the fields that hold the turns out of `fields`.

    Reasons: missing-field, bad-messages (not a list of turns), unknown-role, not-text (an image),
    empty-turn, empty (no turn at all), no-answer (nobody answers: nothing to learn).
    """
    found = take(fields, options.messages_field)
    if isinstance(found, list | tuple | str):
        turns = _turns(found)
    else:
        turns = _prompt_and_completion(fields, options)
    if isinstance(turns, str):
        return turns
    spoken = tuple(turn for turn in turns if turn[1].strip() or turn[0] != "system")
    if not any(content.strip() for _, content in spoken):
        return "empty"
    for number, (role, content) in enumerate(spoken):
        if not content.strip():
            return f"empty-turn: turn {number + 1} ({role})"
    return spoken if any(role == "assistant" for role, _ in spoken) else "no-answer"


def _prompt_and_completion(fields: Fields, options: ReadOptions) -> list[Turn] | str:
    turns: list[Turn] = []
    sides = (
        ("user", prompt_names(options.prompt_field)),
        ("assistant", [options.completion_field]),
    )
    for role, names in sides:
        found = _side(role, [take(fields, name) for name in names])
        if isinstance(found, str):
            return found
        turns += found
    return turns


def _side(role: str, values: list[Any]) -> list[Turn] | str:
    """The turn (or turns, where the field holds a list of them) of one side of the talk; the first
    value must be there, further ones add to it."""
    if values[0] is MISSING:
        return "missing-field"
    if isinstance(values[0], list):
        return _turns(values[0])
    if not isinstance(values[0], str):
        return f"not-text: {str(values[0])[:150]}"
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    return [(role, "\n\n".join(texts))]


def prompt_names(prompt_field: str) -> list[str]:
    """'instruction' -> instruction and Alpaca's input; 'a+b' -> a and b."""
    if prompt_field == "instruction":
        return ["instruction", "input"]
    return [name.strip() for name in prompt_field.split("+")]


def _turns(found: Any) -> list[Turn] | str:
    if isinstance(found, str):
        try:
            found = orjson.loads(found)
        except orjson.JSONDecodeError:
            return f"bad-messages: {found[:150]}"
    if not isinstance(found, list | tuple):
        return f"bad-messages: {str(found)[:150]}"
    turns: list[Turn] = []
    for message in found:
        turn = _turn(message)
        if isinstance(turn, str):
            return turn
        turns.append(turn)
    return turns


def _turn(message: Any) -> Turn | str:
    if not isinstance(message, dict):
        return f"bad-messages: {str(message)[:150]}"
    if "role" in message:
        said, content = message["role"], message.get("content")
    elif "from" in message:
        said, content = message["from"], message.get("value")
    else:
        return "bad-messages: a turn has the fields " + ", ".join(sorted(map(str, message)))
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        return f"unknown-role: {str(said)[:100]}"
    text = _content(content)
    return f"not-text: {str(content)[:150]}" if text is None else (role, text)


def _content(content: Any) -> str | None:
    """The text of a turn, '' for none; None if it holds something else than text."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if isinstance(part, dict) and part.get("type") in ("text", None):
            part = part.get("text")
        if not isinstance(part, str):
            return None
        texts.append(part)
    return "\n\n".join(texts)
