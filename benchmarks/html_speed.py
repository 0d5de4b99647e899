"""WARC with HTML to clean text against trafilatura's chain on the same archive.

    python benchmarks/html_speed.py --template ARCHIVE.warc.gz --corpus DIR \\
        [--pages 4000] [--peer-pages 600] [--rounds 3]

Writes a WARC of pages made of one real captured Wikipedia page (its navigation, scripts, tables
and footer; --template) around real text of the corpus. Ours is the stages ingest and clean (gzip,
WARC, main content, cleaning, masking, Arrow shards, hashes). The peer's is fastwarc with
trafilatura (favor_precision), the text kept in memory: its cheapest form, on --peer-pages pages.
One process each, alternately, CPU-seconds after a short warm run. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import html
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

from data_speed import run_chain  # beside this file
from fastwarc.warc import ArchiveIterator, WarcRecordType

PARSER_OUTPUT = re.compile(
    rb'(<div[^>]*class="[^"]*mw-parser-output[^"]*"[^>]*>)(.*?)(<!--\s*NewPP)', re.S
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--pages", type=int, default=4000)
    parser.add_argument("--peer-pages", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "peer"), help="one run, for this program")
    parser.add_argument("--archive", type=Path)
    options = parser.parse_args()
    if options.side:
        measured = ours(options.archive) if options.side == "ours" else peer(options.archive)
        print(json.dumps(measured))
        return
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large.warc.gz"), Path(folder, "small.warc.gz")
        sizes = {
            "ours": write_archive(options, large, options.pages),
            "peer": write_archive(options, small, options.peer_pages),
        }
        runs: dict[str, list[dict]] = {"ours": [], "peer": []}
        for _ in range(options.rounds):
            for name, archive in (("ours", large), ("peer", small)):
                runs[name].append(run_side(name, archive))
    print(json.dumps(summary(runs, sizes), indent=1))


def summary(runs: dict[str, list[dict]], sizes: dict[str, int]) -> dict:
    found = {}
    for name, results in runs.items():
        used = [result["cpu_s"] for result in results]
        found[name] = {
            "html_mb": round(sizes[name] / 1e6, 1),
            "cpu_s": [min(used), statistics.median(used), max(used)],
            "html_mb_per_cpu_s": round(sizes[name] / 1e6 / statistics.median(used), 2),
            "characters_per_page": results[-1]["characters_per_page"],
        }
    ratio = found["ours"]["html_mb_per_cpu_s"] / found["peer"]["html_mb_per_cpu_s"]
    return {**found, "ratio": round(ratio, 1)}


def run_side(name: str, archive: Path) -> dict:
    command = [sys.executable, __file__, "--side", name, "--archive", str(archive)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def ours(archive: Path) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "few.warc.gz")
        few.write_bytes(first_members(archive, 5))
        run_chain(few, Path(folder, "warm"), ("ingest", "clean"))
        used, manifests = run_chain(archive, Path(folder, "all"), ("ingest", "clean"))
        counts = manifests["clean"].counts
    per_page = counts["text_bytes_out"] / counts["documents_out"]
    return {"cpu_s": round(sum(used.values()), 3), "characters_per_page": round(per_page)}


def peer(archive: Path) -> dict:
    from trafilatura import extract

    pages = list(islice(page_bodies(archive), 5))
    for page in pages:
        extract(page, favor_precision=True)
    before = time.process_time()
    lengths = [len(extract(page, favor_precision=True) or "") for page in page_bodies(archive)]
    used = time.process_time() - before
    return {"cpu_s": round(used, 3), "characters_per_page": round(sum(lengths) / len(lengths))}


def page_bodies(archive: Path) -> Iterator[bytes]:
    with open(archive, "rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            yield record.reader.read()


def write_archive(options: argparse.Namespace, target: Path, pages: int) -> int:
    """A gzip member a record; returns the bytes of HTML."""
    before, after = template(options.template)
    size = 0
    with open(target, "wb") as out:
        for number, text in enumerate(islice(documents(options.corpus), pages)):
            body = before + as_html(text) + after
            size += len(body)
            out.write(gzip.compress(record(number, body), 6))
    return size


def template(archive: Path) -> tuple[bytes, bytes]:
    """What stands before and after the article's text in the captured page."""
    for page in page_bodies(archive):
        if found := PARSER_OUTPUT.search(page):
            return page[: found.end(1)], page[found.start(3) :]
    raise SystemExit(f"{archive}: no captured Wikipedia page in it")


def documents(corpus: Path) -> Iterator[str]:
    """Round robin over the sources, so that any number of pages is a mixture of them."""
    sources = [
        iter(gzip.decompress(p.read_bytes()).splitlines()) for p in sorted(corpus.glob("*.gz"))
    ]
    for row in chain.from_iterable(zip_longest(*sources)):
        if row is not None:
            yield json.loads(row)["text"]


def as_html(text: str) -> bytes:
    paragraphs = (f"<p>{html.escape(line)}</p>" for line in text.splitlines() if line.strip())
    return "\n".join(paragraphs).encode()


def record(number: int, body: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=UTF-8\r\n\r\n" + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Target-URI: https://pt.example.org/wiki/{number}\r\n"
        "WARC-Date: 2026-11-25T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def first_members(archive: Path, count: int) -> bytes:
    """The first gzip members of the archive, a record each."""
    out = io.BytesIO()
    with open(archive, "rb") as stream:
        for found in islice(ArchiveIterator(stream, parse_http=False), count):
            out.write(gzip.compress(record(found.stream_pos, found.reader.read()), 6))
    return out.getvalue()


if __name__ == "__main__":
    main()
