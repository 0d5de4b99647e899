"""Rows of CSV and TSV: quoted line breaks, any delimiter, a bad row costs only itself."""

from __future__ import annotations

import csv
import gzip
import io

import pytest

from data_jobs.read.documents import Document, Piece, ReadOptions, Reject
from data_jobs.read.places import Place
from data_jobs.read.read_csv import borders, delimiter_of, read_csv


@pytest.fixture
def read(tmp_path):
    """read(bytes or text, Piece and ReadOptions fields) -> documents and rejects."""

    def run(data: bytes | str, piece: dict | None = None, **options):
        path = tmp_path / "table.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        here = Piece(Place(str(path)), "csv", **(piece or {}))
        return list(read_csv(here, ReadOptions(**options)))

    return run


def texts(found) -> list[str]:
    return [one.text for one in found if isinstance(one, Document)]


def rejects(found) -> list[tuple[str, int, int]]:
    return [(one.reason, one.position, one.offset) for one in found if isinstance(one, Reject)]


def test_quoted_line_breaks_and_quotes_belong_to_the_text(read):
    found = read('text,toxic\n"um\n\ndois ""três""",0\nquatro,1\n')
    assert texts(found) == ['um\n\ndois "três"', "quatro"]
    assert found[0].fields == {"toxic": "0"}
    assert [(one.position, one.offset, one.size) for one in found] == [(1, 11, 23), (4, 34, 9)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_from_the_header(read, delimiter):
    rows = [["id", "text", "when"], ["7", f"a{delimiter}b, c; d", "1900"]]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    (found,) = read(stream.getvalue())
    assert (found.text, found.name, found.fields) == (rows[1][1], "7", {"when": "1900"})


def test_the_delimiter_that_gives_the_text_column_wins():
    assert delimiter_of("id;a,b,c;text", {"text"}) == ";"
    assert delimiter_of("id;a,b,c,d", {"text"}) == ","
    assert delimiter_of("text", {"text"}) == ","


def test_byte_order_mark_and_crlf_are_no_part_of_the_text(read):
    found = read(b'\xef\xbb\xbftext,n\r\n"a\r\nb",1\r\nc,2\r\n')
    assert [text.replace("\r", "") for text in texts(found)] == ["a\nb", "c"]
    assert found[1].offset == 21


def test_blank_lines_are_passed_over(read):
    assert texts(read("\n\ntext,n\n\na,1\n\n")) == ["a"]


def test_a_row_with_another_number_of_columns_is_rejected(read):
    found = read("text,n\na,1\nb\nc,d,3\ne,2\n")
    assert texts(found) == ["a", "e"]
    assert rejects(found) == [("wrong-columns", 2, 11), ("wrong-columns", 3, 13)]
    assert found[1].snippet == "1 columns, the header has 2: b"


def test_an_unclosed_quote_costs_one_line(read):
    found = read('text,n\n"ok",0\n"open,1\n"good",2\nplain,3\n"open at the end,4\nlast,5\n')
    assert texts(found) == ["ok", "good", "plain", "last"]
    assert rejects(found) == [("bad-row", 2, 14), ("bad-row", 5, 39)]


def test_bad_utf8_costs_one_row_and_no_other(read):
    found = read(b'text,n\na,1\n"b\n\xff",2\nc,3\n')
    assert texts(found) == ["a", "c"]
    assert rejects(found) == [("invalid-utf8", 2, 11)]


def test_a_row_without_end_is_bounded_in_memory(read, monkeypatch):
    monkeypatch.setattr("data_jobs.read.read_csv.ROW_BYTES", 200)
    rows = "".join(f"linha {i},{i}\n" for i in range(100))
    found = read('text,n\n"open,1\n' + rows + "x" * 500 + ",1\n")
    assert len(texts(found)) == 100
    assert [reason for reason, _, _ in rejects(found)] == ["bad-row", "too-long"]


def test_quotes_in_tab_separated_text_may_mean_nothing(read):
    found = read('id\ttext\n1\t"Olá, disse\n2\t"Sim" disse ela\n3\tc\n')
    assert texts(found) == ['"Olá, disse', '"Sim" disse ela', "c"]


def test_a_truncated_file_keeps_the_rows_before_the_cut(read):
    data = gzip.compress(b"text,n\n" + b"".join(b"linha %d,%d\n" % (i, i) for i in range(9999)))
    found = read(data[: len(data) // 2])
    assert 1000 < len(texts(found)) < 9999
    assert [reason for reason, _, _ in rejects(found)] == ["truncated"]


def test_an_open_quote_before_the_cut_loses_no_row_after_it(read):
    rows = b'text,n\n"open,1\n' + b"".join(b"linha %d,%d\n" % (i, i) for i in range(9999))
    data = gzip.compress(rows)
    found = read(data[: len(data) // 2])
    assert len(texts(found)) > 1000
    assert [reason for reason, _, _ in rejects(found)] == ["bad-row", "truncated"]


def test_a_file_whose_header_cannot_be_read_is_rejected_as_a_whole(read):
    data = b"text,n\xff\na,1\n"
    (found,) = read(data)
    assert (found.reason, found.size) == ("invalid-utf8", len(data))


def test_a_header_without_the_text_column_names_what_is_there(read):
    (found,) = read("corpo,n\na,1\n")
    assert (found.reason, found.snippet) == ("missing-field", "fields: corpo, n")


def test_an_empty_file_has_no_rows(read):
    assert read("") == [] and read("text,n\n") == []


def test_prompts_and_answers_come_from_columns(read):
    (found,) = read("prompt,completion\noi,olá\n", kind="instruction")
    assert found.messages == (("user", "oi"), ("assistant", "olá"))


@pytest.mark.parametrize("every", [40, 100, 1000])
def test_pieces_give_the_rows_of_the_whole_file(read, tmp_path, every):
    rows = ['"a ""b""\nc, d",1', '5" tela,2', '"open,3', "", '"x\n\n,y",4', "curta", "z,5"] * 9
    data = "text,n\n" + "\n".join(rows) + "\n"
    whole = read(data)
    piece, options = Piece(Place(str(tmp_path / "table.csv")), "csv"), ReadOptions()
    cuts = [(0, 0), *borders(piece, options, every)]
    assert len(cuts) > 1 or every == 1000
    ends = [cut[0] for cut in cuts[1:]] + [None]
    parts = [
        read(data, {"start": start, "end": end, "first": first})
        for (start, first), end in zip(cuts, ends, strict=True)
    ]
    assert [one for part in parts for one in part] == whole
