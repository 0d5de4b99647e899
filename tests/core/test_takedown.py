"""The takedown list: what it matches, what it never says, what happens without its key."""

from __future__ import annotations

import stat

import pytest

from mutirao.core.errors import DataError
from mutirao.core.manifest import commit, finished_part, read_manifest, redact, verify, write_part
from mutirao.core.takedown import Takedown, add, normalized, read_key

ID = "00112233445566778899aabbccddeeff"


@pytest.fixture
def listed(tmp_path):
    add(
        tmp_path,
        {"id": [ID], "url": ["https://a.org/x"], "text": ["Um  Texto."], "name": ["web\0n7"]},
    )
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"id": ID}, True),
        ({"id": bytes.fromhex(ID)}, True),
        ({"id": ID.upper()}, True),
        ({"id": ID[:31] + "0"}, False),
        ({"url": "https://a.org/x"}, True),
        ({"url": "https://a.org/"}, False),
        ({"text": "um texto.\n"}, True),
        ({"text": "um texto"}, False),
        ({"source": "web", "name": "n7"}, True),
        ({"source": "other", "name": "n7"}, False),
        ({"text": ID}, False),  # kinds are apart
        ({"text": " "}, False),
        ({}, False),
    ],
)
def test_a_document_matches_by_id_url_text_or_its_sources_own_id(listed, asked, found):
    assert Takedown.load(listed).matches(**asked) is found


def test_nothing_is_in_the_clear_and_the_key_is_private(listed):
    data = b"".join(p.read_bytes() for p in (listed / "takedown").iterdir())
    assert not any(w in data for w in (ID.encode(), b"a.org", b"texto", b"n7"))
    assert stat.S_IMODE((listed / "takedown" / "key").stat().st_mode) == 0o600


def test_adding_again_adds_nothing_and_keeps_the_key(listed):
    key = read_key(listed)
    assert add(listed, {"id": [ID], "text": ["um texto."]}) == 0
    assert add(listed, {"url": ["https://b.org", ""]}) == 1
    assert read_key(listed) == key and Takedown.load(listed).matches(url="https://b.org")


def test_another_workdir_has_other_digests(listed, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    add(other, {"id": [ID]})
    assert not Takedown.load(listed).digests & Takedown.load(other).digests


def test_no_list_is_falsy_and_a_lost_key_stops(listed, tmp_path_factory):
    assert not Takedown.load(tmp_path_factory.mktemp("empty"))
    (listed / "takedown" / "key").write_text("damaged")
    with pytest.raises(DataError, match="key of the takedown list"):
        Takedown.load(listed)


def test_lone_surrogates_and_case_do_not_stop_it(listed):
    assert not Takedown.load(listed).matches(text="\ud800")
    assert normalized("  A\n\tb ") == "a b"


def test_a_redacted_part_verifies_and_the_identity_stays(tmp_path):
    part = write_part(tmp_path, "a.txt", lambda stream: stream.write(b"secret") and 1)
    made = commit(tmp_path, {"parts": [vars(part)]}, {"host": "h"})
    (tmp_path / "a.txt").write_bytes(b"")
    assert verify(made) and finished_part(tmp_path, "a.txt") is None
    redact(tmp_path, ["a.txt"])
    again = read_manifest(tmp_path)
    assert again.content_hash == made.content_hash and again.provenance["host"] == "h"
    assert verify(again) == [] and finished_part(tmp_path, "a.txt").bytes == 0
    (tmp_path / "a.txt").write_bytes(b"x")
    assert len(verify(again)) == 1
