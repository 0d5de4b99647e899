"""A whole run of the tiny recipe, looked at from every side; and the same command once more."""

from __future__ import annotations

import json
import time

import pytest

from mutirao.core.stages import STAGE_NAMES
from tiny_recipe import RECIPE

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def run_dir(place):
    (path,) = place.workdir.glob("runs/*/run.json")
    return path.parent


def test_every_stage_is_committed_and_the_run_says_so(finished):
    place, done = finished
    record = place.record()
    assert record["status"] == "done"
    assert set(record["stages"]) == set(STAGE_NAMES)
    assert "bits per byte" in done.stdout and "Traceback" not in done.stderr
    assert max(map(len, (done.stdout + done.stderr).splitlines())) <= 120


def test_the_model_beats_the_unigram_model_on_held_out_text(finished):
    value = json.loads(finished[0].look("runs", "show", "tiny", "--json").stdout)["evaluation"]
    assert 0 < value["bits_per_byte"] <= value["unigram_bits_per_byte"] - 0.05


def test_hugging_face_loads_the_exported_folder(finished, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = tmp_path / "model"
    assert finished[0].look("model", "export", "tiny", "--output", str(target)).returncode == 0
    model = AutoModelForCausalLM.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    ids = tokenizer("A função retorna", return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert out.shape[1] == ids.shape[1] + 5
    assert (run_dir(finished[0]) / "model" / "model.safetensors").exists()


def test_the_same_command_again_does_no_finished_work(finished):
    place, _ = finished
    before = place.record()
    began = time.time()
    again = place.call("run", str(RECIPE))
    assert again.returncode == 0
    assert again.stderr.count("done earlier") == len(STAGE_NAMES)
    assert place.record()["stages"] == before["stages"]
    written = [p for p in place.workdir.glob("store/*/*/*") if p.stat().st_mtime > began]
    assert [p for p in written if p.name != "lease.json.lock"] == []


def test_dry_run_of_a_finished_run_has_nothing_to_do(finished):
    done = finished[0].look("run", str(RECIPE), "--dry-run", "--json")
    assert {row["state"] for row in json.loads(done.stdout)["stages"]} == {"done"}


def test_dry_run_says_which_field_makes_a_stage_run_again(finished):
    changed = ["--set", "neardup.threshold=0.7"]
    done = finished[0].look("run", str(RECIPE), "--dry-run", "--json", *changed)
    rows = {row["stage"]: row for row in json.loads(done.stdout)["stages"]}
    assert rows["filter"]["state"] == "done"
    assert rows["neardup"]["state"] == "to do"
    assert "neardup.threshold: default -> 0.7" in rows["neardup"]["why"]
    assert rows["train"]["state"] == "waits"


def test_an_execution_field_continues_the_same_run(finished):
    done = finished[0].call("run", str(RECIPE), "--set", "train.log_every=3")
    assert done.returncode == 0 and done.stderr.count("done earlier") == len(STAGE_NAMES)
    assert len(list(finished[0].workdir.glob("runs/*"))) == 1


def lines(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_documents_can_be_seen_and_explained(finished):
    place, _ = finished
    kept = lines(place.look("data", "show", "tiny", "--limit", "3", "--json"))
    assert len(kept) == 3 and all(row["text"] and row["source"] for row in kept)
    dropped = lines(place.look("data", "show", "tiny", "--dropped", "--json"))
    assert {"clean", "langid", "filter"} <= {row["stage"] for row in dropped}
    document = next(row for row in dropped if row["stage"] == "langid")
    story = json.loads(place.look("data", "explain", "tiny", document["id"], "--json").stdout)
    assert story["drop_reason"] == document["drop_reason"]
    assert "filter" in [stage["stage"] for stage in story["stages"]]
    plain = place.look("data", "explain", "tiny", document["id"])
    assert f"dropped by langid: {document['drop_reason']}" in plain.stdout
    missing = place.look("data", "explain", "tiny", "ffffffffffff")
    assert missing.returncode == 2 and "No such document" in missing.stderr


def test_batches_can_be_peeked_and_the_model_sampled(finished):
    place, _ = finished
    rows = json.loads(place.look("model", "peek", "tiny", "--step", "3", "--json").stdout)
    assert len(rows) == 16 and all(len(row["tokens"]) == 65 for row in rows)
    first = place.call("model", "sample", "tiny", "--prompt", "A função", "--tokens", "8")
    again = place.call("model", "sample", "tiny", "--prompt", "A função", "--tokens", "8")
    assert first.returncode == 0 and first.stdout == again.stdout
    assert first.stdout.startswith("A função")


def test_the_ledger_covers_the_stages(finished):
    value = json.loads(finished[0].look("energy", "show", "tiny", "--json").stdout)
    assert {"langid", "train"} <= set(value["stages"])
    assert value["stages"]["train"]["energy_j"] > 0
    plain = finished[0].look("energy", "show", "tiny")
    assert "kWh" in plain.stdout and "train" in plain.stdout


def test_the_report_is_one_offline_page_with_the_results(finished):
    page = (run_dir(finished[0]) / "report.html").read_text(encoding="utf-8")
    assert "bits per byte" in page and "<svg" in page
    assert 'src="http' not in page and 'href="http' not in page


def test_the_store_is_sized_verified_and_kept(finished):
    place, _ = finished
    size = json.loads(place.look("store", "size", "--json").stdout)
    assert size["train"]["bytes"] > 0 and size["train"]["unused_bytes"] == 0
    checked = json.loads(place.look("store", "verify", "--json").stdout)
    assert checked == {"checked": len(STAGE_NAMES), "problems": []}
    gone = json.loads(place.look("store", "gc", "--dry-run", "--json").stdout)
    assert gone["removed"] == []


def test_arrow_shards_open_in_hugging_face_datasets(finished):
    import datasets

    (shard,) = finished[0].workdir.glob("store/split/*/train-00000.arrow")
    loaded = datasets.load_dataset("arrow", data_files=str(shard), split="train")
    assert len(loaded) > 50 and loaded[0]["text"]


def test_runs_are_listed_with_their_state(finished):
    listed = finished[0].look("runs", "list")
    assert "tiny-" in listed.stdout and "done" in listed.stdout
    logs = finished[0].look("runs", "logs", "tiny")
    assert "evaluate" in logs.stdout
