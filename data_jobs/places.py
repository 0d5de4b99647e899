"""Where a source file lies: on this machine or behind a URL; one way to open, size and date it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Place:
    url: str  # an absolute path of this machine

    def open(self) -> BinaryIO:
        """A seekable binary stream. Raises OSError."""
        return open(self.url, "rb")

    def size(self) -> int:
        return Path(self.url).stat().st_size
