"""A unit that dies anywhere goes on after its last full shard, and its bytes are the same."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_jobs.clean import _items
from data_jobs.cleaning import clean_sink, clean_unit
from data_jobs.read import readers
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import read_ipc

FORMATS = ["jsonl", "jsonl.gz", "txt", "csv", "parquet", "warc"]


class Death(BaseException):
    """As SIGKILL: nothing catches it."""


def rows_of(helpers, count: int) -> list[dict]:
    return [{"id": k, "text": f"{k} " + helpers.sentence(k, 40)} for k in range(count)]


def source(helpers, folder, form: str, count: int = 60) -> str:
    """A file with a bad record after every third good one where the format can hold it."""
    rows = rows_of(helpers, count)
    lines = [json.dumps(row).encode() for row in rows]
    bad = [line if k % 3 else line + b"\n{bad" for k, line in enumerate(lines)]
    name = f"all.{form}"
    path = folder / name
    if form == "jsonl":
        path.write_bytes(b"\n".join(bad) + b"\n")
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(b"\n".join(bad)))
    elif form == "txt":
        bad_or_blank = (b"\ncaf\xe9", b"\n", b"\n")
        ends = [bad_or_blank[k % 3] if k % 20 == 0 else b"" for k in range(1_500)]
        book = [helpers.sentence(k, 40).encode() + end for k, end in enumerate(ends)]
        path.write_bytes(b"\n".join(book))
    elif form == "csv":
        cells = [f'{row["id"]},"{row["text"]}\nsegunda"' for row in rows]
        path.write_text("\n".join(["id,text", *cells, "1,2,3"]) + "\n")
    elif form == "parquet":
        texts = [row["text"] if row["id"] % 3 else None for row in rows]
        pq.write_table(pa.table({"text": texts}), path, row_group_size=7)
    else:
        records = [_record(row["text"], row["id"] % 3 == 0) for row in rows]
        path.write_bytes(b"".join(records))
    return name


def _record(text: str, image: bool) -> bytes:
    kind = "image/png" if image else "text/plain"
    body = text.encode()
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: {kind}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (len(body), body)


def items_of(helpers, root, form: str, piece_bytes: int = 1 << 20) -> list[dict]:
    recipe = Recipe(
        sources=[{"path": source(helpers, root, form), "name": "all"}],
        ingest={"max_quarantined": 1, "piece_bytes": piece_bytes},
        clean={
            "shard_bytes": 60_000 if form == "txt" else 1_500,
            "boilerplate": False,
            "personal_data": "keep",
        },
    )
    done = helpers.run_stages(root, recipe, "ingest")
    return _items(helpers.make_job(root, "clean", recipe, done))


def written(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("form", FORMATS)
def test_death_after_any_part_leaves_the_same_bytes(helpers, tmp_path, monkeypatch, form):
    monkeypatch.setattr(clean_sink, "REJECT_ROWS", 7)
    monkeypatch.setattr(clean_unit, "BATCH_DOCUMENTS", 5)
    (item,) = items_of(helpers, tmp_path, form)
    calm = tmp_path / "calm"
    calm.mkdir()
    clean_unit.clean_unit({**item, "directory": str(calm)})
    parts = [name for name in written(calm) if name.endswith(".arrow")]
    assert sum(name.startswith("text") for name in parts) >= 3
    assert sum(name.startswith("rejects") for name in parts) >= (1 if form == "csv" else 2)
    write = clean_sink.write_part
    for number, deaths in enumerate(([1], [2, 1], [len(parts) - 1], [1] * 5)):
        stormy = tmp_path / f"stormy{number}"
        stormy.mkdir()
        for allowed in deaths:
            left = [allowed]

            def mortal(directory, name, *rest, left=left):
                if not left[0]:
                    raise Death
                left[0] -= 1
                return write(directory, name, *rest)

            monkeypatch.setattr(clean_sink, "write_part", mortal)
            with pytest.raises(Death):
                clean_unit.clean_unit({**item, "directory": str(stormy)})
        monkeypatch.setattr(clean_sink, "write_part", write)
        monkeypatch.setattr(clean_unit, "BATCH_DOCUMENTS", (3, 4, 8, 1_000)[number])
        clean_unit.clean_unit({**item, "directory": str(stormy)})
        assert written(stormy) == written(calm)


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz"])
def test_what_was_read_before_is_not_parsed_again(helpers, tmp_path, monkeypatch, form):
    (item,) = items_of(helpers, tmp_path, form)
    whole = clean_unit.clean_unit(item)
    (tmp_path / "store/clean/key" / "rejects-00000.arrow.part.json").unlink()
    parsed = []
    parse = readers.READERS["jsonl"]

    def counted(piece, options):
        for one in parse(piece, options):
            parsed.append(one.position)
            yield one

    monkeypatch.setitem(readers.READERS, "jsonl", counted)
    assert clean_unit.clean_unit(item) == whole
    last = [part["info"]["last"][0] for part in whole["text"] if "last" in part["info"]][-1]
    assert parsed and min(parsed) == last + 1


@pytest.mark.parametrize("form", ["jsonl", "txt", "csv", "parquet"])
def test_pieces_change_no_document_and_no_id(helpers, tmp_path, form):
    found = []
    for piece_bytes in (1_000_000_000, 100_000 if form == "txt" else 1_000):
        root = tmp_path / str(piece_bytes)
        root.mkdir()
        items = items_of(helpers, root, form, piece_bytes)
        results = [clean_unit.clean_unit(item) for item in items]
        rows = []
        for kind, columns in (("text", ["id", "text"]), ("rejects", ["position", "reason"])):
            names = [part["path"] for result in results for part in result[kind]]
            tables = [read_ipc(root / "store/clean/key" / n).select(columns) for n in names]
            rows.append([row for table in tables for row in table.to_pylist()])
        found.append((len(items), rows))
    (one, whole), (many, cut) = found
    assert one == 1 and many > 2
    assert cut == whole and len(whole[0]) > 5


def test_an_object_across_a_piece_border_is_read_once(helpers, tmp_path):
    """Piece borders fall inside lines; each line belongs to the piece in which it starts."""
    rows = rows_of(helpers, 30)
    (tmp_path / "a.jsonl").write_bytes(helpers.jsonl(rows))
    for piece_bytes in (1_000, 1_001, 1_337, 5_000):
        root = tmp_path / str(piece_bytes)
        root.mkdir()
        recipe = Recipe(
            sources=[{"path": str(tmp_path / "a.jsonl")}], ingest={"piece_bytes": piece_bytes}
        )
        done = helpers.run_stages(root, recipe, "clean")
        paths = done["clean"].paths("text-")
        names = [n for p in paths for n in read_ipc(p).column("name").to_pylist()]
        assert names == [str(k) for k in range(30)]
        assert done["ingest"].counts["files"] == 1 and done["ingest"].counts["pieces"] > 1
