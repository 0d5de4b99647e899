"""Taking rows and tokens out of finished parts: same shape, other rows as before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.near.index import (
    PART_BITS,
    read_bands,
    read_signatures,
    write_bands,
    write_signatures,
)
from data_jobs.results.forgotten import Traces, exact_copies, named_duplicates, near_copies
from data_jobs.results.scrub import blank_bands, blank_bytes, blank_rows, blank_tokens
from mutirao.core.manifest import Manifest, Part
from mutirao.core.schemas import EDGES, EXACT, NEARDUP, TEXT, TOKENS_16, read_ipc, write_ipc


def row(number: int, text: str) -> dict:
    fields = {name: f"{name}-{number}" for name in TEXT.names}
    return {**fields, "id": bytes([number]) * 16, "text": text, "position": number}


def write(path, schema, batches) -> None:
    with open(path, "wb") as stream:
        write_ipc(stream, schema, batches)


def batches_of(path) -> list[int]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]


def test_rows_are_blanked_and_all_else_stays(tmp_path):
    path = tmp_path / "text.arrow"
    rows = [row(n, f"texto {n} " * 50) for n in range(1, 8)]
    pieces = [pa.RecordBatch.from_pylist(rows[i : i + 3], schema=TEXT) for i in (0, 3, 6)]
    write(path, TEXT, pieces)
    blank_rows(path, "text", [1, 6])
    after = read_ipc(path, "text").to_pylist()
    assert batches_of(path) == [3, 3, 1]
    assert [one for n, one in enumerate(after) if n not in (1, 6)] == [
        one for n, one in enumerate(rows) if n not in (1, 6)
    ]
    gone = after[6]
    assert gone["id"] == bytes(16) and gone["meta"] == "{}" and gone["position"] == 7
    assert gone["text"] == gone["name"] == gone["url"] == gone["messages"] == ""
    assert b"texto 7" not in path.read_bytes() and b"texto 2" not in path.read_bytes()
    once = path.read_bytes()
    blank_rows(path, "text", [1, 6])
    assert path.read_bytes() == once


def test_a_file_of_format_1_is_rewritten_as_such(tmp_path):
    path = tmp_path / "text.arrow"
    old = pa.schema([f for f in TEXT if f.name not in ("kind", "genre", "messages")])
    old = old.with_metadata({"mutirao.kind": "text", "mutirao.format": "1"})
    write(path, old, [pa.RecordBatch.from_pylist([row(1, "um"), row(2, "dois")], schema=old)])
    blank_rows(path, "text", [0])
    assert [one["text"] for one in read_ipc(path, "text").to_pylist()] == ["", "dois"]


@pytest.mark.parametrize("split", [[9], [4, 5]])
def test_tokens_of_a_document_become_end_of_text(tmp_path, split):
    path = tmp_path / "t.tokens.arrow"
    tokens, start, pieces = np.arange(1, 10, dtype=np.uint16), 0, []
    for size in split:
        array = pa.array(tokens[start : start + size])
        pieces.append(pa.RecordBatch.from_arrays([array], schema=TOKENS_16))
        start += size
    write(path, TOKENS_16, pieces)
    blank_tokens(path, [[3, 6], [8, 9]], 0)
    assert read_ipc(path, "tokens").column("token").to_pylist() == [1, 2, 3, 0, 0, 0, 7, 8, 0]
    assert batches_of(path) == split


def test_band_keys_of_a_document_say_nothing_and_the_others_are_still_found(tmp_path):
    dice = np.random.default_rng(7)
    keys = dice.integers(0, 2**64, (50, 6), np.uint64)
    write_bands(tmp_path, "bands-00000.arrow", keys, np.arange(50))
    path = tmp_path / "bands-00000.arrow"
    blank_bands(path, [3, 40])
    found, rows, offsets = read_bands(path)
    assert len(found) == 300 and offsets[-1] == 300
    for part in np.flatnonzero(np.diff(offsets)):
        here = slice(offsets[part], offsets[part + 1])
        assert set(found[here] >> np.uint64(64 - PART_BITS)) == {part}
        assert (np.diff(rows[here].astype(int)) >= 0).all()
    left = {(int(key), int(row)) for key, row in zip(found, rows, strict=True)}
    others = [row for row in range(50) if row not in (3, 40)]
    assert left == {(int(key), row) for row in others for key in keys[row]} | {(0, 3), (0, 40)}
    raw = path.read_bytes()
    assert not any(int(key).to_bytes(8, "little") in raw for key in keys[[3, 40]].ravel())
    blank_bands(path, [3, 40])
    assert path.read_bytes() == raw


def test_a_signature_is_blanked_and_the_others_stay(tmp_path):
    signatures = np.arange(40, dtype=np.uint8).reshape(4, 10) + 1
    path = tmp_path / "signatures-00000.arrow"
    write_signatures(tmp_path, path.name, signatures, np.array([True, True, False, True]))
    blank_rows(path, "signatures", [1])
    after = read_signatures(path)
    assert after[1].tolist() == [0] * 10
    assert (after[[0, 3]] == signatures[[0, 3]]).all()
    assert signatures[1].tobytes() not in path.read_bytes()


def test_decisions_that_name_a_forgotten_document_are_found_and_lose_its_id(tmp_path):
    path = tmp_path / "neardup-00000.arrow"
    gone, stays = b"g" * 16, b"s" * 16
    rows = [
        {"reason": "near-duplicate", "duplicate_of_id": one, "against": 0, "jaccard": 0.9}
        for one in (stays, gone, None)
    ]
    write(path, NEARDUP, [pa.RecordBatch.from_pylist(rows, schema=NEARDUP)])
    neardup = manifest(tmp_path, "neardup", [path.name])
    assert named_duplicates(neardup, {gone}) == {0: [1]}
    assert named_duplicates(neardup, set()) == {}
    blank_rows(path, "duplicate", [1])
    after = read_ipc(path, "decision.neardup").to_pylist()
    assert [one["duplicate_of_id"] for one in after] == [stays, None, None]
    assert after[1]["reason"] == "near-duplicate" and gone not in path.read_bytes()


def test_bytes_keep_their_places(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes("é segredo!".encode())
    blank_bytes(path, [[3, 10]])
    assert path.read_text() == "é xxxxxxx!"


def manifest(folder, stage, names) -> Manifest:
    parts = [vars(Part(name, 0, 0, "")) for name in names]
    return Manifest(folder, {"stage": stage, "parts": parts}, {})


def test_copies_are_found_by_hash_and_near_ones_by_edge_in_either_direction(tmp_path):
    hashes = [[b"a" * 16, b"b" * 16], [b"b" * 16, bytes(16)], [bytes(16), b"c" * 16]]
    names = [f"exact-{n}.arrow" for n in range(3)]
    for name, some in zip(names, hashes, strict=True):
        columns = [[None, None], some, [None, None], [None, None]]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, EXACT, strict=True)]
        write(tmp_path / name, EXACT, [pa.RecordBatch.from_arrays(arrays, schema=EXACT)])
    exact = manifest(tmp_path, "exact", names)
    assert exact_copies(exact, {(0, 1)}) == {(0, 1), (1, 0)}
    assert exact_copies(exact, {(1, 1)}) == {(1, 1)}  # forgotten rows are no copies of each other
    parts = {
        "edges-00000.arrow": [(0, 0, 0, 1, 0.9, -1), (0, 0, 2, 1, 0.8, -1), (0, 0, 5, 5, 0.8, 0)],
        "edges-00001.arrow": [(1, 0, 2, 1, 0.9, -1)],
    }
    for name, edges in parts.items():
        columns = zip(zip(*edges, strict=True), EDGES, strict=True)
        arrays = [pa.array(c, f.type) for c, f in columns]
        write(tmp_path / name, EDGES, [pa.RecordBatch.from_arrays(arrays, schema=EDGES)])
    neardup = manifest(tmp_path, "neardup", list(parts))
    assert near_copies(neardup, {(0, 0)}) == {(0, 1), (2, 1)}
    assert near_copies(neardup, {(0, 1), (0, 0)}) == {(2, 1)}
    assert near_copies(neardup, {(5, 5)}) == set()  # a row of an earlier result, not of this one
    assert near_copies(neardup, {(2, 1)}) == {(0, 0), (1, 0)}


@pytest.mark.parametrize(
    ("piece", "found"),
    [
        ("o barco azul do velho Anselmo partiu", True),
        ('{"t": "O BARCO AZUL DO VELHO', True),
        ('"o barco az\\u0075l do velho', True),
        ("o barco azul", True),  # its beginning
        ("barco azul do", False),
        ("o barco verde do velho", False),
        ("see https://x.org/a?b=1, please", True),
        ("see https://x.org/a?b=12", False),
        ("document doc-17.", True),
        ("document doc-171", False),
        ("", False),
    ],
)
def test_traces_of_a_document_in_logs_and_snippets(piece, found):
    traces = Traces()
    document = {"id": b"\x01" * 16, "url": "https://x.org/a?b=1", "name": "doc-17", "messages": ""}
    traces.add({**document, "text": "O barco azul do velho Anselmo partiu na manhã seguinte."})
    assert traces.holds_text(piece) is found
