"""Documents that were taken down are in no file of the workdir, and don't come back."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_jobs.results import scrub
from data_jobs.results.view import show
from data_jobs.tokenizer import load_tokenizer
from mutirao.core.errors import DataError, RecipeError
from mutirao.core.files import write_json
from mutirao.core.lease import Lease
from mutirao.core.manifest import commit, read_manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe_file import load_recipe
from mutirao.core.runs import all_runs, load_run
from mutirao.core.schemas import read_ipc
from mutirao.core.store import verify_all
from mutirao.core.workdir import Workdir
from mutirao.run.execute import Options, execute
from mutirao.run.forget import forget, read_wanted
from mutirao.run.show import manifests

STOCK = (
    "a casa da praia que o pescador fez com madeira do mato para morar e não sair mais dela em "
    "dias de chuva como os que vieram depois por causa do vento sul na costa"
)
WORDS = STOCK.split()
SECRET = "Maria Joaquina nasceu na vila encantada do norte em mil novecentos e oitenta"
URL, NAME = "https://segredo.example.org/maria", "secreto-0007"
RECIPE = """
name: small
language: por_Latn
sources: [{path: texts.jsonl}]
ingest: {max_quarantined: 0.5}
langid: {min_confidence: 0.0}
filter: {thresholds: {max_duplicate_5grams: 1, max_top_bigram: 1, max_top_trigram: 1,
  max_top_4gram: 1, max_duplicate_6grams: 1, max_duplicate_7grams: 1, max_duplicate_8grams: 1,
  max_duplicate_9grams: 1, max_duplicate_10grams: 1, min_terminal_lines: 0}}
clean: {boilerplate: false}
tokenizer: {vocab_size: 420}
model: {preset: demo, context: 64}
train: {tokens: 12800, global_batch: 4, max_epochs: 9}
split: {heldout: 0.1}
"""


def texts() -> list[dict]:
    dice = random.Random(5)
    rows = []
    for number in range(50):
        words = [dice.choice(WORDS) + (str(number) if k % 9 == 0 else "") for k in range(70)]
        rows.append({"id": f"doc-{number}", "text": " ".join(words) + "."})
    rows[7] = {"id": NAME, "url": URL, "text": f"{SECRET}, que {rows[7]['text']}"}
    rows.append({"id": "copia-99", "text": rows[7]["text"].replace("casa", "CASA")})
    rows.append({"id": "perto-98", "text": rows[7]["text"].replace("chuva", "sol", 1)})
    return rows


def go(workdir: Workdir, folder: Path, *overrides: str) -> list[str]:
    """Run until pack; what was said."""
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append  # type: ignore[method-assign]
    loaded = load_recipe(str(folder / "r.yaml"), overrides)
    execute(loaded, workdir, Options(until="pack", use_ray=False), progress)
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with texts, recipe and a workdir whose run has reached `pack`."""
    folder = tmp_path_factory.mktemp("forget")
    rows = [json.dumps(row, ensure_ascii=False) for row in texts()]
    rows.append('{"id": "ruim-1", "text": "' + SECRET.replace("v", "\\u0076"))  # not JSON
    (folder / "texts.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "r.yaml").write_text(RECIPE)
    workdir = Workdir(folder / "work")
    go(workdir, folder)
    return folder


@pytest.fixture
def place(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def workdir(place) -> Workdir:
    return Workdir(place / "work")


def take_down(workdir: Workdir, near: bool = True, **asked) -> dict:
    options = {"ids": (), "urls": (), "files": (), **asked}
    return forget(workdir, read_wanted(**options), near, "asked", False, lambda line: None)


def ids_of(workdir: Workdir, *names: str) -> list[str]:
    found = manifests(workdir, all_runs(workdir)[0])
    rows = [row for dropped in (False, True) for row in show(found, dropped)]
    return [row["id"] for row in rows if row["name"] in names]


def holders(root: Path, words: list[str]) -> set[tuple[str, str]]:
    """(word, file) wherever a word stands: in any letter case, UTF-8 or UTF-16, raw bytes of an
    id, inside gzip, or written as tokens."""
    found = set()
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        blobs = [data, gzip.decompress(data)] if data[:2] == b"\x1f\x8b" else [data]
        if path.name.endswith(".tokens.arrow"):
            blobs.append(decoded(root, path).encode())
        for word in words:
            forms = [word.lower().encode(), word.lower().encode("utf-16-le")]
            raw = bytes.fromhex(word) if len(word) == 32 else None
            for blob in blobs:
                if any(form in blob.lower() for form in forms) or (raw and raw in blob):
                    found.add((word, str(path.relative_to(root))))
    return found


def decoded(root: Path, tokens: Path) -> str:
    """By every tokenizer of the workdir: which one wrote them does not matter."""
    ids = read_ipc(tokens, "tokens").column("token").to_pylist()
    models = root.glob("store/tokenizer/*/tokenizer.json")
    return "\n".join(load_tokenizer(path).decode(ids) for path in models)


def test_a_forgotten_document_is_in_no_file_and_the_store_is_whole(place, workdir):
    names = (NAME, "copia-99", "perto-98")
    words = ["Maria Joaquina", "vila encantada", URL, *names, *ids_of(workdir, *names)]
    assert len(words) == 9
    (run,) = all_runs(workdir)
    (run.directory / "logs" / "0002.log").write_text(f"one line\n12:00 odd text: {SECRET}\n")
    (run.directory / "recipe.yaml").open("a").write(f"# {URL}\n")
    half = workdir.artefact("clean", "unfinished") / "text-00000-000.arrow"
    for path in (half, workdir.root / "tmp" / "x", half.parent / ".text.arrow.1.tmp"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    (workdir.cache / "fetched").mkdir(parents=True)
    (workdir.cache / "fetched" / "a.gz").write_bytes(gzip.compress(SECRET.encode()))
    before = {word for word, _ in holders(workdir.root, words)}
    assert before == set(words)

    receipt = take_down(workdir, ids=(NAME,), near=True)
    assert (receipt["documents"], receipt["copies"]) == (1, 2)
    assert holders(workdir.root, words) == set()
    assert verify_all(workdir) == (10, [])
    again = go(workdir, place)
    assert sum("done earlier" in line for line in again) == 10
    assert (run.directory / "logs" / "0002.log").read_text().startswith("one line\nxxx")
    found = manifests(workdir, load_run(run.directory))
    assert len(list(show(found))) == found["split"].counts["documents_out"] - 1
    gone = [row for row in show(found, dropped=True) if row["drop_reason"] == "takedown"]
    assert len(gone) == 3 and not any(row["text"] for row in gone)


def test_a_forgotten_document_does_not_come_back_under_another_key(place, workdir):
    known = ids_of(workdir, NAME, "copia-99", "perto-98")
    take_down(workdir, urls=(URL,), near=True)
    go(workdir, place, "clean.shard_bytes=5000")
    assert holders(workdir.root, ["Maria Joaquina", "vila encantada", URL, *known]) == set()
    newest, first = all_runs(workdir)
    assert newest.stages["clean"]["key"] != first.stages["clean"]["key"]
    counts = manifests(workdir, newest)["clean"].counts
    assert counts["rejected"] == {"invalid-json": 1, "takedown": 3}


def test_a_document_with_the_same_text_in_another_file_is_rejected_too(place, workdir):
    take_down(workdir, ids=(NAME,))
    (place / "texts.jsonl").rename(place / "other.jsonl")
    text = next(row["text"] for row in texts() if row["id"] == NAME)
    more = [*texts()[:5], {"text": text.replace(" ", "  ")}]
    (place / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    go(workdir, place, "sources=[{path: other.jsonl}]")
    newest = manifests(workdir, all_runs(workdir)[0])
    assert newest["clean"].counts["rejected"] == {"takedown": 1}


KILLED = """
import os, sys
from data_jobs.results import scrub
scrub.blank_tokens = lambda *_: os.kill(os.getpid(), 9)
from mutirao.cli.main import main
main()
"""


def test_a_takedown_survives_kill_9(place, workdir):
    words = ["data", "forget", "--near", "--id", NAME, "--workdir", str(workdir.root)]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, timeout=60)
    assert done.returncode == -9
    assert holders(workdir.root, ["Maria Joaquina"])
    receipt = take_down(workdir, ids=(NAME,))
    assert (receipt["documents"], receipt["copies"]) == (1, 2)
    assert holders(workdir.root, ["Maria Joaquina", URL, NAME]) == set()
    assert verify_all(workdir) == (10, [])


@pytest.mark.parametrize("stage", ["blank_bytes", "blank_rows"])
def test_a_takedown_that_was_killed_is_finished_by_the_same_command(
    place, workdir, stage, monkeypatch
):
    def killed(*arguments):
        raise KeyboardInterrupt

    (run,) = all_runs(workdir)
    (run.directory / "logs" / "0002.log").write_text(f"{SECRET}\n")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(scrub, stage, killed)
        take_down(workdir, ids=(NAME,))
    assert (workdir.root / "takedown" / "pending.json").exists()
    assert holders(workdir.root / "takedown", ["Maria", URL, NAME]) == set()
    with pytest.raises(DataError, match="interrupted"):  # it could copy what is not rewritten yet
        go(workdir, place)
    receipt = take_down(workdir, **({"ids": (NAME,)} if stage == "blank_rows" else {}))
    assert (receipt["documents"], receipt["copies"]) == (1, 2)
    assert holders(workdir.root, ["Maria Joaquina", URL, NAME]) == set()
    assert verify_all(workdir) == (10, [])
    assert not (workdir.root / "takedown" / "pending.json").exists()


def test_a_run_at_work_on_the_documents_is_respected(workdir):
    (run,) = all_runs(workdir)
    with Lease(run.directory / "lease.json", run.id).hold():
        with pytest.raises(RecipeError, match=f"Run {run.id} is at work") as refused:
            take_down(workdir, ids=(NAME,))
        assert "runs stop" in refused.value.hint
    assert holders(workdir.root, ["Maria Joaquina"])


def test_near_duplicates_are_named_and_stay_unless_asked_for(workdir):
    receipt = take_down(workdir, ids=(NAME,), near=False)
    assert receipt["near_duplicates"] == ids_of(workdir, "perto-98")
    assert (receipt["documents"], receipt["copies"]) == (1, 1)
    assert holders(workdir.root, ["perto-98"])


def test_near_duplicates_in_a_later_crawl_are_found_and_no_longer_name_the_document(place, workdir):
    (first,) = all_runs(workdir)
    text = next(row["text"] for row in texts() if row["id"] == NAME)
    backwards = [" ".join(reversed(row["text"].split())) for row in texts()[:6]]
    rows = [{"id": f"novo-{n}", "text": one} for n, one in enumerate(backwards)]
    rows.append({"id": "parecido-1", "text": text.replace("morar", "viver", 1)})
    (place / "novo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    against = f"neardup.against=[work/runs/{first.id}]"
    go(workdir, place, "sources=[{path: novo.jsonl}]", against)
    newest = all_runs(workdir)[0]
    (dropped,) = [r for r in show(manifests(workdir, newest), True) if r["name"] == "parecido-1"]
    (known,) = ids_of(workdir, "parecido-1")
    assert dropped["drop_reason"] == "near-duplicate" and dropped["jaccard"] > 0.8
    asked = read_wanted((NAME,), (), ())
    assert known in forget(workdir, asked, False, "", True, print)["near_duplicates"]
    take_down(workdir, ids=(NAME,), near=True)
    assert holders(workdir.root, ["Maria Joaquina", "parecido-1", known]) == set()
    assert holders(workdir.root, [dropped["duplicate_of"]["id"]]) == set()
    assert verify_all(workdir)[1] == []


def test_the_list_and_the_receipt_hold_no_text_and_the_key_is_private(workdir):
    known = ids_of(workdir, NAME)
    receipt = take_down(workdir, ids=tuple(known))
    folder = workdir.root / "takedown"
    assert holders(folder, ["Maria", "encantada", URL, NAME, *known]) == set()
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    saved = json.loads(Path(receipt["receipt"]).read_text())
    assert saved["reason"] == "asked" and saved["time"].startswith("20")
    assert {row["stage"] for row in saved["rewritten"]} >= {"clean", "exact", "split", "pack"}
    assert any("source files" in what for what in saved["not_reached"])


def test_a_file_of_lines_matches_ids_urls_and_whole_lines_of_text(workdir, tmp_path):
    line = texts()[11]["text"].upper()
    listed = tmp_path / "list.txt"
    listed.write_text(f"\ufeff{URL}\r\n\n{line}\ndoc-20\na casa\n", encoding="utf-8")
    receipt = take_down(workdir, files=(listed,), near=False)
    assert receipt["documents"] == 3
    assert ids_of(workdir, "doc-11", "doc-20", NAME) == []


def test_what_is_not_there_is_said_and_changes_nothing(workdir, tmp_path):
    before = holders(workdir.root, ["Maria Joaquina"])
    with pytest.raises(RecipeError, match="No such document"):
        take_down(workdir, ids=("nobody",))
    with pytest.raises(RecipeError, match="No such document"):
        forget(workdir, read_wanted(("nobody",), (), ()), False, "", True, print)
    with pytest.raises(RecipeError, match="Forget which"):
        take_down(workdir)
    with pytest.raises(RecipeError, match="Cannot read the file"):
        take_down(workdir, files=(tmp_path / "none.txt",))
    assert forget(workdir, read_wanted((NAME,), (), ()), False, "", True, print)["dry_run"]
    assert holders(workdir.root, ["Maria Joaquina"]) == before


def test_samples_are_blanked_and_the_steps_of_training_are_named(workdir):
    from mutirao.core.model_size import resolve
    from train_jobs.loader import Loader

    (run,) = all_runs(workdir)
    pack = manifests(workdir, run)["pack"]
    directory = workdir.artefact("evaluate", "made-up")
    directory.mkdir(parents=True)
    samples = [{"prompt": SECRET[:40], "continuation": " e"}, {"prompt": "a", "continuation": "b"}]
    (directory / "samples.json").write_text(json.dumps({"format": 1, "samples": samples}))
    content = {"stage": "evaluate", "inputs": {"pack": pack.content_hash}, "parts": []}
    commit(directory, content, {})
    run.stages["train"] = {"key": "made-up", "status": "done"}
    run.save()
    (run.directory / "checkpoints" / "step-00000010").mkdir(parents=True)
    recipe = run.recipe()
    context = resolve(recipe.model, pack.content["info"]["vocab_size"]).context

    def batches() -> list[np.ndarray]:
        loader = Loader(read_manifest(pack.directory), recipe, context)
        steps = -(-loader.total // recipe.train.global_batch)
        return [loader.batch(step).labels for step in range(steps)]

    before = batches()
    receipt = take_down(workdir, ids=("doc-3",), near=False)
    after = batches()
    changed = [s for s in range(len(before)) if not np.array_equal(before[s], after[s])]
    (row,) = receipt["trained"]
    assert row["steps"] == [changed[0] + 1, changed[-1] + 1]
    assert row["checkpoints"] == ["step-00000010"] and row["finished"]
    take_down(workdir, ids=(NAME,), near=False)
    kept = json.loads((directory / "samples.json").read_text())["samples"]
    assert kept == [{"prompt": "", "continuation": ""}, samples[1]]


def test_forks_of_a_run_that_was_trained_on_a_document_are_named_with_their_own_forks(workdir):
    (run,) = all_runs(workdir)
    run.stages["train"] = {"key": "made-up", "status": "done"}
    run.save()

    def fork(name: str, folder: Path, step: int | None) -> Path:
        directory = workdir.run(name)
        (directory / "checkpoints" / "step-00000004").mkdir(parents=True)
        write_json(directory / "run.json", {**run.record, "id": name, "stages": {}})
        origin = {"format": 1, "from": "", "folder": str(folder), "sha256": "", "step": step}
        write_json(directory / "origin.json", {**origin, "streams": None})
        return directory

    def named(**asked) -> dict[str, str | None]:
        rows = forget(workdir, read_wanted(**asked), False, "", True, print)["trained"]
        return {row["run"]: row.get("through") for row in rows}

    asked = {"ids": ("doc-3",), "urls": (), "files": ()}
    (row,) = forget(workdir, read_wanted(**asked), False, "", True, print)["trained"]
    first = row["steps"][0]
    checkpoints = run.directory / "checkpoints"
    one = fork("later-11111111", checkpoints / f"step-{first:08d}", first)
    fork("before-22222222", checkpoints / f"step-{first - 1:08d}", first - 1)
    fork("tuned-33333333", one / "model", None)  # a Llama: the fork's exported model
    fork("stranger-44444444", workdir.root / "elsewhere", None)
    want = {run.id: None, "later-11111111": run.id, "tuned-33333333": "later-11111111"}
    assert named(**asked) == want
    receipt = take_down(workdir, near=False, **asked)
    rows = {row["run"]: row for row in receipt["trained"]}
    assert list(rows) == list(want)
    assert rows["tuned-33333333"]["checkpoints"] == ["step-00000004"]
