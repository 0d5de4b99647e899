"""Safetensors written as a stream: one tensor in memory at a time, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Entry:
    """One tensor to write: `read` is called when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        numel = 1
        for size in self.shape:
            numel *= size
        return numel * torch.empty((), dtype=self.dtype).element_size()


def write_safetensors(stream: BinaryIO, entries: Sequence[Entry]) -> int:
    """Write entries in the given order (format of huggingface/safetensors, README); returns their
    number. The bytes depend on names, shapes, types and values alone."""
    header: dict = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": DTYPES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, offset + entry.bytes],
        }
        offset += entry.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for entry in entries:
        tensor = entry.read().detach().to(device="cpu", dtype=entry.dtype).contiguous()
        assert tuple(tensor.shape) == entry.shape, entry.name
        stream.write(tensor.view(-1).view(torch.uint8).numpy().data)
    return len(entries)
