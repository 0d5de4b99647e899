"""Web archives, whole and damaged, made here with fastwarc."""

from __future__ import annotations

import gzip
import io

import pytest

from data_jobs.read.documents import Document, Piece, ReadOptions, Reject
from data_jobs.read.places import Place
from data_jobs.read.readers import read

PAGE = (
    "<html><head><title>Mar</title><script>var x=1</script></head><body><nav>Início Sobre</nav>"
    "<main><article><p>O pescador saiu cedo de casa e não voltou antes da noite.</p>"
    "<p>A mulher esperava na praia com os filhos.</p></article></main></body></html>"
)


def record(kind: str, mime: str, body: bytes, number: int) -> bytes:
    http = b""
    if kind == "response":
        http = f"HTTP/1.1 200 OK\r\nContent-Type: {mime}\r\n\r\n".encode()
        mime = "application/http; msgtype=response"
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: https://example.org/{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"Content-Type: {mime}\r\nContent-Length: {len(http) + len(body)}\r\n\r\n"
    )
    return head.encode() + http + body + b"\r\n\r\n"


def found(tmp_path, data: bytes, max_bytes: int = 10_000) -> list:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(data)
    return list(read(Piece(Place(str(path)), "warc"), ReadOptions(max_bytes=max_bytes)))


def test_pages_become_main_text_and_wet_records_stay(tmp_path):
    rows = [
        record("response", "text/html; charset=utf-8", PAGE.encode(), 1),
        record("response", "image/png", b"\x89PNG", 2),
        record("conversion", "text/plain", "Só texto.".encode(), 3),
    ]
    data = b"".join(gzip.compress(row, mtime=0) for row in rows)
    page, picture, plain = found(tmp_path, data)
    assert "pescador" in page.text and "var x" not in page.text and "Início" not in page.text
    assert page.url == "https://example.org/1"
    assert picture.reason == "not-a-text-type"
    assert plain.text == "Só texto."


def test_latin1_pages_are_decoded(tmp_path):
    body = PAGE.encode("latin-1")
    (page,) = found(tmp_path, record("response", "text/html; charset=iso-8859-1", body, 1))
    assert "não voltou" in page.text


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_truncated_archive_keeps_what_stood_before(tmp_path, cut):
    rows = [record("conversion", "text/plain", b"texto %d" % k * 50, k) for k in range(20)]
    data = b"".join(gzip.compress(row, mtime=0) for row in rows)
    rows = found(tmp_path, data[: int(len(data) * cut)])
    documents = [row for row in rows if isinstance(row, Document)]
    assert len(documents) == 20 * cut
    assert all(row.text and row.text == f"texto {k}" * 50 for k, row in enumerate(documents))
    assert [row.reason for row in rows[len(documents) :]] in ([], ["truncated"])


def overwritten(row: bytes) -> bytes:
    packed = gzip.compress(row, mtime=0)
    return packed[:60] + b"\xff" * 30 + packed[90:]


@pytest.mark.parametrize(
    ("pack", "damage", "lost"),
    [
        (gzip.compress, overwritten, 1),
        (gzip.compress, lambda row: b"\0" * 10 + gzip.compress(row, mtime=0)[10:], 1),
        (bytes, lambda row: row.replace(b"WARC/1.0", b"XXXX/1.0"), 1),
        (bytes, lambda row: row.replace(b"Content-Length: ", b"Content-Length: 9"), 1),
        (bytes, lambda row: row[:-300], 0),  # it takes what it lacks from the next one
    ],
    ids=["bytes", "gzip head", "record head", "length", "cut"],
)
def test_a_damaged_record_costs_no_other(tmp_path, pack, damage, lost):
    rows = [record("conversion", "text/plain", b"texto %d " % k * 150, k) for k in range(10)]
    parts = [damage(row) if k == 4 else pack(row) for k, row in enumerate(rows)]
    results = found(tmp_path, b"".join(parts))
    documents = [row for row in results if isinstance(row, Document)]
    whole = [f"texto {k} " * 150 for k in range(10) if k != 4]
    assert [row.text for row in documents if row.text in whole] == whole
    assert len(documents) == 10 - lost
    assert [row.reason for row in results if isinstance(row, Reject)] == ["unreadable"]
    assert [row.position for row in results] == list(range(len(results)))


def test_a_page_that_unpacks_to_more_than_the_limit_is_rejected(tmp_path):
    stream = io.BytesIO(b"palavra " * 100_000)
    row = record("conversion", "text/plain", stream.getvalue(), 1)
    (reject,) = found(tmp_path, row)
    assert reject.reason == "too-long"


@pytest.mark.parametrize("charset", ["foo", '"', "rot13", "undefined", "none\0"])
def test_a_charset_that_is_none_costs_no_page(tmp_path, charset):
    body = PAGE.encode("cp1252")
    (page,) = found(tmp_path, record("response", f"text/html; charset={charset}", body, 1))
    assert "não voltou" in page.text
