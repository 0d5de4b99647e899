"""Format 2 of the data files must stay readable: instruction documents, spans, scores, takedowns.

`format-2/` is a data run on five chapters of Machado de Assis and two instruction documents of our
own, of which one was forgotten afterwards. Beside `format-1/`, which test_old_formats reads.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_jobs.results.view import show
from mutirao.core import schemas
from mutirao.core.manifest import read_manifest, verify
from mutirao.core.runs import all_runs
from mutirao.core.takedown import Takedown
from mutirao.run.show import manifests

OLD = Path(__file__).parent / "format-2"


@pytest.fixture(scope="module")
def stages(old):
    (run,) = all_runs(old)
    return manifests(old, run)


def test_every_part_is_intact_and_has_the_schema_of_its_kind(old):
    declared = [s for s in vars(schemas).values() if isinstance(s, schemas.pa.Schema)]
    by_kind = {s.metadata[b"mutirao.kind"]: s for s in declared if s is not schemas.TOKENS_32}
    for path in old.store.glob("*/*/manifest.json"):
        manifest = read_manifest(path.parent)
        assert manifest is not None and verify(manifest) == []
        for part in manifest.paths():
            if part.suffix == ".arrow":
                schema = schemas.read_ipc(part).schema
                assert schema.equals(by_kind[schema.metadata[b"mutirao.kind"]]), part


def test_the_roles_of_an_instruction_document_are_kept(stages):
    rows = schemas.read_ipc(stages["clean"].paths("text-")[-1], "text").to_pylist()
    assert [row["kind"] for row in rows] == ["instruction", "instruction"]
    roles = [turn["role"] for turn in json.loads(rows[0]["messages"])]
    assert rows[0]["name"] == "t1" and roles == ["user", "assistant"]
    assert rows[1]["text"] == rows[1]["messages"] == ""  # forgotten, the row stays


def test_a_forgotten_document_stays_forgotten(old, stages):
    assert "https://exemplo.org/t2" not in {row["url"] for row in show(stages)}
    takedown = Takedown.load(old.root)
    assert takedown.matches(url="https://exemplo.org/t2")
    assert not takedown.matches(url="https://exemplo.org/t1")
