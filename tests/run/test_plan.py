"""Keys of stages, and the reason why a finished stage would run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mutirao.core.files import write_json
from mutirao.core.manifest import commit
from mutirao.core.recipe import Recipe, Source
from mutirao.core.stages import BY_NAME, STAGES
from mutirao.run.new_recipe import sizes_for
from mutirao.run.plan import NEVER_RAN, key_parts, make_plan, make_step, stages_of

SOURCES = [
    {"source": "s", "file": "a.txt", "format": "text", "bytes": 3, "sha256": "0" * 64, "path": "/x"}
]


def recipe(**sections) -> Recipe:
    return Recipe(sources=(Source(path="a.txt", name="s"),), **sections)


def step(workdir, stage, made: Recipe, done=None, earlier=None, sources=SOURCES):
    return make_step(stage, made, workdir, done or {}, sources, Path(), earlier or {})


def finished(workdir, stage, made: Recipe, done=None):
    """Commit an empty result under the key that the plan gives the stage."""
    planned = step(workdir, stage, made, done)
    content = {"parts": [], "counts": {}, "info": {}, "stage": stage.name}
    return planned, commit(planned.directory, content, {})


def test_a_stage_without_result_is_to_do_and_then_done(workdir):
    ingest = BY_NAME["ingest"]
    assert (step(workdir, ingest, recipe()).state, step(workdir, ingest, recipe()).why) == (
        "to do",
        NEVER_RAN,
    )
    finished(workdir, ingest, recipe())
    assert step(workdir, ingest, recipe()).state == "done"


def test_the_place_of_the_sources_is_not_in_the_key_but_their_content_is(workdir):
    ingest = BY_NAME["ingest"]
    key = step(workdir, ingest, recipe()).key
    moved = [{**SOURCES[0], "path": "/elsewhere"}]
    changed = [{**SOURCES[0], "sha256": "1" * 64}]
    assert step(workdir, ingest, recipe(), sources=moved).key == key
    assert step(workdir, ingest, recipe(), sources=changed).key != key


def test_execution_fields_leave_every_key_alone(workdir):
    one, other = recipe(), recipe(train={"workers": 7, "zero_stage": 3}, ray={"cpus": 9})
    for stage in STAGES:
        assert key_parts(stage, one, {}, SOURCES, Path()) == key_parts(
            stage, other, {}, SOURCES, Path()
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean": {"unicode_repair": False}}, "clean.unicode_repair: default -> False"),
        ({"clean": {"max_document_bytes": 5}}, "clean.max_document_bytes: default -> 5"),
    ],
)
def test_a_changed_field_is_named(workdir, change, words):
    _, ingest = finished(workdir, BY_NAME["ingest"], recipe())
    done = {"ingest": ingest}
    planned, _ = finished(workdir, BY_NAME["clean"], recipe(), done)
    earlier = {"clean": {"key": planned.key, "key_parts": planned.key_parts, "status": "done"}}
    again = step(workdir, BY_NAME["clean"], recipe(**change), done, earlier)
    assert (again.state, again.why) == ("to do", words)


def test_a_raised_output_version_is_named(workdir):
    ingest = BY_NAME["ingest"]
    planned, _ = finished(workdir, ingest, recipe())
    earlier = {"ingest": {"key": planned.key, "key_parts": planned.key_parts, "status": "done"}}
    newer = replace(ingest, output_version=ingest.output_version + 1)
    again = step(workdir, newer, recipe(), earlier=earlier)
    assert again.state == "to do" and again.why.startswith(
        f"output_version: {ingest.output_version} -> {newer.output_version}"
    )


def test_a_result_that_is_gone_and_a_stage_begun_are_told_apart(workdir):
    ingest = BY_NAME["ingest"]
    planned = step(workdir, ingest, recipe())
    entry = {"key": planned.key, "key_parts": planned.key_parts}
    done_once = {"ingest": {**entry, "status": "done"}}
    assert "no longer in the store" in step(workdir, ingest, recipe(), earlier=done_once).why
    write_json(planned.directory / "files.json.part.json", {})
    begun = {"ingest": {**entry, "status": "running"}}
    assert step(workdir, ingest, recipe(), earlier=begun).why == ("begun, goes on where it stopped")


def test_decontaminate_takes_part_only_with_something_to_compare():
    names = [stage.name for stage in stages_of(recipe(decontaminate={"pack_sets": False}), Path())]
    assert "decontaminate" not in names
    with_it = [s.name for s in stages_of(recipe(decontaminate={"against": ["t.jsonl"]}), Path())]
    assert "decontaminate" in with_it


def test_without_the_sources_the_plan_lists_every_stage(workdir):
    plan = make_plan(recipe(), workdir, None, Path())
    assert [s.state for s in plan] == ["to do"] + ["waits"] * (len(plan) - 1)


def test_the_proposed_training_never_repeats_the_text_more_than_four_times():
    for size in (1_000, 100_000, 5_000_000, 40_000_000_000):
        assert sizes_for(size)["tokens"] <= max(4 * size / 3.5, 1000)
    assert sizes_for(40_000_000)["vocab_size"] < sizes_for(400_000_000)["vocab_size"]
