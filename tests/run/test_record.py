"""What `--new` takes away from a run's folder."""

from __future__ import annotations

import json

from mutirao.run.record import forget_training
from train_jobs.skips import SkipList


def test_a_new_training_inherits_no_skip_list_and_keeps_the_recipe(tmp_path):
    rollback = {"cause": "bad-steps", "step": 9, "detail": "", "left_out": [[8, 24]]}
    (tmp_path / "guard.json").write_text(json.dumps({"format": 1, "rollbacks": [rollback]}))
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text("name: a\n")
    assert SkipList(tmp_path).count() == 16
    forget_training(tmp_path)
    assert SkipList(tmp_path).count() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
