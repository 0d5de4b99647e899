"""What version 0.1 wrote (format 1 of everything) must stay readable.

`format-1/` is a whole small workdir: a run on five chapters of Machado de Assis (public domain).
When a format number rises, keep this folder and add the next beside it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mutirao.core import schemas
from mutirao.core.energy_rows import EnergyRow, UsageRow, read_rows
from mutirao.core.ledger import totals
from mutirao.core.manifest import read_manifest, verify
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.runs import all_runs
from mutirao.run.show import evaluation, manifests, run_summary
from train_jobs.checkpoint import Checkpoint

OLD = Path(__file__).parent / "format-1"


@pytest.fixture
def run(old):
    (found,) = all_runs(old)
    return found


def test_every_manifest_is_read_and_its_parts_are_intact(old):
    found = sorted(old.store.glob("*/*/manifest.json"))
    assert len(found) == 12
    for path in found:
        manifest = read_manifest(path.parent)
        assert manifest is not None and verify(manifest) == []


def test_every_kind_of_arrow_file_has_the_schema_of_its_kind(old):
    kinds = {}
    for path in old.store.glob("*/*/*.arrow"):
        table = schemas.read_ipc(path)
        kinds[table.schema.metadata[b"mutirao.kind"].decode()] = table.schema
    declared = [s for s in vars(schemas).values() if isinstance(s, schemas.pa.Schema)]
    by_kind = {
        s.metadata[b"mutirao.kind"].decode(): s for s in declared if s is not schemas.TOKENS_32
    }
    assert set(kinds) == set(by_kind) - {"decision.decontaminate", "bands"}
    for kind, schema in kinds.items():
        assert schema.equals(by_kind[kind]), kind


def test_the_run_its_recipe_and_its_results_are_read(old, run):
    assert run.status == "done" and run.recipe().name == "compat"
    assert set(manifests(old, run)) == set(run.stages)
    assert evaluation(manifests(old, run))["bits_per_byte"] > 0
    assert run_summary(run)[0] == f"Run {run.id}: done"


def test_metrics_and_ledger_are_read(old, run):
    assert len(step_losses(run.directory)) == 250
    assert read_metrics(run.directory, "heldout")
    rows = read_rows(old.root)
    assert {EnergyRow, UsageRow} <= {type(row) for row in rows}
    assert totals(run.directory)["stages"]["train"]["energy_j"] > 0


def test_the_checkpoint_is_read(run):
    (folder,) = (run.directory / "checkpoints").glob("step-*")
    saved = Checkpoint(folder)
    assert saved.step == 250
    assert saved.full("model.norm.weight").shape == (16,)
