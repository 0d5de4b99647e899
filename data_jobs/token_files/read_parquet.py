"""Token ids in a column of lists of a Parquet file (list, large_list or fixed_size_list).

A piece is some row groups, or some rows of a large one. Memory: a batch of ROWS rows, and what
Arrow decodes of a row group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.token_files.blocks import Block, damaged, no_ids, spans, whole_numbers
from mutirao.core.errors import DataError, RecipeError, nearest

ROWS = 1_024
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def pieces(path: Path, budget: int, field: str) -> list[dict[str, Any]]:
    """{first, end, group}: rows of the file, and the row group that the first is in. Raises
    DataError for a file that is none of the kind."""
    file = _open(path, field)
    if not file.metadata.num_rows:
        raise no_ids(str(path))
    found: list[dict[str, Any]] = []
    row, size = 0, budget
    for group in range(file.num_row_groups):
        ids, rows = _ids_of_group(file, group, field), file.metadata.row_group(group).num_rows
        parts = max(1, min(rows, ids // max(1, budget)))
        for first, end in spans(rows, -(-rows // parts)):
            if size + ids // parts > budget:
                found.append({"first": row + first, "end": 0, "group": group})
                size = 0
            found[-1]["end"] = row + end
            size += ids // parts
        row += rows
    return found


def blocks(path: Path, piece: dict[str, Any], field: str) -> Iterator[Block]:
    file = _open(path, field)
    row = sum(file.metadata.row_group(group).num_rows for group in range(piece["group"]))
    for group in range(piece["group"], file.num_row_groups):
        for batch in _batches(file, path, group, field):
            before = min(max(piece["first"] - row, 0), len(batch))
            mine = min(max(piece["end"] - row, before), len(batch))
            if mine > before:
                yield _block(batch.slice(before, mine - before), path, row + before, inside=True)
            if len(batch) > mine:
                yield _block(batch.slice(mine), path, row + mine, inside=False)
            row += len(batch)


def _block(rows: pa.Array, path: Path, first: int, inside: bool) -> Block:
    """A null row is an empty one."""
    lengths = pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = rows.flatten()
    if values.null_count:
        place = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        where = Block(np.zeros(0), offsets, first).place(place)
        raise DataError("An id is null", f"{path}, {where}", "Leave the row out.", "bad-ids")
    return Block(values.to_numpy(zero_copy_only=False), offsets, first, inside)


def _batches(file: pq.ParquetFile, path: Path, group: int, field: str) -> Iterator[pa.Array]:
    try:
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=[field]):
            yield batch.column(0)
    except (pa.ArrowException, OSError) as error:
        raise damaged(str(path), f"row group {group}: {str(error)[:120]}") from error


def _open(path: Path, field: str) -> pq.ParquetFile:
    if not path.stat().st_size:
        raise no_ids(str(path))
    try:
        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise damaged(str(path), str(error)[:120]) from error
    if field not in schema.names:
        hint = nearest(field, schema.names)
        raise RecipeError(f"No column {field!r} (ids_field)", str(path), hint, "no-field")
    kind = schema.field(field).type
    if not any(is_list(kind) for is_list in LISTS):
        hint = "Give a column of lists of ids (ids_field)."
        raise DataError(f"The column {field!r} holds {kind}, not lists", str(path), hint, "bad-ids")
    try:
        whole_numbers(kind.value_type.to_pandas_dtype(), str(path))
    except (NotImplementedError, TypeError):
        whole_numbers(np.object_, str(path))
    return file


def _ids_of_group(file: pq.ParquetFile, group: int, field: str) -> int:
    """As the footer has it; rows without ids count as one."""
    about = file.metadata.row_group(group)
    for number in range(about.num_columns):
        column = about.column(number)
        if column.path_in_schema.split(".")[0] == field:
            return column.num_values
    return about.num_rows
