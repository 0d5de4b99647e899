"""Build the small bundled corpus of the demo, ``platform/mutirao/sample``, from larger real data.

In:  ``--shared DIR``, a folder with corpus/, multilingual/, messy/ and warc/ (see its README).
Out: ``--output DIR`` with the files of ``FILES`` below, and a Markdown table of them on stdout.
Only public-domain, CC0, CC-BY and Apache-2.0 text goes in. Documents are chosen by the hash of
their id, so the same input gives the same bytes with the same versions of zlib and pyarrow.
Every text is real; the planted duplicates are edits of real ones and say so in their fields.

    python benchmarks/build_sample.py --shared DIR --output platform/mutirao/sample
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import html
import json
import random
import re
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

JSON_FILES = ("docs.jsonl.gz", "other_languages.jsonl.gz", "messy.jsonl.gz")
FILES = (*JSON_FILES, "manual.parquet", "lessons.warc.gz", "chapters", "page.warc.gz")
DOCS_BYTES = {  # text taken from each Portuguese source for docs.jsonl.gz
    "machado_de_assis": 2_200_000,
    "leis_planalto": 1_000_000,
    "ms_lync_docs_ptbr": 1_000_000,
    "php_manual_ptbr": 800_000,
    "react_docs_ptbr": 600_000,
    "elixirschool_pt": 300_000,
}
OTHER_LANGUAGES = (
    *("glg", "spa", "cat", "eng", "fra", "ita", "deu", "rus", "ron", "oci", "ast", "nld", "pol"),
    *("ukr", "tur", "ell", "zho", "jpn", "ara", "hin", "vie", "swa", "eus", "hun", "fin"),
    *("grn", "quz", "ayr", "nhn", "kea"),
)
OTHER_FILES = ("udhr_paragraphs", "elixirschool_paragraphs", "bible_pre1930", "tatoeba_sentences")
OTHER_PER_SOURCE = 3  # documents of each language from each of OTHER_FILES
OTHER_CHARACTERS = 300  # shorter texts are joined until they have this length
MESSY_PER_KIND = 7
MANUAL_PHP, MANUAL_LYNC = 100, 50  # documents
LESSONS = 4
CHAPTERS = 5
EXACT_DUPLICATES = 40
NEAR_DUPLICATES = 60
NEAR_JACCARD = (0.80, 0.97)
NEAR_EDIT_RATE = (0.02, 0.08)  # of the words
SHINGLE_WORDS = 5
SEED = 20261125
WARC_DATE = "2026-11-25T00:00:00Z"


def build(shared: Path, output: Path) -> dict[str, list[dict]]:
    """Write every file of the sample; return the documents of each file by its name."""
    messy, damaged = choose_messy(shared)
    corpus = {
        name: [row for row in read_rows(shared, "corpus", name) if row["text"] not in damaged]
        for name in DOCS_BYTES
    }
    chapters = take(corpus["machado_de_assis"], CHAPTERS, characters=(4_000, 12_000))
    lessons = take(corpus["elixirschool_pt"], LESSONS, characters=(2_000, 8_000))
    manual = take(corpus["php_manual_ptbr"], MANUAL_PHP, characters=(500, 6_000))
    manual += take(corpus["ms_lync_docs_ptbr"], MANUAL_LYNC, characters=(500, 6_000))
    docs = [row for name, size in DOCS_BYTES.items() for row in take_bytes(corpus[name], size)]
    docs += plant_duplicates(docs)
    files = dict(zip(JSON_FILES, (docs, choose_languages(shared), messy), strict=True))
    for name, rows in files.items():
        write_rows(output / name, rows)
    write_parquet(output / "manual.parquet", manual)
    (output / "lessons.warc.gz").write_bytes(b"".join(warc_members(lessons)))
    write_chapters(output / "chapters", chapters)
    shutil.copyfile(shared / "warc" / "warcio-example.warc.gz", output / "page.warc.gz")
    return files | {"manual.parquet": manual, "lessons.warc.gz": lessons, "chapters": chapters}


def read_rows(shared: Path, folder: str, name: str) -> Iterator[dict]:
    """Yield the rows of ``folder/name.jsonl.gz``."""
    with gzip.open(shared / folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def by_hash(row: dict) -> str:
    """Return the key that puts rows in a fixed order unrelated to their content's order."""
    return hashlib.blake2b(row["id"].encode(), digest_size=8).hexdigest()


def take(rows: list[dict], count: int, characters: tuple[int, int]) -> list[dict]:
    """Move ``count`` rows with a text of ``characters`` (least, most) out of ``rows``."""
    least, most = characters
    fitting = [row for row in rows if least <= len(row["text"]) <= most]
    taken = sorted(fitting, key=by_hash)[:count]
    ids = {row["id"] for row in taken}
    rows[:] = [row for row in rows if row["id"] not in ids]
    return taken


def take_bytes(rows: list[dict], text_bytes: int) -> Iterator[dict]:
    """Yield rows in the order of their hash until their texts come to ``text_bytes``."""
    for row in sorted(rows, key=by_hash):
        if text_bytes <= 0:
            return
        text_bytes -= len(row["text"].encode())
        yield row


def choose_messy(shared: Path) -> tuple[list[dict], set[str]]:
    """Return damaged texts, some of each kind, and the texts they were made from."""
    kinds = defaultdict(list)
    for row in read_rows(shared, "messy", "messy_pt"):
        if row["source"] != "senado-cpi-notas":  # its licence is in doubt
            kinds[row["kind"]].append(row)
    chosen = [row for rows in kinds.values() for row in sorted(rows, key=by_hash)[:MESSY_PER_KIND]]
    originals = {row.pop("clean") for row in chosen}
    return [row | {"id": f"messy-{row['id']}", "lang": "por"} for row in chosen], originals


def choose_languages(shared: Path) -> list[dict]:
    """Return a few documents of each of ``OTHER_LANGUAGES`` from each of ``OTHER_FILES``."""
    chosen = []
    for name in OTHER_FILES:
        documents = defaultdict(list)
        for row in join_short(read_rows(shared, "multilingual", name)):
            documents[row["lang"]].append(row)
        for language in OTHER_LANGUAGES:
            chosen += sorted(documents[language], key=by_hash)[:OTHER_PER_SOURCE]
    return chosen


def join_short(rows: Iterable[dict]) -> Iterator[dict]:
    """Join consecutive texts of one url and language until each has ``OTHER_CHARACTERS``."""
    pending: dict[tuple[str, str], dict] = {}
    for row in rows:
        key = row["lang"], row["url"]
        if key in pending:
            first = pending.pop(key)
            row = first | {"text": f"{first['text']}\n{row['text']}", "joined": True}
        if len(row["text"]) >= OTHER_CHARACTERS:
            yield row
        else:
            pending[key] = row


def plant_duplicates(docs: list[dict]) -> list[dict]:
    """Return exact and near duplicates of different documents of 150 to 800 words."""
    fitting = [row for row in docs if 150 <= len(row["text"].split()) <= 800]
    random_state = random.Random(SEED)
    originals = random_state.sample(fitting, EXACT_DUPLICATES + NEAR_DUPLICATES)
    words = [word for row in originals for word in row["text"].split()]
    exact = [exact_duplicate(row, n) for n, row in enumerate(originals[:EXACT_DUPLICATES])]
    near = [near_duplicate(row, words, random_state) for row in originals[EXACT_DUPLICATES:]]
    return exact + near


def exact_duplicate(row: dict, number: int) -> dict:
    """Return the document under another id; two in four differ in white space only."""
    text = row["text"]
    variations = {
        "none": text,
        "spaces": text.replace(". ", ".  ").replace("\n", " \n"),
        "newlines": text.replace("\n", "\n\n"),
    }
    variation = ("none", "spaces", "none", "newlines")[number % 4]
    planted = {"planted": "exact", "planted_of": row["id"], "variation": variation}
    return row | {"id": f"{row['id']}-exact", "text": variations[variation]} | planted


def near_duplicate(row: dict, words: list[str], random_state: random.Random) -> dict:
    """Return the document with some words edited, its Jaccard within ``NEAR_JACCARD``."""
    least, most = NEAR_JACCARD
    similarity = 0.0
    while not least <= similarity <= most:
        text = edit_words(row["text"], words, random_state)
        a, b = shingles(row["text"]), shingles(text)
        similarity = len(a & b) / len(a | b)
    planted = {"planted": "near", "planted_of": row["id"], "jaccard": round(similarity, 6)}
    return row | {"id": f"{row['id']}-near", "text": text} | planted


def edit_words(text: str, words: list[str], random_state: random.Random) -> str:
    """Replace, delete or insert words, scattered or in one block; line breaks stay."""
    parts = re.split(r"(\s+)", text)  # words at even places, white space between them
    places = range(0, len(parts), 2)
    count = max(1, round(random_state.uniform(*NEAR_EDIT_RATE) * len(places)))
    first = random_state.randrange(len(places) - count)
    block = random_state.random() < 0.5
    for place in places[first : first + count] if block else random_state.sample(places, count):
        new = random_state.choice(words)
        parts[place] = random_state.choice((new, new, "", f"{parts[place]} {new}"))
    return "".join(parts)


def shingles(text: str) -> set[tuple[str, ...]]:
    r"""Return the runs of five consecutive ``\w+`` tokens of the lower-cased text."""
    tokens = re.findall(r"\w+", text.lower())
    return set(zip(*(tokens[start:] for start in range(SHINGLE_WORDS)), strict=False))


def gzipped(data: bytes) -> bytes:
    """Compress to one gzip member without a time or a name."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write JSON lines, gzipped."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzipped("".join(lines).encode()))


def write_parquet(path: Path, rows: list[dict]) -> None:
    """Write the columns text, id, source, license and url."""
    columns = ("text", "id", "source", "license", "url")
    table = pa.table({name: [row[name] for row in rows] for name in columns})
    pq.write_table(table, path, compression="zstd", compression_level=19)


def write_chapters(folder: Path, rows: list[dict]) -> None:
    """Write one plain text file a chapter, and where each comes from in SOURCES.csv."""
    folder.mkdir(exist_ok=True)
    with open(folder / "SOURCES.csv", "w", encoding="utf-8", newline="") as sources:
        table = csv.writer(sources, lineterminator="\n")
        table.writerow(("file", "source", "license", "url"))
        for row in rows:
            (folder / f"{row['id']}.txt").write_text(row["text"] + "\n", encoding="utf-8")
            table.writerow((f"{row['id']}.txt", row["source"], row["license"], row["url"]))


def warc_members(rows: list[dict]) -> Iterator[bytes]:
    """Yield a WARC information record and one response record a document, each a gzip member."""
    about = b"software: benchmarks/build_sample.py\r\nformat: WARC File Format 1.0\r\n"
    yield warc_record("warcinfo", "", "application/warc-fields", about)
    for row in rows:
        page = html_page(row).encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
        block = f"{head}Content-Length: {len(page)}\r\n\r\n".encode() + page
        yield warc_record("response", row["url"], "application/http; msgtype=response", block)


def warc_record(kind: str, url: str, content_type: str, block: bytes) -> bytes:
    """Return one gzipped WARC/1.0 record; its id is made from the url and the block."""
    record_id = uuid.uuid5(uuid.NAMESPACE_URL, url + hashlib.sha256(block).hexdigest())
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{record_id}>",
        "WARC-Date": WARC_DATE,
        "WARC-Target-URI": url,
        "Content-Type": content_type,
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return gzipped(f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n")


def html_page(row: dict) -> str:
    """Wrap a text in a plain page with navigation and a footer; only the wrapper is ours."""
    lines = [html.escape(line) for line in row["text"].splitlines() if line]
    body = "\n".join(f"<p>{line}</p>" for line in lines)
    return f"""<!DOCTYPE html>
<html lang="pt-BR"><head><meta charset="utf-8"><title>{lines[0]}</title></head><body>
<nav><a href="/">Início</a> <a href="/pt">Lições</a></nav>
<article>
{body}
</article>
<footer>{row["source"]}, {row["license"]}, {row["url"]}</footer></body></html>
"""


def markdown_table(output: Path, files: dict[str, list[dict]]) -> Iterator[str]:
    """Yield the lines of a table: file, documents, bytes of text, bytes on disk, licences."""
    yield "| file | documents | text bytes | file bytes | licences |\n|---|---:|---:|---:|---|"
    for name in FILES:
        rows = files.get(name, [])
        path = output / name
        size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))
        text = sum(len(row["text"].encode()) for row in rows)
        licenses = "; ".join(sorted({row["license"] for row in rows}))
        yield f"| {name} | {len(rows)} | {text:,} | {size:,} | {licenses} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", required=True, type=Path, help="the folder of real data")
    parser.add_argument("--output", required=True, type=Path, help="where to write the sample")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    files = build(options.shared, options.output)
    print(*markdown_table(options.output, files), sep="\n")


if __name__ == "__main__":
    main()
