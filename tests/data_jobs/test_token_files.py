"""Ids made elsewhere, in four kinds of file, become the same streams; bad ones are said."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from tokenizers import Tokenizer

from data_jobs.token_files.files import token_file_hashes, token_files
from data_jobs.token_files.pack_tokens import token_items
from made_up_pack import documents_of, kept_text, made_tokenizer, run_pack
from mutirao.core.errors import DataError, RecipeError
from mutirao.core.job import StageJob
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe

EOS = 0


def texts(count: int = 120) -> list[list[int]]:
    """Ids of texts of many lengths, none with an end of text; one stands there twice."""
    dice = np.random.default_rng(3)
    made = [dice.integers(1, 250, dice.integers(1, 60)).tolist() for _ in range(count)]
    return [*made, made[0]]


def rows_with_ends() -> list[list[int]]:
    return [[*text, EOS] for text in texts()]


def flat() -> np.ndarray:
    return np.concatenate(rows_with_ends())


def write_parquet(path: Path, rows, kind=None, groups: int = 40) -> Path:
    column = pa.array(rows, kind or pa.list_(pa.int64()))
    pq.write_table(pa.table({"other": range(len(rows)), "input_ids": column}), path,
                   row_group_size=groups)  # fmt: skip
    return path


def write_megatron(path: Path, rows, code: int = 8, documents: list[int] | None = None) -> Path:
    dtype = {3: "<i2", 4: "<i4", 8: "<u2"}[code]
    arrays = [np.array(row, dtype) for row in rows]
    path.write_bytes(b"".join(array.tobytes() for array in arrays))
    sizes = np.array([len(row) for row in rows], "<i4")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype("<i8") * np.dtype(dtype).itemsize
    ends = np.array(documents or range(len(rows) + 1), "<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(rows), len(ends))
    path.with_suffix(".idx").write_bytes(head + sizes.tobytes() + starts.tobytes() + ends.tobytes())
    return path


def write_npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def fixed(rows: list[int] | np.ndarray, width: int = 64) -> np.ndarray:
    """Rows of one length that cut texts, as trainers make them."""
    padded = np.concatenate([rows, np.zeros(-len(rows) % width, int)])
    return padded.reshape(-1, width)


KINDS = {
    "parquet": lambda d: (write_parquet(d / "a.parquet", rows_with_ends()), "present"),
    "parquet without ends": lambda d: (write_parquet(d / "a.parquet", texts()), "add"),
    "large lists": lambda d: (
        write_parquet(d / "a.parquet", texts(), pa.large_list(pa.uint16())), "add"),
    "lists of one length": lambda d: (
        write_parquet(d / "a.parquet", fixed(flat()).tolist(), pa.list_(pa.int32(), 64), 3),
        "present"),
    "one large row group": lambda d: (
        write_parquet(d / "a.parquet", rows_with_ends(), groups=1000),
        "present",
    ),
    "flat npy": lambda d: (write_npy(d / "a.npy", flat().astype("<u2")), "present"),
    "big-endian npy": lambda d: (write_npy(d / "a.npy", flat().astype(">i4")), "present"),
    "rows of npy": lambda d: (write_npy(d / "a.npy", fixed(flat()).astype("i8")), "present"),
    "columns first": lambda d: (
        write_npy(d / "a.npy", np.asfortranarray(fixed(flat()).astype("i4"))), "present"),
    "megatron": lambda d: (write_megatron(d / "a.bin", rows_with_ends()), "present"),
    "megatron without ends": lambda d: (write_megatron(d / "a.bin", texts(), 4), "add"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return made_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def recipe_for(*given, stream_bytes: int = 1_000, **fields) -> Recipe:
    return Recipe.model_validate(
        {
            "tokenizer": {"path": "tokenizer"},
            "pack": {"stream_bytes": stream_bytes},
            "split": {"heldout": 0.2},
            "tokenized": [{"path": str(path), "eos": eos} for path, eos in given],
            **fields,
        }
    )


def all_texts(made, side, stream=0) -> list[list[int]]:
    return [document[:-1].tolist() for document in documents_of(made, side, stream)]


def is_heldout(text: list[int]) -> bool:
    return xxhash.xxh3_64_intdigest(np.array(text, "<u4").tobytes()) < 0.2 * 2**64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream_bytes", [700, 10**6])
def test_every_kind_of_file_gives_its_texts_in_order(tmp_path, tokenizer, kind, stream_bytes):
    """However it is cut into pieces, a text comes out once, whole, on the side of its hash."""
    recipe = recipe_for(KINDS[kind](tmp_path), stream_bytes=stream_bytes)
    made = run_pack(tmp_path, recipe, {"tokenizer": tokenizer})
    assert all_texts(made, "train") == [text for text in texts() if not is_heldout(text)]
    assert all_texts(made, "heldout") == [text for text in texts() if is_heldout(text)]
    assert all(document[-1] == EOS for document in documents_of(made, "train", 0))


@pytest.mark.parametrize(
    "kind", ["parquet", "one large row group", "flat npy", "megatron without ends"]
)
def test_small_blocks_change_nothing(tmp_path, tokenizer, kind, monkeypatch):
    for module in ("read_npy", "read_megatron", "pack_tokens"):
        monkeypatch.setattr(f"data_jobs.token_files.{module}.BLOCK_IDS", 100)
    monkeypatch.setattr("data_jobs.token_files.read_parquet.ROWS", 3)
    made = run_pack(tmp_path, recipe_for(KINDS[kind](tmp_path)), {"tokenizer": tokenizer})
    assert all_texts(made, "train") == [text for text in texts() if not is_heldout(text)]


def test_held_out_texts_have_their_bytes_and_the_numbers_are_said(tmp_path, tokenizer):
    path, eos = KINDS["parquet"](tmp_path)
    made = run_pack(tmp_path, recipe_for((path, eos)), {"tokenizer": tokenizer})
    decoder = Tokenizer.from_file(str(tokenizer.directory / "tokenizer.json"))
    held = [text for text in texts() if is_heldout(text)]
    size = sum(len(decoder.decode(t, skip_special_tokens=False).encode()) for t in held)
    (stream,) = made.content["info"]["streams"]
    assert stream["name"] == "a"
    assert stream["heldout"] == {
        "documents": len(held),
        "tokens": sum(len(text) + 1 for text in held),
        "text_bytes": size,
    }
    assert stream["train"]["text_bytes"] is None
    assert stream["train"]["tokens"] + stream["heldout"]["tokens"] == len(flat())
    assert made.content["info"]["sources"]["heldout"] == {"a": stream["heldout"]["tokens"]}


def test_a_text_without_an_end_at_the_end_of_a_file_is_ended(tmp_path, tokenizer):
    one = write_npy(tmp_path / "1.npy", np.array([5, 6, EOS, 7, 8]))
    two = write_npy(tmp_path / "2.npy", np.array([EOS, 9, 9, EOS]))
    recipe = recipe_for((f"{tmp_path}/*.npy", "present"), split={"heldout": 0.5})
    made = run_pack(tmp_path, recipe, {"tokenizer": tokenizer})
    found = [*all_texts(made, "train"), *all_texts(made, "heldout")]
    assert sorted(found) == [[5, 6], [7, 8], [9, 9]] and one != two


def test_ends_that_stand_there_are_not_doubled_and_empty_rows_are_left_out(tmp_path, tokenizer):
    rows = [[1, 2], [], [3, EOS], None, [EOS], [4, 5]]
    path = write_parquet(tmp_path / "a.parquet", rows, groups=2)
    recipe = recipe_for((path, "add"), split={"heldout": 0.5})
    made = run_pack(tmp_path, recipe, {"tokenizer": tokenizer})
    found = [*all_texts(made, "train"), *all_texts(made, "heldout")]
    assert sorted(found) == [[1, 2], [3], [4, 5]]


def test_sequences_of_one_megatron_document_are_joined(tmp_path, tokenizer):
    rows = [[n, n + 1] for n in range(1, 41)]
    path = write_megatron(tmp_path / "a.bin", rows, documents=list(range(0, 41, 2)))
    recipe = recipe_for((path, "add"), split={"heldout": 0.5})
    made = run_pack(tmp_path, recipe, {"tokenizer": tokenizer})
    found = sorted([*all_texts(made, "train"), *all_texts(made, "heldout")])
    assert found == [[n, n + 1, n + 1, n + 2] for n in range(1, 41, 2)]


def test_sequences_that_lie_apart_are_found(tmp_path, tokenizer):
    """The order of an index need not be that of the .bin."""
    path = write_megatron(tmp_path / "a.bin", texts()[:40])
    index = path.with_suffix(".idx")
    data = bytearray(index.read_bytes())
    at = 34
    sizes = np.frombuffer(data, "<i4", 40, at)[::-1].copy()
    starts = np.frombuffer(data, "<i8", 40, at + 160)[::-1].copy()
    data[at : at + 160], data[at + 160 : at + 480] = sizes.tobytes(), starts.tobytes()
    index.write_bytes(data)
    made = run_pack(tmp_path, recipe_for((path, "add")), {"tokenizer": tokenizer})
    assert all_texts(made, "train") == [t for t in texts()[:40][::-1] if not is_heldout(t)]


def test_text_and_token_files_together_are_streams_in_the_order_of_the_recipe(tmp_path, tokenizer):
    split = kept_text(tmp_path / "split", {"train": [[("t", "a casa")]], "heldout": [[("t", "b")]]})
    recipe = recipe_for(KINDS["parquet"](tmp_path), sources=[{"path": "t.txt", "name": "t"}])
    made = run_pack(tmp_path, recipe, {"tokenizer": tokenizer, "split": split})
    streams = made.content["info"]["streams"]
    assert [stream["name"] for stream in streams] == ["t", "a"]
    assert streams[0]["train"]["text_bytes"] == 6 and streams[1]["train"]["documents"] > 80
    assert all_texts(made, "train", 1) == [text for text in texts() if not is_heldout(text)]


def test_an_interrupted_stage_goes_on_and_gives_the_same_bytes(tmp_path, tokenizer):
    recipe = recipe_for(KINDS["flat npy"](tmp_path))
    first = run_pack(tmp_path, recipe, {"tokenizer": tokenizer})
    lost = first.directory / "heldout-000-00001.tokens.arrow"
    before = lost.read_bytes()
    lost.write_bytes(before[:50])
    assert run_pack(tmp_path, recipe, {"tokenizer": tokenizer}).content == first.content
    assert lost.read_bytes() == before


def bad(rows, **kind):
    return lambda d: write_parquet(d / "a.parquet", rows, **kind)


def cut(make, size):
    def made(directory):
        path = make(directory)
        path.write_bytes(path.read_bytes()[:size])
        return path

    return made


def index_of(change):
    def made(directory):
        path = write_megatron(directory / "a.bin", rows_with_ends())
        index = path.with_suffix(".idx")
        index.write_bytes(change(index.read_bytes()))
        return path

    return made


def plain(name: str, data: bytes):
    def made(directory):
        (directory / name).write_bytes(data)
        return directory / name

    return made


def npy(array):
    return lambda d: write_npy(d / "a.npy", array)


WRONG = {
    "an id past the vocabulary": (
        bad([[1, EOS], [2, 99_999, 3, 400_000, EOS]]),
        r"id 99999 is none of the tokenizer's \d+; 2 such ids .*row 1, position 1"),
    "a negative id": (npy(np.array([1, EOS, 5, -3, EOS])), r"id -3 .*id number 3"),
    "a negative id in a row": (npy(np.array([[1, EOS], [-3, EOS]])), r"row 1, position 0"),
    "an id of a document": (
        lambda d: write_megatron(d / "a.bin", [[1, EOS], [2, 999, EOS]]),
        r"id 999 .*document 1, position 1"),
    "ids that are fractions": (npy(np.array([1.0, 0.0])), "type float64, not integers"),
    "lists of fractions": (bad([[1.5]], kind=pa.list_(pa.float32())), "float32, not integers"),
    "lists of words": (bad([["a"]], kind=pa.list_(pa.string())), "not integers"),
    "no lists": (bad([1, 2], kind=pa.int64()), "holds int64, not lists"),
    "a null id": (bad([[1, EOS], [2, None]]), "An id is null.*row 1, position 1"),
    "no ends": (bad([[1], [2]]), "does not end with the end-of-text id 0"),
    "no ends in documents": (
        lambda d: write_megatron(d / "a.bin", [[1, EOS], [2, 3]]), "document 1, position 1"),
    "objects": (npy(np.array([1, "a", None], dtype=object)), "holds Python objects"),
    "three dimensions": (npy(np.zeros((2, 2, 2), int)), "has 3 dimensions"),
    "an empty array": (npy(np.zeros((0,), int)), "no ids in the file"),
    "an empty npy": (plain("a.npy", b""), "no ids in the file"),
    "an empty parquet": (plain("a.parquet", b""), "no ids in the file"),
    "a parquet without rows": (bad([]), "no ids in the file"),
    "a cut npy": (cut(npy(flat()), 3000), "cut short at 3,000 of"),
    "a cut header": (cut(npy(flat()), 20), "damaged: no .npy header"),
    "a cut parquet": (cut(bad(rows_with_ends()), 900), "damaged"),
    "a cut bin": (cut(lambda d: write_megatron(d / "a.bin", rows_with_ends()), 900),
                  "it has 900 bytes, its index needs"),
    "another magic": (index_of(lambda data: b"MMIDIDY" + data[7:]), "MMIDIDX"),
    "another version": (index_of(lambda data: data[:9] + b"\2" + data[10:]), "version 2"),
    "another type": (index_of(lambda data: data[:17] + b"\x09" + data[18:]), "type code 9"),
    "floats in a bin": (index_of(lambda data: data[:17] + b"\7" + data[18:]), "float32, not int"),
    "a cut index": (index_of(lambda data: data[:-5]), r"sequences need"),
    "an empty index": (index_of(lambda data: b""), "MMIDIDX"),
    "documents out of order": (index_of(lambda data: data[:-24] + data[-16:-8] + data[-24:-16]
                                        + data[-8:]), "not in order"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path, tokenizer, fault):
    make, words = WRONG[fault]
    with pytest.raises(DataError, match=words) as caught:
        run_pack(tmp_path, recipe_for((make(tmp_path), "present")), {"tokenizer": tokenizer})
    assert str(tmp_path / "a") in caught.value.where and caught.value.hint
    assert caught.value.exit_code == 3


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(self.place),))


def test_nothing_in_a_file_is_unpickled(tmp_path, tokenizer):
    bomb = Bomb()
    bomb.place = str(tmp_path / "exploded")
    path = write_npy(tmp_path / "a.npy", np.array([bomb], dtype=object))
    np.load(path, allow_pickle=True)  # the trap works
    (tmp_path / "exploded").unlink()
    with pytest.raises(DataError, match="Python objects"):
        run_pack(tmp_path, recipe_for((path, "present")), {"tokenizer": tokenizer})
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("files", "path", "words"),
    [
        ([], "gone.npy", "no such file"),
        ([], "*.npy", "pattern matches no file"),
        (["a.bin"], "a.bin", "index beside the .bin is missing"),
        (["a.idx"], "a.idx", "no file"),
        (["a.txt"], "a.txt", "unknown kind of file"),
        (["a.txt"], ".", "no file with ids"),
        ([], "s3://bucket/a.npy", "only files of this machine"),
    ],
)
def test_what_is_not_there_is_said_before_any_work(tmp_path, files, path, words):
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RecipeError, match=words) as caught:
        token_file_hashes(recipe_for((path, "present")), tmp_path)
    assert caught.value.exit_code == 2 and caught.value.hint


def test_an_unknown_column_names_those_that_are_there(tmp_path, tokenizer):
    path = KINDS["parquet"](tmp_path)[0]
    recipe = recipe_for(tokenized=[{"path": str(path), "ids_field": "input_id"}])
    with pytest.raises(RecipeError, match="Did you mean input_ids"):
        run_pack(tmp_path, recipe, {"tokenizer": tokenizer})


@pytest.mark.parametrize("kind", ["parquet", "rows of npy", "megatron"])
def test_units_of_work_are_plain_json(tmp_path, kind):
    """Ray carries them as JSON text."""
    recipe = recipe_for(KINDS[kind](tmp_path))
    job = StageJob("pack", recipe, tmp_path, {}, tmp_path, Progress(quiet=True), False, tmp_path)
    items = token_items(job, {"wide": False}, ["a"])
    assert len(items) > 3 and json.loads(json.dumps(items)) == items


def test_a_pair_may_be_named_by_what_its_names_share_and_a_folder_by_itself(tmp_path):
    write_megatron(tmp_path / "data.bin", texts())
    write_npy(tmp_path / "b.npy", flat())
    names = [[f.path.name for f in token_files(recipe_for((path, "add")), tmp_path)]
             for path in ("data", "data.idx", "data.*", ".")]  # fmt: skip
    assert names == [["data.bin"], ["data.bin"], ["data.bin"], ["b.npy", "data.bin"]]


def test_the_key_follows_content_and_order_not_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_megatron(folder / "a.bin", texts())
    recipe = recipe_for(("a.bin", "add"))
    before = token_file_hashes(recipe, one)
    assert token_file_hashes(recipe, two) == before and list(before) == ["tokens of a"]
    write_megatron(two / "a.bin", texts()[1:])
    assert token_file_hashes(recipe, two) != before
