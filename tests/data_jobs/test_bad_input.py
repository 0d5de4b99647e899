"""Bad input ends in a named reason and a count, or in one clear error; never in a traceback."""

from __future__ import annotations

import gzip
import json

import pytest

from mutirao.core.errors import DataError, RecipeError, UserError
from mutirao.core.schemas import read_ipc

ALL = {"max_quarantined": 1.0}


def rejects(done) -> list[dict]:
    paths = done["clean"].paths("rejects-")
    return [row for path in paths for row in read_ipc(path, "reject").to_pylist()]


def texts(done) -> list[str]:
    paths = done["clean"].paths("text-")
    return [text for path in paths for text in read_ipc(path, "text").column("text").to_pylist()]


def good(helpers, count: int) -> list[dict]:
    return [{"id": i, "text": helpers.sentence(i)} for i in range(count)]


def test_a_missing_file_names_source_and_path(stages):
    with pytest.raises(RecipeError, match=r"Source letters.*no such file[\s\S]*nowhere\.jsonl"):
        stages(sources=[{"name": "letters", "path": "nowhere.jsonl"}], until="ingest")


def test_a_pattern_without_a_match_is_an_error(stages):
    with pytest.raises(RecipeError, match=r"matches no file[\s\S]*\*\.txt"):
        stages(sources=[{"path": "*.txt"}], until="ingest")


def test_an_unreadable_file_is_an_error(stages, tmp_path):
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "moved-away")
    with pytest.raises(RecipeError, match="cannot read"):
        stages(sources=[{"path": "gone.jsonl"}], until="ingest")


def test_an_unknown_suffix_lists_the_known_ones(stages):
    with pytest.raises(RecipeError, match=r"book\.docx[\s\S]*\.jsonl \.ndjson"):
        stages({"book.docx": b"x"}, until="ingest")


def test_files_of_other_kinds_in_a_folder_are_counted_not_read(stages, helpers):
    files = {"in/a.txt": helpers.sentence(1).encode(), "in/x.png": b"1", "in/README.md": b"x"}
    done = stages(files, sources=[{"path": "in"}], until="clean")
    assert done["ingest"].counts["skipped_files"] == {"1": 2}
    assert len(texts(done)) == 1


def test_two_files_of_one_name_are_refused(stages):
    with pytest.raises(RecipeError, match="same name"):
        stages({"x/a.txt": b"x", "y/a.txt": b"y"}, until="ingest")


def test_a_malformed_line_is_quarantined_with_its_place(stages, helpers):
    rows = helpers.jsonl(good(helpers, 3))
    first_line = rows.index(b"\n") + 1
    data = rows[:first_line] + b'{"text": "open\n' + rows[first_line:]
    done = stages({"a.jsonl": data}, ingest=ALL, until="clean")
    (reject,) = rejects(done)
    assert (reject["reason"], reject["position"]) == ("invalid-json", 1)
    assert reject["offset"] == first_line
    assert len(texts(done)) == 3


def test_non_utf8_bytes_cost_one_line_and_no_other(stages, helpers):
    data = helpers.jsonl(good(helpers, 5)).replace(b"caso2n0", b"caso\xe92n0")
    done = stages({"a.jsonl": data}, ingest=ALL, until="clean")
    assert [row["reason"] for row in rejects(done)] == ["invalid-utf8"]
    assert len(texts(done)) == 4


def test_a_truncated_gzip_keeps_what_was_read(stages, helpers):
    data = gzip.compress(helpers.jsonl(good(helpers, 400)), mtime=0)
    done = stages({"a.jsonl.gz": data[: len(data) * 2 // 3]}, ingest=ALL, until="clean")
    assert 100 < len(texts(done)) < 400
    assert [row["reason"] for row in rejects(done)] == ["truncated"]


def test_a_gzip_that_breaks_early_counts_what_it_lost(stages, helpers):
    """Bytes that were never read must not pass for a thousandth of the source."""
    data = bytearray(gzip.compress(helpers.jsonl(good(helpers, 4000)), mtime=0))
    start = len(data) // 10
    data[start : start + 2000] = b"\xff" * 2000
    with pytest.raises(DataError, match="1 unreadable"):
        stages({"a.jsonl.gz": bytes(data)}, until="clean")
    done = stages({"a.jsonl.gz": bytes(data)}, ingest=ALL, until="clean")
    (reject,) = rejects(done)
    assert reject["bytes"] > len(data) // 2 and len(texts(done)) > 100


def test_a_truncated_zstd_is_named(stages, helpers):
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(helpers.jsonl(good(helpers, 4000)))
    data = sink.getvalue().to_pybytes()
    done = stages({"a.jsonl.zst": data[: len(data) * 3 // 4]}, ingest=ALL, until="clean")
    assert 0 < len(texts(done)) < 4000
    assert [row["reason"] for row in rejects(done)] == ["truncated"]


def test_nul_bytes_are_taken_out_or_the_document_rejected(stages, helpers):
    text = helpers.sentence(1)
    rows = [{"text": text[:50] + "\0" + text[50:]}, {"text": "a\0" * 50}]
    done = stages({"a.jsonl": helpers.jsonl(rows)}, ingest=ALL, until="clean")
    assert texts(done) == [text]
    assert [row["reason"] for row in rejects(done)] == ["nul-bytes"]
    assert done["clean"].counts["nul_characters"] == 1


def test_empty_documents_are_counted_and_no_damage(stages, helpers):
    rows = [*good(helpers, 2), {"text": ""}, {"text": " \n\t"}]
    done = stages({"a.jsonl": helpers.jsonl(rows)}, until="clean")
    assert done["clean"].counts["rejected"] == {"empty": 2}
    assert done["clean"].counts["damaged_bytes"] == 0


def test_a_50_mb_line_is_read_past(stages, helpers):
    huge = b'{"text": "' + b"palavra " * 6_500_000 + b'"}\n'
    data = helpers.jsonl(good(helpers, 1)) + huge + helpers.jsonl(good(helpers, 1))
    done = stages({"a.jsonl": data}, until="clean")
    (reject,) = rejects(done)
    assert reject["reason"] == "too-long" and reject["bytes"] == len(huge)
    assert len(reject["snippet"]) <= 200 and len(texts(done)) == 2


def test_a_50_mb_line_is_never_held_in_memory():
    import tracemalloc

    from data_jobs.read.streams import lines

    blocks = (b"x" * (1 << 20) for _ in range(50))
    tracemalloc.start()
    (line,) = list(lines(blocks, limit=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.too_long and line.size == 50 << 20
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": "x"}, "missing-field"),
        ({"text": None}, "not-text"),
        ({"text": 3}, "not-text"),
        (["a"], "not-an-object"),
    ],
)
def test_a_row_without_text_is_quarantined(stages, helpers, row, reason):
    data = helpers.jsonl([*good(helpers, 2), row])
    done = stages({"a.jsonl": data}, ingest=ALL, until="clean")
    assert [found["reason"] for found in rejects(done)] == [reason]


def test_too_much_damage_stops_with_the_first_place_and_the_cure(stages, helpers):
    data = helpers.jsonl([*good(helpers, 5), {"body": helpers.sentence(9)}])
    with pytest.raises(DataError) as caught:
        stages({"letters.jsonl": data}, until="clean")
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "letters is damaged (1 missing-field)" in message
    assert "letters.jsonl:6 missing-field (fields: body)" in message and "text_field" in message
    assert "ingest.max_quarantined" in message


def test_the_first_row_of_a_table_without_a_header_is_in_no_message(stages, helpers):
    rows = f"1;{helpers.sentence(1)}\n2;{helpers.sentence(2)}\n"
    with pytest.raises(DataError, match=r"a\.csv:2 missing-field") as caught:
        stages({"a.csv": rows.encode()}, until="clean")
    assert helpers.sentence(1) not in str(caught.value)


def test_latin1_text_is_told_to_be_converted(stages):
    data = "coração é bom\n".encode("latin-1") * 20
    with pytest.raises(DataError, match="iconv"):
        stages({"a.txt": data}, until="clean")


def test_an_empty_corpus_is_one_error(stages):
    with pytest.raises(DataError, match="hold no document"):
        stages({"a.jsonl": b"", "b.txt": b"  \n"}, until="clean")


def test_a_damaged_parquet_file_is_quarantined(stages, helpers):
    files = {"a.parquet": b"PAR1 nonsense PAR1", "b.txt": helpers.sentence(1).encode()}
    done = stages(files, ingest=ALL, until="clean")
    assert [row["reason"] for row in rejects(done)] == ["unreadable"]


def test_a_corpus_of_one_text_repeated_says_what_happened(stages, helpers):
    rows = [{"text": helpers.sentence(1)}] * 40
    with pytest.raises(
        DataError, match=r"Fewer than two documents are left[\s\S]*exact-duplicate 39"
    ):
        stages(
            {"a.jsonl": helpers.jsonl(rows)},
        )


def test_nothing_kept_lists_the_reasons(stages, helpers):
    rows = helpers.jsonl(good(helpers, 3))
    with pytest.raises(
        DataError, match=r"Fewer than two documents are left[\s\S]*filter too-short 3"
    ):
        stages({"a.jsonl": rows}, filter={"thresholds": {"min_words": 9999}})


def test_a_full_disk_is_one_sentence(stages, helpers, monkeypatch):
    """Every write goes to /dev/full, where the kernel itself says ENOSPC."""
    from mutirao.core import files

    def full(path, mode="r", *rest, **more):
        return open("/dev/full" if "w" in mode else path, mode, *rest, **more)

    monkeypatch.setattr(files, "open", full, raising=False)
    with pytest.raises(UserError, match="disk is full") as caught:
        stages({"a.jsonl": helpers.jsonl(good(helpers, 3))}, until="clean")
    assert caught.value.code == "disk-full"


def test_an_unknown_threshold_names_the_nearest(stages, helpers):
    data = helpers.jsonl(good(helpers, 3))
    with pytest.raises(RecipeError, match="Did you mean min_words"):
        stages({"a.jsonl": data}, filter={"thresholds": {"min_word": 1}}, until="filter")


def test_lone_surrogates_bom_and_crlf_lose_no_line(stages, helpers):
    rows = [json.dumps({"text": helpers.sentence(i) + "\ud800"}) for i in range(3)]
    data = b"\xef\xbb\xbf" + "\r\n".join(rows).encode()
    done = stages({"a.jsonl": data}, until="clean")
    assert len(texts(done)) == 3 and not rejects(done)


def test_nested_and_many_member_gzip_are_read_whole(stages, helpers):
    rows = good(helpers, 4)
    members = b"".join(gzip.compress(helpers.jsonl([row]), mtime=0) for row in rows)
    done = stages({"a.jsonl.gz": gzip.compress(members + b"\0" * 20, mtime=0)}, until="clean")
    assert len(texts(done)) == 4


def test_one_bad_byte_in_ten_thousand_lines_costs_one_line(stages):
    """A reader that decodes block by block lost the other 5,119 lines of such a file."""
    lines = [b'{"text": "linha n\xc3\xbamero %d"}' % k for k in range(10_000)]
    lines[4_999] = lines[4_999].replace(b"\xc3\xba", b"\xfa")
    done = stages({"a.jsonl": b"\n".join(lines)}, until="clean")
    counts = done["clean"].counts
    assert (counts["documents_out"], counts["rejected"]) == (9_999, {"invalid-utf8": 1})
    (reject,) = rejects(done)
    assert reject["position"] == 4_999
    assert reject["offset"] == sum(len(line) + 1 for line in lines[:4_999])


def test_a_bad_byte_in_a_text_file_costs_its_line(stages):
    lines = [f"A linha {k} do livro foi escrita à mão.".encode() for k in range(50)]
    lines[7] = lines[7].replace(b"\xc3\xa0", b"\xe0")
    done = stages({"a.txt": b"\r\n".join(lines)}, ingest=ALL, until="clean")
    (text,) = texts(done)
    assert text.split("\n") == [line.decode() for k, line in enumerate(lines) if k != 7]
    assert [(r["position"], r["reason"]) for r in rejects(done)] == [(7, "invalid-utf8")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_wide_encodings_with_a_byte_order_mark_are_read(stages, helpers, encoding):
    lines = [json.dumps({"text": helpers.sentence(k) + " Ação ✓"}) for k in range(3)]
    data = "\n".join(lines).encode(encoding)
    data = data if encoding != "utf-16-be" else b"\xfe\xff" + data
    files = {"a.jsonl": data, "b.jsonl.gz": gzip.compress(data), "c.txt": data}
    done = stages(files, until="clean")
    assert len(texts(done)) == 7 and not rejects(done)


def test_utf16_without_a_mark_is_told_to_be_converted(stages):
    with pytest.raises(DataError, match="iconv -f UTF-16LE"):
        stages({"a.txt": "A casa da praia.\n".encode("utf-16-le") * 20}, until="clean")


def test_a_half_uploaded_tail_is_one_reject(stages, helpers):
    data = helpers.jsonl(good(helpers, 20))
    done = stages({"a.jsonl": data[:-100]}, ingest=ALL, until="clean")
    assert len(texts(done)) == 19
    assert [(r["reason"], r["position"]) for r in rejects(done)] == [("invalid-json", 19)]


def test_empty_files_beside_good_ones_are_no_error(stages, helpers):
    files = {"a.jsonl": b"", "b.jsonl.gz": gzip.compress(b""), "c.txt": b"", "d.arrow": b""}
    done = stages(files | {"e.jsonl": helpers.jsonl(good(helpers, 2))}, until="clean")
    assert len(texts(done)) == 2 and done["clean"].counts["damaged_bytes"] == 0


def test_a_word_of_2_mb_is_one_document(stages):
    done = stages({"a.jsonl": b'{"text": "' + b"palavra" * 300_000 + b'"}\n'}, until="filter")
    (text,) = texts(done)
    assert len(text) == 2_100_000 and done["filter"].counts["documents_in"] == 1


def test_ids_may_repeat_and_mix_numbers_with_text(stages, helpers):
    rows = [{"id": i, "text": helpers.sentence(k)} for k, i in enumerate((1, "1", 1, None, 2.5))]
    done = stages({"a.jsonl": helpers.jsonl(rows)}, until="clean")
    (path,) = done["clean"].paths("text-")
    table = read_ipc(path, "text")
    assert table.column("name").to_pylist() == ["1", "1", "1", "", "2.5"]
    assert len(set(table.column("id").to_pylist())) == 5


def test_a_column_may_be_null_in_one_file_and_text_in_the_next(stages, helpers, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, author in enumerate((None, "Ana", 7)):
        row = {"text": helpers.sentence(number), "author": author}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{number}.parquet")
    done = stages(sources=[{"path": "*.parquet", "name": "p"}], until="clean")
    metas = [m for p in done["clean"].paths("text-") for m in read_ipc(p)["meta"].to_pylist()]
    assert metas == ['{"author":null}', '{"author":"Ana"}', '{"author":7}']


def test_a_damaged_row_group_costs_its_own_rows(stages, helpers, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    table = pa.table({"text": [helpers.sentence(k, 200) for k in range(30)]})
    plain = {"use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, row_group_size=10, compression="zstd", **plain)
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = middle.data_page_offset + middle.total_compressed_size // 2
    data[start : start + 40] = b"\xff" * 40
    done = stages({"a.parquet": bytes(data)}, ingest=ALL, until="clean")
    assert len(texts(done)) == 20
    (reject,) = rejects(done)
    assert (reject["reason"], reject["position"]) == ("unreadable", 10)
    assert "row group 1, 10 rows" in reject["snippet"]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_a_cut_arrow_file_keeps_its_whole_batches(stages, helpers, tmp_path, form):
    import pyarrow as pa

    table = pa.table({"text": [helpers.sentence(k) for k in range(30)]})
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with new(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    data = (tmp_path / "a.arrow").read_bytes()
    done = stages({"a.arrow": data[: len(data) * 3 // 4]}, ingest=ALL, until="clean")
    assert len(texts(done)) == 20
    assert [(r["reason"], r["position"]) for r in rejects(done)] == [("truncated", 20)]


def test_a_cut_parquet_file_is_named_truncated(stages, helpers, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [helpers.sentence(1)]}), tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    files = {"a.parquet": data[:-20], "b.txt": helpers.sentence(2).encode()}
    sources = [{"path": name} for name in files]
    done = stages(files, sources=sources, ingest=ALL, until="clean")
    (reject,) = rejects(done)
    assert reject["reason"] == "truncated" and reject["bytes"] == len(data) - 20


def test_offsets_beyond_4_gib_are_reached(tmp_path):
    from data_jobs.read.documents import Piece, ReadOptions
    from data_jobs.read.places import Place
    from data_jobs.read.readers import read

    far = 5 << 30
    with open(tmp_path / "a.jsonl", "wb") as file:  # a hole takes no room on the disk
        file.seek(far)
        file.write(b'{"text": "longe"}\n{"text": 1}\n')
    piece = Piece(Place(str(tmp_path / "a.jsonl")), "jsonl", start=far, first=9)
    one, other = read(piece, ReadOptions())
    assert (one.position, one.offset, one.text) == (9, far, "longe")
    assert (other.position, other.offset, other.reason) == (10, far + 18, "not-text")


def test_turns_of_a_conversation_are_cleaned_one_by_one(stages):
    turns = [
        {"role": "system", "content": " \u200b"},
        {"role": "user", "content": "Qual  é\r\na capital? "},
        {"role": "assistant", "content": "Bras\u00edlia." + " E mais nada." * 20 + "\0"},
    ]
    rows = [
        {"messages": turns},
        {"messages": [*turns[:2], {"role": "assistant", "content": "\u200b"}]},
    ]
    files = {"a.jsonl": b"\n".join(json.dumps(row).encode() for row in rows)}
    sources = [{"path": "a.jsonl", "kind": "instruction", "genre": "chat"}]
    done = stages(files, sources=sources, ingest=ALL, until="clean")
    (path,) = done["clean"].paths("text-")
    (row,) = read_ipc(path, "text").to_pylist()
    found = json.loads(row["messages"])
    assert [turn["role"] for turn in found] == ["user", "assistant"]
    assert found[1]["content"].startswith("Brasília.") and "\0" not in found[1]["content"]
    assert row["text"] == "\n\n".join(turn["content"] for turn in found)
    assert (row["kind"], row["genre"]) == ("instruction", "chat")
    assert done["clean"].counts["genre_bytes"] == {"chat": len(row["text"].encode())}
    assert [r["reason"] for r in rejects(done)] == ["empty-turn"]


def test_a_list_with_a_folder_of_nothing_is_an_error(stages, helpers):
    files = {"a.txt": helpers.sentence(1).encode(), "empty/x.png": b"1"}
    with pytest.raises(RecipeError, match=r"no file in a known format[\s\S]*empty"):
        stages(files, sources=[{"name": "s", "path": ["a.txt", "empty"]}], until="ingest")


def test_a_dead_link_in_a_folder_is_named(stages, helpers, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/gone.jsonl").symlink_to(tmp_path / "moved-away")
    files = {"in/a.txt": helpers.sentence(1).encode()}
    with pytest.raises(RecipeError, match=r"leads nowhere[\s\S]*gone\.jsonl"):
        stages(files, sources=[{"path": "in"}], until="ingest")


def test_hidden_folders_are_left_out_and_linked_ones_entered_once(stages, helpers, tmp_path):
    files = {
        "in/.git/a.txt": helpers.sentence(1).encode(),
        "in/b.txt": helpers.sentence(2).encode(),
        "elsewhere/c.txt": helpers.sentence(3).encode(),
    }
    for path in ("in", "elsewhere"):
        (tmp_path / path).mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/around").symlink_to(tmp_path / "in")
    done = stages(files, sources=[{"name": "s", "path": "in"}], until="clean")
    assert sorted(texts(done)) == sorted(helpers.sentence(k) for k in (2, 3))


def test_times_that_python_cannot_hold_cost_no_document(stages, helpers, tmp_path):
    import pyarrow as pa

    table = pa.table(
        {
            "text": [helpers.sentence(k) for k in range(2)],
            "far": pa.array([2**60, 0], pa.timestamp("s")),
            "day": pa.array([2**30, 0], pa.date32()),
            "long": pa.array([2**62, 0], pa.duration("s")),
            "nowhere": pa.array([1, 0], pa.timestamp("s", tz="No/Zone")),
        }
    )
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    done = stages(sources=[{"path": "a.arrow"}], until="clean")
    (path,) = done["clean"].paths("text-")
    metas = [json.loads(meta) for meta in read_ipc(path, "text").column("meta").to_pylist()]
    assert metas[0] == {"far": 2**60, "day": 2**30, "long": 2**62, "nowhere": 1}
    assert metas[1] | {"nowhere": 0} == metas[1] and metas[1]["day"] == "1970-01-01"


def test_objects_nested_too_deeply_cost_a_field_and_no_run(stages, helpers):
    deep = b"[" * 300 + b"]" * 300
    line = b'{"id": 1, "text": "%s", "deep": %s}\n' % (helpers.sentence(1).encode(), deep)
    done = stages({"a.jsonl": line}, until="clean")
    (path,) = done["clean"].paths("text-")
    (meta,) = read_ipc(path, "text").column("meta").to_pylist()
    assert json.loads(meta) == {"deep": "not kept: nested too deeply"}


@pytest.mark.parametrize("form", ["file", "stream"])
def test_offsets_that_lead_nowhere_cost_their_batch_alone(stages, helpers, tmp_path, form):
    import struct

    import pyarrow as pa

    rows = [helpers.sentence(k) for k in range(30)]
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    table = pa.table({"text": rows})
    with new(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    data = bytearray((tmp_path / "a.arrow").read_bytes())
    ends = [sum(len(row.encode()) for row in rows[10 : 11 + k]) for k in range(3)]
    data = data.replace(struct.pack("<3i", *ends), struct.pack("<3i", ends[0], 2**30, ends[2]), 1)
    done = stages({"a.arrow": bytes(data)}, ingest=ALL, until="clean")
    assert texts(done) == [*rows[:10], *rows[20:]]
    assert [(r["reason"], r["position"]) for r in rejects(done)] == [("unreadable", 10)]


def test_a_batch_without_rows_takes_no_position(stages, helpers, tmp_path):
    import pyarrow as pa

    schema = pa.schema([("text", pa.string())])
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), schema) as writer:
        for rows in (["a" * 40], [], ["b" * 40]):
            writer.write_batch(pa.record_batch({"text": rows}, schema=schema))
    done = stages(sources=[{"path": "a.arrow"}], until="clean")
    (path,) = done["clean"].paths("text-")
    assert read_ipc(path, "text").column("position").to_pylist() == [0, 1]


def test_a_damaged_zstd_keeps_what_stands_before_the_damage(tmp_path):
    import pyarrow as pa

    from data_jobs.read.documents import Piece, ReadOptions
    from data_jobs.read.places import Place
    from data_jobs.read.readers import read

    lines = b"".join(b'{"text": "%d"}\n' % k**9 for k in range(20_000))
    data = pa.Codec("zstd").compress(lines, asbytes=True) + b"no frame"
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    *kept, last = read(Piece(Place(str(tmp_path / "a.jsonl.zst")), "jsonl"), ReadOptions())
    assert last.reason == "unreadable" and len(kept) > 19_000
