"""A record becomes a document: fields by name, turns with their roles, a reason where it cannot."""

from __future__ import annotations

import json

import pytest

from data_jobs.read.documents import Document, ReadOptions, Reject
from data_jobs.read.mapping import to_document

TEXT = ReadOptions()
TURNS = ReadOptions(kind="instruction")


def taken(record, options=TEXT) -> Document | Reject:
    return to_document(record, options, 3, 70, 40)


def turns(**record) -> tuple[tuple[str, str], ...]:
    found = taken(record, TURNS)
    assert isinstance(found, Document), found
    return found.messages


def reason(record, options=TURNS) -> tuple[str, str]:
    found = taken(record, options)
    assert isinstance(found, Reject), found
    assert (found.position, found.offset, found.size) == (3, 70, 40)
    return found.reason, found.snippet


def test_named_fields_are_taken_and_the_rest_is_kept_in_order():
    record = {"b": 1, "text": "olá", "id": 0, "url": "http://x", "license": "MIT", "a": [2]}
    found = taken(record)
    assert found == Document(3, 70, 40, "olá", "0", "http://x", "MIT", {"b": 1, "a": [2]})
    assert list(found.fields) == ["b", "a"]


def test_the_record_is_not_changed_neither_are_objects_nested_in_it():
    record = {"data": {"text": "olá", "year": 1900}, "id": 1}
    before = json.dumps(record)
    taken(record, ReadOptions(text_field="data.text"))
    assert json.dumps(record) == before


def test_a_dotted_name_reaches_into_objects_and_the_plain_name_comes_first():
    nested = ReadOptions(text_field="data.text", url_field="meta.link.href")
    found = taken({"data": {"text": "olá", "n": 1}, "meta": {"link": {"href": "u"}}}, nested)
    assert (found.text, found.url, found.fields) == ("olá", "u", {"data": {"n": 1}})
    assert taken({"data.text": "plain", "data": {"text": "in"}}, nested).text == "plain"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"body": "x", "id": 1}, ("missing-field", "fields: body, id")),
        ({"text": None}, ("not-text", "None")),
        ({"text": ["a"]}, ("not-text", "['a']")),
        (["text"], ("not-an-object", "['text']")),
    ],
)
def test_a_record_without_text_says_why(record, expected):
    assert reason(record, TEXT) == expected


def test_a_dotted_name_that_leads_nowhere_is_a_missing_field():
    options = ReadOptions(text_field="data.text")
    assert reason({"data": "x"}, options) == ("missing-field", "fields: data")


def test_roles_are_written_in_four_words():
    said = [("System", "a"), ("human", "b"), ("gpt", "c"), ("observation", "d")]
    messages = [{"from": role, "value": content} for role, content in said]
    assert [role for role, _ in turns(messages=messages)] == ["system", "user", "assistant", "tool"]


def test_messages_may_be_the_json_text_of_a_list():
    messages = [{"role": "user", "content": "oi"}, {"role": "assistant", "content": "olá"}]
    assert turns(messages=json.dumps(messages)) == (("user", "oi"), ("assistant", "olá"))


def test_content_in_parts_is_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = turns(messages=[{"role": "assistant", "content": parts}])
    assert found == (("assistant", "a\n\nb"),)


def test_an_empty_system_turn_is_left_out():
    messages = [{"role": "system", "content": ""}, {"role": "assistant", "content": "olá"}]
    assert turns(messages=messages) == (("assistant", "olá"),)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "narrator", "content": "x"}], ("unknown-role", "narrator")),
        ([{"speaker": "x"}], ("bad-messages", "a turn has the fields speaker")),
        (["oi"], ("bad-messages", "oi")),
        ("not json", ("bad-messages", "not json")),
        ("{}", ("bad-messages", "{}")),
        ([], ("empty", "")),
        ([{"role": "user", "content": " "}], ("empty", "")),
        ([{"role": "user", "content": "x"}], ("no-answer", "")),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant"}],
            ("empty-turn", "turn 2 (assistant)"),
        ),
        (
            [{"role": "user", "content": [{"type": "image", "url": "u"}]}],
            ("not-text", "[{'type': 'image', 'url': 'u'}]"),
        ),
    ],
)
def test_turns_that_cannot_be_used_say_why(messages, expected):
    assert reason({"messages": messages}) == expected


def test_prompt_and_completion_are_two_turns():
    assert turns(prompt="oi", completion="olá") == (("user", "oi"), ("assistant", "olá"))


def test_a_prompt_of_several_fields_is_joined_by_blank_lines():
    options = ReadOptions(
        kind="instruction", prompt_field="instruction+context", completion_field="response"
    )
    record = {"instruction": "a", "context": "b", "response": "c", "n": 1}
    found = taken(record, options)
    assert found.messages == (("user", "a\n\nb"), ("assistant", "c"))
    assert found.fields == {"n": 1}
    record["context"] = ""
    assert taken(record, options).messages[0] == ("user", "a")


def test_alpaca_records_bring_their_input():
    options = ReadOptions(kind="instruction", prompt_field="instruction", completion_field="output")
    record = {"instruction": "traduza", "input": "dog", "output": "cão"}
    assert taken(record, options).messages[0] == ("user", "traduza\n\ndog")
    del record["input"]
    assert taken(record, options).messages[0] == ("user", "traduza")


def test_a_record_without_turns_names_its_fields():
    assert reason({"question": "x"}) == ("missing-field", "fields: question")
    assert reason({"prompt": "x", "completion": None}) == ("not-text", "None")
