"""Safetensors files: written, read into tensors in place, or mapped.

The safetensors package makes a copy of all tensors before it writes, and of each that it reads:
beside a table that fills the memory there is no room for either. `array_files` has the format.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankloom.array_files import Entry, check_aligned, header_of, read_header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U64": torch.uint64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK_BYTES = 1 << 24


class Stored(NamedTuple):
    """Where a tensor stands in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Byte of the file."""
    stop: int
    """Byte after its last one."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file and give its sha256.

    Args:
        path: The file; replaced when it exists.
        tensors: By name; of any device. Those of one width stand in the order given.

    Raises:
        OSError: It cannot be written.
    """
    # The wide types first, so that each tensor is aligned.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in ordered:
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (struct.pack("<Q", len(text)), text):
            file.write(part)
            digest.update(part)
        for _, tensor in ordered:
            content = _bytes_of(tensor.detach().cpu().contiguous())
            for start in range(0, len(content), CHUNK_BYTES):
                piece = content[start : start + CHUNK_BYTES]
                file.write(piece)
                digest.update(piece)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a whole file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or damaged.
    """
    found = {name: torch.empty(at.shape, dtype=at.dtype) for name, at in describe(path).items()}
    read_into(path, found)
    return found


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Map a whole file into memory: nothing is read before it is used.

    Tensors that stand side by side in the file do so in memory. Writing to one does not change the
    file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or damaged.
    """
    entries = read_header(path)
    check_aligned(entries)
    stored = {name: _stored(one) for name, one in entries.items()}
    whole = torch.from_numpy(np.memmap(path, mode="c", dtype=np.uint8))
    return {
        name: whole[at.start : at.stop].view(at.dtype).view(at.shape)
        if at.stop > at.start
        else torch.empty(at.shape, dtype=at.dtype)
        for name, at in stored.items()
    }


def describe(path: Path) -> dict[str, Stored]:
    """Say what stands where in a file, in the header's order.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or damaged.
    """
    return {name: _stored(one) for name, one in read_header(path).items()}


@torch.no_grad()
def read_into(path: Path, targets: Mapping[str, Tensor]) -> None:
    """Overwrite tensors by those of the same names in a file, without a copy on the CPU.

    Args:
        path: The file.
        targets: Of the shapes in the file, which may hold more.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or damaged; a tensor is missing or has another shape.
    """
    with path.open("rb") as file:
        header = {name: _stored(one) for name, one in header_of(file).items()}
        for name, target in targets.items():
            if name not in header:
                raise ValueError(f"{name!r} is missing")
            at = header[name]
            if at.shape != tuple(target.shape):
                raise ValueError(f"{name} is {at.shape} there and {tuple(target.shape)} here")
            is_direct = target.device.type == "cpu" and target.dtype == at.dtype
            is_direct &= target.is_contiguous()
            place = target if is_direct else torch.empty(at.shape, dtype=at.dtype)
            file.seek(at.start)
            file.readinto(_bytes_of(place))
            if not is_direct:
                target.copy_(place)


def _stored(entry: Entry) -> Stored:
    return Stored(DTYPES[entry.kind], entry.shape, entry.start, entry.stop)


def _bytes_of(tensor: Tensor) -> memoryview:
    """Give a contiguous CPU tensor's memory."""
    flat = tensor.reshape(-1).view(torch.uint8)
    return flat.numpy().data
