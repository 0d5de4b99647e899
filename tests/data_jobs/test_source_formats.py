"""Sources of several formats and kinds from file to kept text: roles, genre, licence, weight."""

from __future__ import annotations

import bz2
import json

import pytest

from mutirao.core.errors import RecipeError
from mutirao.core.identity import section_identity
from mutirao.core.recipe import Source
from mutirao.core.schemas import read_ipc


def rows(done, stage: str, prefix: str, kind: str) -> list[dict]:
    return [row for path in done[stage].paths(prefix) for row in read_ipc(path, kind).to_pylist()]


def conversation(helpers, number: int) -> list[dict]:
    return [
        {"role": "human", "content": f"{helpers.sentence(number)}  \u0007"},
        {"role": "gpt", "content": helpers.sentence(1000 + number)},
    ]


def test_instruction_documents_keep_their_roles_to_the_kept_text(stages, helpers):
    data = [{"id": i, "messages": conversation(helpers, i)} for i in range(12)]
    data.insert(1, {"id": "x", "messages": [{"role": "narrador", "content": "era uma vez"}]})
    source = {"path": "chat.jsonl", "name": "chat", "kind": "instruction", "genre": "dialogue"}
    done = stages(
        {"chat.jsonl": helpers.jsonl(data)},
        sources=[source],
        ingest={"max_quarantined": 1.0},
        until="split",
    )
    (reject,) = rows(done, "clean", "rejects-", "reject")
    assert (reject["reason"], reject["snippet"]) == ("unknown-role", "narrador")
    kept = rows(done, "split", "train-", "kept") + rows(done, "split", "heldout-", "kept")
    assert len(kept) > 6
    for row in kept:
        turns = json.loads(row["messages"])
        assert [turn["role"] for turn in turns] == ["user", "assistant"]
        assert row["text"] == "\n\n".join(turn["content"] for turn in turns)
        assert "\u0007" not in row["text"]
        assert (row["kind"], row["genre"]) == ("instruction", "dialogue")


def test_the_same_turns_in_any_form_are_the_same_document(stages, helpers):
    turns = [("oi " + helpers.sentence(1), helpers.sentence(2)), ("e agora?", helpers.sentence(3))]
    pairs = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in turns
    ]
    forms = {
        "list.jsonl": [{"messages": pair} for pair in pairs],
        "text.jsonl": [{"messages": json.dumps(pair)} for pair in pairs],
        "pair.jsonl": [{"prompt": q, "completion": a} for q, a in turns],
    }
    files = {name: helpers.jsonl(data) for name, data in forms.items()}
    sources = [{"path": name, "kind": "instruction"} for name in files]
    done = stages(files, sources=sources, until="clean")
    messages = [row["messages"] for row in rows(done, "clean", "text-", "text")]
    assert messages[0:2] == messages[2:4] == messages[4:6]


def test_running_text_cannot_be_instructions(stages):
    with pytest.raises(RecipeError, match=r"`kind: instruction` needs records[\s\S]*jsonl"):
        stages({"a.txt": b"x"}, sources=[{"path": "a.txt", "kind": "instruction"}], until="ingest")


def test_fields_of_the_recipe_lead_to_name_address_and_license(stages, helpers):
    record = {"data": {"body": helpers.sentence(1)}, "key": 7, "link": "http://x", "terms": "MIT"}
    fields = {
        "text_field": "data.body",
        "id_field": "key",
        "url_field": "link",
        "license_field": "terms",
    }
    done = stages(
        {"a.jsonl": helpers.jsonl([record])}, sources=[{"path": "a.jsonl", **fields}], until="clean"
    )
    (row,) = rows(done, "clean", "text-", "text")
    assert (row["name"], row["url"], row["license"], row["meta"]) == ("7", "http://x", "MIT", "{}")


def test_the_weight_of_a_source_changes_no_text(stages, helpers):
    data = {"a.jsonl": helpers.jsonl([{"text": helpers.sentence(1)}])}
    plain = stages(data, sources=[{"path": "a.jsonl"}], until="ingest")["ingest"]
    heavy = stages(data, sources=[{"path": "a.jsonl", "weight": 3}], until="ingest")["ingest"]
    assert plain.content_hash == heavy.content_hash
    recipe = helpers.Recipe(sources=[Source(path="a.jsonl", weight=3)])
    assert section_identity(recipe, ("sources",)) == {"sources": [{}]}
    mix = [{"source": 0, "weight": 3.0, "max_epochs": None}]
    assert section_identity(recipe, ("mix",)) == {"mix": mix}


def test_a_table_and_a_dump_are_read_by_their_names(stages, helpers):
    page = (
        "<mediawiki><siteinfo><base>https://pt.wikipedia.org/wiki/X</base></siteinfo><page><title>Rio"
        f"</title><ns>0</ns><id>1</id><revision><text>'''Rio''' {helpers.sentence(1)}</text>"
        "</revision></page></mediawiki>"
    )
    files = {
        "in/ptwiki-latest-pages-articles.xml.bz2": bz2.compress(page.encode()),
        "in/tweets.csv": f'text,toxic\n"{helpers.sentence(2)}\nfim",0\n'.encode(),
    }
    done = stages(files, sources=[{"path": "in"}], until="clean")
    wiki, tweet = rows(done, "clean", "text-", "text")
    assert (wiki["url"], wiki["license"]) == ("https://pt.wikipedia.org/wiki/Rio", "CC-BY-SA-4.0")
    assert wiki["text"] == f"Rio {helpers.sentence(1)}"
    assert (tweet["text"], json.loads(tweet["meta"])) == (
        f"{helpers.sentence(2)}\nfim",
        {"toxic": "0"},
    )


def test_a_source_may_state_another_license_for_a_dump(stages, helpers):
    page = f"<mediawiki><page><title>A</title><text>{helpers.sentence(1)}</text></page></mediawiki>"
    source = {"path": "a.xml", "format": "wikipedia", "license": "CC-BY-SA-3.0"}
    done = stages({"a.xml": page.encode()}, sources=[source], until="clean")
    (row,) = rows(done, "clean", "text-", "text")
    assert (row["license"], row["url"]) == ("CC-BY-SA-3.0", "")
