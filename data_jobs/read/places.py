"""Where a source file lies: on this machine or behind a URL; one way to open, size and date it.

In: an absolute path, `s3://BUCKET/KEY`, `gs://BUCKET/KEY` or `hf://datasets/OWNER/NAME[@REV]/FILE`.
Out: streams that the readers take without knowing which it was. What goes wrong in a store (no
network, no credentials) stops the run by name; it is never taken for damage of the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

REMOTE_BLOCK = 8 << 20  # one request of a stream from a store: a round trip costs 10 to 100 ms


@dataclass(frozen=True)
class Place:
    url: str  # an absolute path of this machine, or a URL

    @property
    def remote(self) -> bool:
        return "://" in self.url

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    def open(self) -> BinaryIO:
        """A seekable, buffered binary stream. Raises OSError, of a store UserError."""
        if not self.remote:
            return open(self.url, "rb")
        return cast(BinaryIO, io.BufferedReader(_Remote(self), REMOTE_BLOCK))

    def native(self) -> pa.NativeFile:
        """Random access for Arrow and Parquet; a local file is mapped, not read."""
        if not self.remote:
            return pa.memory_map(self.url)
        from data_jobs.read.stores import filesystem, key_of

        with said_of(self.url):
            return filesystem(self.url).open_input_file(key_of(self.url))

    def size(self) -> int:
        """Bytes. Raises OSError (FileNotFoundError where nothing is), of a store UserError."""
        return self.status()[0]

    def status(self) -> tuple[int, str]:
        """(bytes, a mark that changes with the content: time of change or version)."""
        if not self.remote:
            found = Path(self.url).stat()
            return found.st_size, str(found.st_mtime_ns)
        from data_jobs.read.stores import status

        with said_of(self.url):
            return status(self.url)


@contextmanager
def said_of(url: str) -> Iterator[None]:
    """Errors of a store come out as UserError; FileNotFoundError and those of the file pass."""
    try:
        yield
    except Exception as error:
        if (problem := store_problem(url, error)) is not None:
            raise problem from error
        raise


def store_problem(url: str, error: Exception) -> Exception | None:
    """The UserError for what a store said, or None where the file itself is to blame."""
    if "://" not in url:
        return None
    from data_jobs.read.stores import problem

    return problem(url, error)


class _Remote(io.RawIOBase):
    """A file of a store, as io.BufferedReader wants it."""

    def __init__(self, place: Place):
        self._url, self._file = place.url, place.native()

    def readinto(self, buffer: Any) -> int:
        with said_of(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
