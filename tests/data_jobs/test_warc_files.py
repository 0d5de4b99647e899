"""Web archives, whole and damaged, made here with fastwarc."""

from __future__ import annotations

import gzip
import io

import pytest

from data_jobs.readers import Document, Reject, read

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
    return list(read(path, "warc", "text", max_bytes, "extract"))


def test_pages_become_main_text_and_wet_records_stay(tmp_path):
    rows = [
        record("response", "text/html; charset=utf-8", PAGE.encode(), 1),
        record("response", "image/png", b"\x89PNG", 2),
        record("conversion", "text/plain", "Só texto.".encode(), 3),
    ]
    data = b"".join(gzip.compress(row, mtime=0) for row in rows)
    page, picture, plain = found(tmp_path, data)
    assert "pescador" in page.text and "var x" not in page.text and "Início" not in page.text
    assert page.fields["url"] == "https://example.org/1"
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
    assert abs(len(documents) - 20 * cut) <= 2
    assert all(isinstance(row, Reject) for row in rows[len(documents) :])
    assert [row.reason for row in rows[len(documents) :]] in ([], ["truncated"])


def test_a_page_that_unpacks_to_more_than_the_limit_is_rejected(tmp_path):
    stream = io.BytesIO(b"palavra " * 100_000)
    row = record("conversion", "text/plain", stream.getvalue(), 1)
    (reject,) = found(tmp_path, row)
    assert reject.reason == "too-long"
