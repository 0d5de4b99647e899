"""A folder that `datasets` saved is read as it is: its rows once, nothing else in the folder."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
datasets = pytest.importorskip("datasets")

from data_jobs.read.datasets_folder import rows_only  # noqa: E402
from mutirao.core.errors import RecipeError  # noqa: E402
from mutirao.core.schemas import read_ipc  # noqa: E402


@pytest.fixture
def saved(tmp_path, helpers):
    """A saved Dataset of two shards in `one`, a DatasetDict of two splits in `two`."""
    datasets.disable_progress_bars()
    rows = [{"id": str(i), "text": helpers.sentence(i)} for i in range(6)]
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    parts = {"train": whole.select([0, 2, 4]), "test": whole.select([5])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    return tmp_path


def names(done) -> list[str]:
    paths = done["clean"].paths("text-")
    return [name for path in paths for name in read_ipc(path, "text").column("name").to_pylist()]


def test_a_dataset_is_read_in_the_order_of_its_shards(saved, stages):
    done = stages(sources=[{"path": "one", "name": "one"}], until="clean")
    assert names(done) == ["0", "1", "2", "3", "4", "5"]


def test_splits_are_read_with_their_rows_only(saved, stages):
    done = stages(sources=[{"path": "two", "name": "two"}], until="clean")
    assert names(done) == ["5", "0", "2", "4"]


def test_cache_files_beside_the_shards_are_no_rows(saved, stages):
    (saved / "one" / "cache-1f.arrow").write_bytes(
        (saved / "one" / "data-00000-of-00002.arrow").read_bytes()
    )
    done = stages(sources=[{"path": "one", "name": "one"}], until="clean")
    assert names(done) == ["0", "1", "2", "3", "4", "5"]


def test_a_missing_shard_is_an_error(saved):
    (saved / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(RecipeError, match=r"lacks 1 of its 2 files[\s\S]*data-00001"):
        rows_only((saved / "one").iterdir())


def test_a_state_file_of_another_program_changes_nothing(tmp_path):
    (tmp_path / "state.json").write_text('{"step": 3}')
    (tmp_path / "rows.arrow").write_bytes(b"")
    paths = sorted(tmp_path.iterdir())
    assert rows_only(paths) == paths
