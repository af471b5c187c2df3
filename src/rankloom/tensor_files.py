"""Safetensors files: written, read into tensors in place, or mapped.

The safetensors package makes a copy of all tensors before it writes, and of each that it reads:
beside a table that fills the memory there is no room for either. The format is simple: the length
of a JSON header (8 bytes), the header, and the tensors' bytes one after the other. Nothing in a
file is trusted: a wrong header is a `ValueError` that says what is wrong; the caller names the
file and says what to do.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

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
MAX_HEADER_BYTES = 1 << 27
MAX_DIMS = 64


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
    stored = describe(path)
    for name, at in stored.items():
        if at.start % at.dtype.itemsize:
            raise ValueError(f"{name} begins in the middle of a number")
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
    with path.open("rb") as file:
        return _header(file)


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
        header = _header(file)
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


def _header(file: BinaryIO) -> dict[str, Stored]:
    """Read the header and check all of it."""
    size = file.seek(0, 2)
    file.seek(0)
    if size < 8:
        raise ValueError(f"has {size} bytes, too few for a header")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"its header would have {length} bytes")
    try:
        header = json.loads(file.read(length))
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")  # noqa: TRY004 (of a file, not of a caller)
    header.pop("__metadata__", None)
    return {name: _stored(name, about, 8 + length, size) for name, about in header.items()}


def _stored(name: str, about: Any, first: int, size: int) -> Stored:
    """Check one entry of the header.

    Args:
        name: Of the tensor.
        about: What the header says of it.
        first: Byte where the tensors begin.
        size: Of the file, in bytes.
    """
    try:
        dtype, shape = DTYPES[about["dtype"]], tuple(about["shape"])
        start, stop = about["data_offsets"]
        is_whole = all(type(one) is int and one >= 0 for one in (*shape, start, stop))
    except (KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"its header does not say what {name} is")
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has not the bytes of its shape {shape}")
    # Of a tensor without elements the file's size bounds nothing.
    if math.prod(max(1, one) for one in shape) > 1 << 62 or len(shape) > MAX_DIMS:
        raise ValueError(f"{name} has a shape that is too large")
    if first + stop > size:
        raise ValueError(f"{name} is cut off")
    return Stored(dtype, shape, first + start, first + stop)


def _bytes_of(tensor: Tensor) -> memoryview:
    """Give a contiguous CPU tensor's memory."""
    flat = tensor.reshape(-1).view(torch.uint8)
    return flat.numpy().data
