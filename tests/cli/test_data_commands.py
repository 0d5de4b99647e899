"""`mutirao data` on plain files: judged, seen, explained, exported; wrong input gets a sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mutirao.cli.common import run_guarded
from mutirao.cli.data import data
from mutirao.cli.main import cli

TEXT = (
    "O pescador da vila {n} fez a casa com madeira do mato para morar perto da praia. "
    "Em dias de chuva, {n} vizinhos que vieram depois ficavam na cozinha por causa do vento sul, "
    "e todos diziam que era a casa mais bonita da costa. Assim passaram {n} anos naquele lugar."
)


def line(name: str, text: str, **fields) -> str:
    return json.dumps({"id": name, "text": text, **fields}, ensure_ascii=False)


DOCUMENTS = {f"doc-{n}": TEXT.format(n=n + 2) for n in range(8)}
ROWS = [
    *(line(name, text, url=f"https://a.example/{name}", nr=7) for name, text in DOCUMENTS.items()),
    line("copia", TEXT.format(n=5).replace("da vila", "DA  VILA")),
    line("ingles", "The fisherman of the village built a house with the wood that he had found."),
    line("curto", "Oi, gente."),
    '{"id": "quebrado", "text": ',
]


FIELDS = ("id", "lang", "lang_score", "drop_reason", "text", "source", "name", "url", "license")
FIELDS += ("kind", "stage")


@pytest.fixture
def call(command, tmp_path, monkeypatch):
    """call(words...) -> (exit code, stdout, stderr), in this process and a folder of its own."""
    monkeypatch.chdir(tmp_path)

    return command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with texts.jsonl, `cleaned` (`data clean` over it) and `filtered` (over that)."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts.jsonl").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    with contextlib.chdir(folder):
        for words in (
            "clean texts.jsonl --output cleaned --language pt --set ingest.max_quarantined=0.5",
            "filter cleaned --output filtered",
        ):
            words = ["data", *words.split(), "--quiet"]
            assert run_guarded(lambda w=words: cli.main(w, "mutirao", standalone_mode=False)) == 0
    return folder


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def rows(done) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(one) for one in done.out.splitlines()]


def all_commands(group: click.Group, words: tuple[str, ...] = ()):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))
        yield (*words, name)


def test_help_of_every_command_fits_80_columns(call):
    commands = list(all_commands(cli))
    assert ("data", "forget") in commands and len(commands) > 30
    for words in commands:
        done = call(*words, "--help")
        assert done.code == 0 and max(map(len, done.out.splitlines())) <= 80, words


def test_counts_and_next_commands_are_printed_and_again_does_nothing(place, call):
    words = ["data", "clean", "texts.jsonl", "--output", "cleaned", "--language", "por"]
    again = call(*words, "--set", "ingest.max_quarantined=0.6")  # an execution field
    assert again.code == 0 and "Nothing to do: cleaned was finished earlier" in again.err
    assert "12 documents in, 11 kept, 1 dropped" in again.out
    assert "invalid-json" in again.out and "mutirao data show cleaned" in again.out
    assert max(map(len, again.out.splitlines())) <= 80
    value = json.loads(call(*words, "--json").out)
    assert (value["documents_in"], value["kept"]) == (12, 11)
    assert value["dropped"] == {"clean": {"invalid-json": 1}}


def test_an_earlier_result_is_input_and_its_ids_stay(place, call):
    before = {row["id"]: row for row in rows(call("data", "show", "cleaned", "--json"))}
    (place / "texts.jsonl").unlink()
    done = call("data", "langid", "cleaned", "--output", "por")
    assert done.code == 0 and "11 documents in, 9 kept, 2 dropped" in done.out
    judged = call("data", "filter", "cleaned", "--output", "good", "--json")
    left = json.loads(judged.out)["kept"]  # the English one is dropped by both: counted once
    assert f"{left} documents in" in call("data", "langid", "good", "--output", "both").out
    done = call("data", "exact", "por", "--output", "once")
    assert "9 documents in, 8 kept, 1 dropped" in done.out
    after = rows(call("data", "show", "once", "--json"))
    assert len(after) == 8 and all(row["lang"] == "por" for row in after)
    for row in after:
        old = before[row["id"]]
        assert all(row[k] == old[k] for k in ("name", "url", "text", "meta", "source"))
    dropped = rows(call("data", "show", "once", "--dropped", "--json"))
    found = {row["name"]: (row["stage"], row["drop_reason"]) for row in dropped if row["name"]}
    (equal,) = {"copia", "doc-3"} & set(found)  # the one with the larger id
    assert found[equal] == ("exact", "exact-duplicate")
    assert found["ingles"] == ("langid", "language") and found["curto"][0] == "langid"


def test_show_prints_a_json_object_a_line_with_whole_text(place, call):
    kept = rows(call("data", "show", "cleaned", "--json"))
    assert len(kept) == 11 and all(set(FIELDS) <= set(row) for row in kept)
    assert kept[0]["text"] == TEXT.format(n=2) and kept[0]["drop_reason"] is None
    assert kept[0]["url"] == "https://a.example/doc-0" and json.loads(kept[0]["meta"]) == {"nr": 7}
    dropped = rows(call("data", "show", "cleaned", "--dropped", "--json"))
    assert [row["drop_reason"] for row in dropped] == ["invalid-json"]
    assert set(FIELDS) <= set(dropped[0]) and "quebrado" in dropped[0]["text"]
    assert len(rows(call("data", "show", "cleaned", "--json", "--limit", "3"))) == 3
    human = call("data", "show", "cleaned").out.splitlines()
    assert len(human) == 20 and max(map(len, human)) <= 79


def test_explain_puts_each_value_beside_its_threshold(place, call):
    done = call("data", "explain", "filtered", "curto")
    assert "DROPS: too-short" in done.out
    marked = [one.split() for one in done.out.splitlines() if one.startswith(" ! words")]
    assert marked[0][1:4] == ["words", "2", ">="] and marked[0][-1] == "too-short"
    assert max(map(len, done.out.splitlines())) <= 79
    value = json.loads(call("data", "explain", "filtered", "doc-3", "--json").out)
    assert value["kept"] and not any(c["drops"] for s in value["stages"] for c in s["checks"])
    broken = rows(call("data", "show", "filtered", "--dropped", "--json"))[-1]
    told = call("data", "explain", "filtered", broken["id"])
    assert told.code == 0 and "dropped by clean: invalid-json" in told.out


def test_explain_tells_what_a_thin_pack_would_drop_by(call, tmp_path):
    (tmp_path / "g.jsonl").write_text(line("a", "Mayma yvypóra ou ko yvy ári ha eteĩcha.") + "\n")
    words = ("--set", "filter.thresholds.max_words=900")
    call("data", "filter", "g.jsonl", "--output", "g", "--language", "gug", *words)
    told = json.loads(call("data", "explain", "g", "a", "--json").out)
    checks = told["stages"][0]["checks"]
    assert told["kept"] and not any(one["drops"] for one in checks)
    would = {one["name"]: one["threshold"] for one in checks if one["would_drop"]}
    assert would["words"] == 20
    assert [one["threshold"] for one in checks if one["name"] == "words"] == [5, 900, 20]
    said = call("data", "explain", "g", "a").out
    assert " ? words" in said and "it would drop: too-short" in said
    assert max(map(len, said.splitlines())) <= 79


def test_export_writes_the_kept_documents_in_each_format(place, call):
    for name in ("k.parquet", "k.jsonl", "k.jsonl.gz", "k.jsonl.zst"):
        kind = name.split(".")[1]
        done = call("data", "export", "cleaned", "--format", kind, "--output", name)
        assert done.code == 0 and "11 documents" in done.out, done.err
    shown = rows(call("data", "show", "cleaned", "--json"))
    table = pq.read_table(place / "k.parquet").to_pylist()
    assert [row["text"] for row in table] == [row["text"] for row in shown]
    assert list(table[0])[:4] == ["id", "text", "source", "name"] and table[0]["messages"] is None
    plain = (place / "k.jsonl").read_bytes()
    assert gzip.decompress((place / "k.jsonl.gz").read_bytes()) == plain
    assert pa.input_stream(place / "k.jsonl.zst", compression="zstd").read() == plain
    first = json.loads(plain.splitlines()[0])
    assert first["meta"] == {"nr": 7} and first["id"] == shown[0]["id"]
    again = ["data", "export", "cleaned", "--format", "jsonl", "--output", "k.jsonl"]
    assert call(*again).code == 2 and call(*again, "--overwrite").code == 0


def test_instruction_documents_keep_their_turns(call, tmp_path):
    turns = [
        {"role": "user", "content": TEXT.format(n=3)},
        {"role": "assistant", "content": "Sim."},
    ]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    words = ["data", "clean", "chat.jsonl", "--output", "chat", "--language", "pt"]
    assert call(*words, "--set", "sources.0.kind=instruction").code == 0
    for kind in ("parquet", "jsonl"):
        call("data", "export", "chat", "--format", kind, "--output", f"chat.{kind}")
    (row,) = pq.read_table(tmp_path / "chat.parquet").to_pylist()
    assert row["messages"] == turns and row["kind"] == "instruction"
    assert json.loads((tmp_path / "chat.jsonl").read_text().splitlines()[0])["messages"] == turns


def test_too_much_damage_is_exit_3_and_the_same_folder_goes_on(call, tmp_path):
    (tmp_path / "bad.jsonl").write_text(f"{ROWS[0]}\n{ROWS[1]}\nnot json at all\n")
    words = ["data", "clean", "bad.jsonl", "--output", "out", "--language", "pt"]
    done = call(*words)
    assert done.code == 3 and "damaged" in done.err and "--set ingest.max_quarantined" in done.err
    unfinished = call("data", "show", "out")
    assert unfinished.code == 2 and "has not finished" in unfinished.err
    done = call(*words, "--set", "ingest.max_quarantined=0.5")
    assert done.code == 0 and "3 documents in, 2 kept" in done.out


def test_ctrl_c_ends_with_130_and_the_same_command_finishes(call, tmp_path, monkeypatch):
    from data_jobs import exact

    (tmp_path / "texts.jsonl").write_text("\n".join(ROWS[:9]) + "\n")
    words = ["data", "exact", "texts.jsonl", "--output", "out", "--language", "pt"]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(exact, "group_unit", interrupted)
        done = call(*words)
    assert done.code == 130 and "Continue with: mutirao" in done.err
    chained = call("data", "filter", "out", "--output", "next")
    assert chained.code == 2 and "not finished" in chained.err
    done = call(*words)
    assert done.code == 0 and "continues (interrupted" in done.err and "8 kept" in done.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("exact texts.jsonl --output cleaned --language pt", "that of `mutirao data clean`"),
        ("clean texts.jsonl --output cleaned --language gl", "language: por_Latn -> glg_Latn"),
        ("clean more.txt --output cleaned --language pt", "other files or another content"),
        ("clean texts.jsonl --output . --language pt", "full of other files"),
        ("clean texts.jsonl --output texts.jsonl --language pt", "is a file"),
        ("clean texts.jsonl --output texts.jsonl/x --language pt", "Cannot write"),
        ("clean texts.jsonl --output new", "Which language"),
        ("clean texts.jsonl --output new --language qqq9", "Not a language code"),
        ("clean nowhere.jsonl --output new --language pt", "no such file"),
        ("clean filtered more.txt --output new", "One result folder"),
        ("exact filtered --output new --language gl", "made for por_Latn"),
        ("exact filtered --output new --set clean.html=keep", "has no effect"),
        ("clean texts.jsonl --output new --language pt --set clean.htm=keep", "html"),
        ("clean --output new", "Missing argument"),
        (
            "filter texts.jsonl --output new --language pt --set filter.thresholds.min_word=3",
            "Did you mean min_words",
        ),
        (
            "langid texts.jsonl --output new --language pt --set langid.varieties=[pt-BX]",
            "Did you mean pt-BR",
        ),
        (
            "langid texts.jsonl --output new --language pt --set langid.model=texts.jsonl",
            "Not a fastText model",
        ),
        ("langid texts.jsonl --output new --language qqq", "does not know qqq"),
        ("show nothing", "nothing is no folder"),
        ("show no/such", "no such folder"),
        ("show ./empty", "holds no result"),
        ("explain filtered ffffffffffff", "No such document"),
        ("export filtered --format csv --output x.csv", "no such format"),
        ("export filtered --format jsonl --output x.parquet", "does not fit"),
        ("export filtered --format jsonl --output texts.jsonl", "a file already"),
        ("export filtered --format jsonl --output empty", "is a folder"),
        ("export filtered --format jsonl --output texts.jsonl/x.jsonl", "Cannot write"),
        ("forget --id x --workdir filtered", "No such document"),
        ("forget", "Forget which documents"),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_2(words, sentence, place, call):
    (place / "empty").mkdir()
    (place / "more.txt").write_text(TEXT)
    done = call("data", *words.split())
    assert done.code == 2, done.err
    assert sentence in done.err and "Traceback" not in done.err
    assert not (place / "new").exists()


def test_a_result_folder_is_a_workdir_from_which_documents_are_forgotten(place, call):
    done = call("data", "forget", "--workdir", "cleaned", "--url", "https://a.example/doc-4")
    assert done.code == 0 and "forgot 1 document," in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert len(rows(call("data", "show", "cleaned", "--json"))) == 10
    assert call("store", "verify", "--workdir", "cleaned").code == 0
    call("data", "langid", "cleaned", "--output", "por")
    assert "doc-4" not in {row["name"] for row in rows(call("data", "show", "por", "--json"))}


def test_a_rejected_line_is_forgotten_by_its_id(place, call):
    reject = rows(call("data", "show", "cleaned", "--dropped", "--json"))[-1]
    assert reject["drop_reason"] == "invalid-json" and "quebrado" in reject["text"]
    words = ["data", "forget", "--workdir", "cleaned", "--id", reject["id"], "--id", "nobody-7"]
    done = call(*words)
    assert done.code == 0 and "forgot 1 document," in done.out
    assert "Of what was asked for, 1 found no document" in done.out
    files = [path for path in (place / "cleaned").rglob("*") if path.is_file()]
    assert not [path for path in files if b"quebrado" in path.read_bytes()]


def test_lang_new_tells_what_it_left_out_and_refuses_a_file_as_folder(place, call):
    done = call("lang", "new", "yrl", "texts.jsonl", "--output", "pack")
    assert done.code == 0 and "Left out of the input: invalid-json 1" in done.err
    done = call("lang", "new", "yrl", "texts.jsonl", "--output", "texts.jsonl")
    assert done.code == 2 and "Cannot write to --output" in done.err
    assert call("lang", "check", "yrl", "texts.jsonl", "--limit", "-1").code == 2


def test_a_data_command_is_not_resumed_as_a_run(place, call):
    made = json.loads((place / "filtered" / "result.json").read_text())["run"]
    done = call("runs", "resume", made, "--workdir", "filtered")
    assert done.code == 2 and "mutirao data filter INPUT... --output" in done.err
    assert not (place / "filtered" / "store" / "train").exists()


def test_a_result_that_lost_a_file_is_made_again(place, call):
    next((place / "filtered" / "store" / "filter").rglob("filter-*.arrow")).unlink()
    done = call("data", "filter", "cleaned", "--output", "filtered")
    assert "Nothing to do" not in done.err


def test_two_files_of_the_same_name_are_two_sources(call, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.txt").write_text(f"{TEXT} {folder}")
    done = call("data", "clean", "a/t.txt", "b/t.txt", "--output", "out", "--language", "pt")
    assert done.code == 0, done.err
    assert {row["source"] for row in rows(call("data", "show", "out", "--json"))} == {"t-1", "t-2"}


def test_recipes_are_listed_with_pt_corpus(call):
    assert "pt-corpus" in call("recipe", "list").out


def test_click_knows_all_commands():
    assert isinstance(data, click.Group) and set(data.commands) == {
        *("clean", "exact", "langid", "filter"),
        *("neardup", "decontaminate", "tokenizer", "pack"),
        *("show", "explain", "export", "forget"),
    }
