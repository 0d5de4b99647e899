"""Atomic writes, hashes and canonical JSON: the few file operations that every promise rests on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mutirao.core.errors import RecipeError, UserError

CHUNK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hash a file in chunks of 1 MiB (memory stays flat for files of any size)."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside `path`, fsync, rename: after a kill there is the old file or the new one.

    Raises UserError (code disk-full) when the disk has no room; the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_problem(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    write_atomic(path, lambda stream: stream.write(data))


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8"))


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot read JSON: {error}", str(path), "Run `mutirao store verify`.", "bad-json"
        ) from error


def fsync_directory(directory: Path) -> None:
    """Make a rename durable; skipped where directories cannot be opened (network mounts)."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def disk_problem(error: OSError, path: Path) -> UserError:
    """Turn ENOSPC, EDQUOT, EACCES and friends into a sentence with place and cure."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "The disk is full",
            str(path.parent),
            "Free space (`mutirao store gc` gives back unused results) or choose another "
            "--workdir; then run the same command again, finished work is kept.",
            "disk-full",
        )
    hint = "Check the permissions of the folder or choose another --workdir."
    return UserError(f"Cannot write: {error.strerror}", str(path), hint, "cannot-write")


def make_output_folder(folder: Path) -> None:
    """The folder that a command's --output names. Raises RecipeError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refused = "" if os.access(folder, os.W_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        refused = error.strerror or str(error)
    if refused:
        hint = "Choose another --output."
        raise RecipeError(f"Cannot write to --output: {refused}", str(folder), hint, "bad-output")
