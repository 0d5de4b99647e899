"""`mutirao data neardup`, `decontaminate`, `tokenizer`, `pack`: each over the result of another."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from mutirao.cli.common import run_guarded
from mutirao.cli.main import cli
from mutirao.core.manifest import read_manifest
from mutirao.core.schemas import read_ipc
from mutirao.run.plain_stages import plan_stages

SENTENCE = (
    "a casa da praia que o pescador fez com madeira do mato para morar e não sair mais dela em "
    "dias de chuva como os que vieram depois por causa do vento sul na costa"
)
STOCK = SENTENCE.split()
NOTICE = (
    "Este aviso legal repete-se em todas as páginas do sítio e não diz nada de novo a quem já o "
    "leu antes, por isso pode sair sem dano algum do texto."
)
CHAIN = (
    "neardup texts.jsonl --output near --threshold 0.7",
    "decontaminate near --output pure --against tests.txt",
    "tokenizer pure --output words --vocab-size 420",
    "pack words --output tokens",
    "neardup new.jsonl --output later --threshold 0.7 --against near",
)


def texts() -> dict[str, str]:
    dice = random.Random(4)
    found = {}
    for number in range(40):
        words = [dice.choice(STOCK) + (str(number) if k % 9 == 0 else "") for k in range(70)]
        found[f"doc-{number}"] = " ".join(words) + f".\n\n{NOTICE}\n\nFim do número {number}."
    found["igual"] = found["doc-3"].replace("casa", "Casa")
    found["perto"] = found["doc-5"].replace("chuva", "sol", 1) + " E mais nada."
    return found


def rows_of(documents: dict[str, str]) -> str:
    return "".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in documents.items())


def call_in(folder: Path, *words: str) -> int:
    with contextlib.chdir(folder):
        return run_guarded(lambda: cli.main(list(words), "mutirao", standalone_mode=False))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    documents = texts()
    (folder / "texts.jsonl").write_text(rows_of(documents))
    (folder / "tests.txt").write_text(documents["doc-9"].split("\n")[0] + "\n")
    new = {
        "novo": " ".join(reversed(documents["doc-1"].split())),
        "antigo": documents["doc-7"].replace("praia", "costa", 1),
    }
    (folder / "new.jsonl").write_text(rows_of(new))
    for line in CHAIN:
        assert call_in(folder, "data", *line.split(), "--quiet") == 0, line
    return folder


@pytest.fixture
def call(made, command, monkeypatch):
    """call(words...) -> (exit code, stdout, stderr), in the folder of the chain."""
    monkeypatch.chdir(made)

    return command


def rows(done) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(one) for one in done.out.splitlines()]


def stage_of(folder: Path, stage: str):
    (place,) = (folder / "store" / stage).iterdir()
    manifest = read_manifest(place)
    assert manifest is not None
    return manifest


def test_every_dropped_document_names_the_one_that_stays_and_their_jaccard(made, call):
    dropped = {
        row["name"]: row for row in rows(call("data", "show", "near", "--dropped", "--json"))
    }
    kept = {row["id"]: row for row in rows(call("data", "show", "near", "--json"))}
    assert len(dropped) == 2 and len(kept) == 40
    (equal,) = {"igual", "doc-3"} & set(dropped)
    (near,) = {"perto", "doc-5"} & set(dropped)
    assert dropped[equal]["drop_reason"] == "exact-duplicate" and dropped[equal]["jaccard"] == 1
    assert dropped[near]["drop_reason"] == "near-duplicate" and 0.7 <= dropped[near]["jaccard"] < 1
    for row in dropped.values():
        other = row["duplicate_of"]
        assert other["id"] in kept and kept[other["id"]]["name"] == other["name"]
        assert (other["shard"], other["row"]) != (row["shard"], row["row"])
    assert all(row["duplicate_of"] is row["jaccard"] is None for row in kept.values())
    said = call("data", "show", "near", "--dropped").out
    assert "jaccard 0." in said and max(map(len, said.splitlines())) <= 79


def test_explain_names_the_verified_near_documents_and_the_cluster(call):
    value = json.loads(call("data", "explain", "near", "perto", "--json").out)
    stage = value["stages"][-1]
    assert stage["stage"] == "neardup" and stage["edges"] == 1
    assert stage["values"]["cluster_size"] == 2 and stage["near"][0]["name"] == "doc-5"
    dropped = "perto" if not value["kept"] else "doc-5"
    said = call("data", "explain", "near", dropped).out
    assert "verified near: 1 in a cluster of 2" in said and "stays in its place" in said
    assert max(map(len, said.splitlines())) <= 79


def test_explain_says_which_stages_did_not_look_at_what_was_dropped_before(call):
    (equal,) = {
        row["name"]
        for row in rows(call("data", "show", "near", "--dropped", "--json"))
        if row["drop_reason"] == "exact-duplicate"
    }
    value = json.loads(call("data", "explain", "near", equal, "--json").out)
    looked = {stage["stage"]: stage["looked_at"] for stage in value["stages"]}
    assert looked == {"exact": True, "neardup": False}
    said = call("data", "explain", "near", equal).out
    assert "neardup        not looked at, dropped before" in said
    value = json.loads(call("data", "explain", "near", "doc-1", "--json").out)
    assert value["kept"] and all(stage["looked_at"] for stage in value["stages"])


def test_each_command_sees_what_the_ones_before_kept_and_ids_stay(made, call):
    first = {row["id"] for row in rows(call("data", "show", "near", "--json"))}
    last = rows(call("data", "show", "tokens", "--json"))
    assert {row["id"] for row in last} < first and len(last) == 39
    reasons = {}
    for row in rows(call("data", "show", "tokens", "--dropped", "--json")):
        reasons[row["drop_reason"]] = row["name"]
    assert reasons.keys() == {"exact-duplicate", "near-duplicate", "evaluation-text"}
    assert reasons["evaluation-text"] == "doc-9"
    assert {row["side"] for row in last} == {"train", "heldout"}
    again = call("data", "pack", "words", "--output", "tokens")
    assert again.code == 0 and "Nothing to do" in again.err
    assert "39 documents in, 39 kept" in again.out and max(map(len, again.out.splitlines())) <= 80


def test_the_tokens_decode_to_the_kept_texts_and_the_tokenizer_opens_by_its_short_path(made, call):
    tokenizer = Tokenizer.from_file(str(made / "words" / "tokenizer" / "tokenizer.json"))
    pack = stage_of(made / "tokens", "pack")
    ids = [
        read_ipc(path, "tokens").column("token").to_pylist()
        for path in pack.paths()
        if path.name.endswith(".tokens.arrow")
    ]
    eos = pack.content["info"]["eos_id"]
    decoded = set()
    for stream in ids:
        text = tokenizer.decode(stream, skip_special_tokens=False)
        decoded |= set(text.split(tokenizer.decode([eos], skip_special_tokens=False))) - {""}
    kept = rows(call("data", "show", "tokens", "--json"))
    assert decoded == {row["text"] for row in kept} and len(decoded) == 39


def test_a_later_crawl_is_compared_with_an_earlier_result(made, call):
    (row,) = rows(call("data", "show", "later", "--dropped", "--json"))
    assert row["name"] == "antigo" and row["jaccard"] > 0.8
    earlier = {one["id"]: one for one in rows(call("data", "show", "near", "--json"))}
    other = row["duplicate_of"]
    assert other["against"] == "near" and earlier[other["id"]]["name"] == "doc-7"
    place = earlier[other["id"]]
    assert (other["shard"], other["row"]) == (place["shard"], place["row"])
    said = call("data", "explain", "later", "antigo").out
    assert "doc-7 of near" in said


def test_repeated_paragraphs_are_cut_alike_before_and_after_split(made, call):
    words = ["--set", "neardup.paragraphs=drop", "--quiet"]
    assert call("data", "neardup", "texts.jsonl", "--output", "cut", *words).code == 0
    before = rows(call("data", "show", "cut", "--json"))
    assert sum("aviso legal" in row["text"] for row in before) == 1
    assert all(row["text"].split("\n\n")[-1].startswith("Fim do número") for row in before)
    assert call("data", "tokenizer", "cut", "--output", "cutwords", "--quiet").code == 0
    after = rows(call("data", "show", "cutwords", "--json"))
    assert [row["text"] for row in after] == [row["text"] for row in before]
    for name in ("cut", "cutwords"):
        call("data", "export", name, "--format", "jsonl", "--output", f"{name}.jsonl")
    assert (made / "cut.jsonl").read_bytes() == (made / "cutwords.jsonl").read_bytes()
    short = next(row for row in before if "aviso legal" not in row["text"])
    assert "without some of its paragraphs" in call("data", "explain", "cut", short["id"]).out


def test_a_duplicate_of_a_duplicate_is_followed_to_the_one_that_stays(made, call, tmp_path):
    text = texts()["doc-2"]
    longest = text.replace("madeira", "pedra", 1) + " E mais do que isso ninguém sabe dizer."
    (tmp_path / "c.jsonl").write_text(rows_of({"a": text, "b": text.upper(), "c": longest}))
    out = str(tmp_path / "out")
    assert call("data", "neardup", str(tmp_path / "c.jsonl"), "--output", out, "--quiet").code == 0
    dropped = rows(call("data", "show", out, "--dropped", "--json"))
    (equal,) = [row for row in dropped if row["drop_reason"] == "exact-duplicate"]
    stage = json.loads(call("data", "explain", out, equal["id"], "--json").out)["stages"][0]
    assert stage["duplicate_of"]["stage"] == "neardup"
    assert stage["in_the_end"]["name"] == "c" and stage["in_the_end"]["stage"] == ""
    assert "stays in the end:   0:2 c" in call("data", "explain", out, equal["id"]).out


def test_token_files_are_packed_and_other_content_is_not_taken_for_the_same(made, call, tmp_path):
    tokenizer = Tokenizer.from_file(str(made / "words" / "tokenizer" / "tokenizer.json"))
    documents = [[*tokenizer.encode(text).ids, 0] for text in texts().values()]
    np.save(tmp_path / "ids.npy", np.concatenate(documents).astype(np.uint16))
    words = ["data", "pack", str(tmp_path / "ids.npy"), "--pretokenized", "--tokenizer", "words"]
    out = ["--output", str(tmp_path / "out"), "--set", "split.heldout=0.2"]
    done = call(*words, *out, "--json")
    assert done.code == 0, done.err
    streams = json.loads(done.out)["pack"]["info"]["streams"]
    total = sum(s["train"]["tokens"] + s["heldout"]["tokens"] for s in streams)
    assert total == sum(map(len, documents)) and streams[0]["name"] == "ids"
    assert "Nothing to do" in call(*words, *out).err
    assert "holds tokens, no documents" in call("data", "show", str(tmp_path / "out")).err
    np.save(tmp_path / "ids.npy", np.concatenate(documents[1:]).astype(np.uint16))
    changed = call(*words, *out)
    assert changed.code == 2 and "holds another result" in changed.err
    np.save(tmp_path / "ids.npy", np.array([1, 2, 70_000, 0], np.uint32))
    refused = call(*words, "--output", str(tmp_path / "other"))
    assert refused.code == 3 and "70000" in refused.err


def test_another_evaluation_file_of_the_same_name_is_another_result(made, call, tmp_path):
    listed = tmp_path / "t.txt"
    shutil.copy(made / "tests.txt", listed)
    words = [
        "data",
        "decontaminate",
        "near",
        "--output",
        str(tmp_path / "o"),
        "--against",
        str(listed),
    ]
    assert call(*words, "--quiet").code == 0
    listed.write_text(texts()["doc-12"].split("\n")[0])
    done = call(*words)
    assert done.code == 2 and "other files are named now (decontaminate" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("neardup texts.jsonl --output new --threshold 2", "not in the range"),
        ("neardup texts.jsonl --output new --against nowhere", "does not exist"),
        (
            "neardup texts.jsonl --output new --against tokens --set neardup.bands=3",
            "another index",
        ),
        ("neardup near --output near", "the folder given as INPUT"),
        ("neardup near --output new --against near", "dropped for itself"),
        (
            "neardup texts.jsonl --output new --set neardup.quality=words",
            "`mutirao data filter` first",
        ),
        ("neardup nosuch.jsonl --output new", "no such file"),
        ("neardup texts.jsonl --output .", "full of other files"),
        ("decontaminate texts.jsonl --output new", "nothing to compare with"),
        ("decontaminate texts.jsonl --output new --against no.txt", "No such file"),
        ("decontaminate texts.jsonl --output new --against near", "A folder, not a file"),
        ("tokenizer texts.jsonl --output new --kind spm", "not one of"),
        ("tokenizer texts.jsonl --output new --vocab-size 3", "not in the range"),
        ("tokenizer near --output new --set neardup.threshold=0.5", "has no effect"),
        ("pack texts.jsonl --output new", "Which tokenizer"),
        ("pack texts.jsonl --output new --tokenizer near", "holds no tokenizer"),
        ("pack texts.jsonl --output new --tokenizer texts.jsonl", "Not a tokenizer"),
        ("pack texts.jsonl --output new --tokenizer nowhere", "no such tokenizer"),
        ("pack ids.npy --output new --tokenizer words", "tokens, not text"),
        ("pack texts.jsonl --output new --pretokenized", "Which tokenizer"),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_2(words, sentence, made, call):
    done = call("data", *words.split())
    assert done.code == 2, done.err
    assert sentence in done.err and "Traceback" not in done.err
    assert not (made / "new").exists()


def test_written_stages_are_taken_over_only_where_no_decision_is_new():
    found = ("ingest", "clean", "exact", "split", "tokenizer", "pack")
    stages, taken = plan_stages("neardup", found)
    assert stages == ("ingest", "clean", "exact", "neardup") and "split" not in taken
    stages, taken = plan_stages("tokenizer", found)
    assert stages[-2:] == ("split", "tokenizer") and taken[-1] == "split"
    stages, taken = plan_stages("pack", found[:-1])
    assert stages[-1] == "pack" and taken[-1] == "tokenizer"
    assert plan_stages("pack", found[:-1], other_tokenizer=True)[1][-1] == "split"
    stages, taken = plan_stages("pack", ("ingest", "clean", "langid"))
    assert stages == ("ingest", "clean", "langid", "exact", "split", "tokenizer", "pack")
    assert taken == ("ingest", "clean", "langid")
