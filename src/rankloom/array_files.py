"""Safetensors files as NumPy sees them: what stands where, and arrays mapped; needs no torch.

The format is simple: the length of a JSON header (8 bytes), the header, and the tensors' bytes one
after the other. Nothing in a file is trusted: a wrong header is a `ValueError` that says what is
wrong; the caller names the file and says what to do.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "U64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Type, as files call it -> bytes of one number."""
MAX_HEADER_BYTES = 1 << 27
MAX_DIMS = 64
_OF_NUMPY: dict[str, npt.DTypeLike] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "U64": "<u8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


class Entry(NamedTuple):
    """Where a tensor stands in a file."""

    kind: str
    """Its type, as files call it."""
    shape: tuple[int, ...]
    start: int
    """Byte of the file."""
    stop: int
    """Byte after its last one."""


def map_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map a whole file into memory, read-only: nothing is read before it is used.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, damaged, or of a type that NumPy has not.
    """
    entries = read_header(path)
    check_aligned(entries)
    odd = [name for name, at in entries.items() if at.kind not in _OF_NUMPY]
    if odd:
        raise ValueError(f"{odd[0]} is {entries[odd[0]].kind}, a type that NumPy has not")
    whole = np.memmap(path, mode="r", dtype=np.uint8)
    return {
        name: whole[at.start : at.stop].view(_OF_NUMPY[at.kind]).reshape(at.shape)
        for name, at in entries.items()
    }


def check_aligned(entries: dict[str, Entry]) -> None:
    """Check that every number begins where a processor reads it.

    Raises:
        ValueError: One does not.
    """
    for name, at in entries.items():
        if at.start % ITEM_BYTES[at.kind]:
            raise ValueError(f"{name} begins in the middle of a number")


def read_header(path: Path) -> dict[str, Entry]:
    """Say what stands where in a file, in the header's order; all of it is checked.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or damaged.
    """
    with path.open("rb") as file:
        return header_of(file)


def header_of(file: BinaryIO) -> dict[str, Entry]:
    """Read the header of an open file and check all of it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or damaged.
    """
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
    return {name: _entry(name, about, 8 + length, size) for name, about in header.items()}


def _entry(name: str, about: Any, first: int, size: int) -> Entry:
    """Check one entry of the header.

    Args:
        name: Of the tensor.
        about: What the header says of it.
        first: Byte where the tensors begin.
        size: Of the file, in bytes.
    """
    try:
        kind, shape = about["dtype"], tuple(about["shape"])
        item_bytes = ITEM_BYTES[kind]
        start, stop = about["data_offsets"]
        is_whole = all(type(one) is int and one >= 0 for one in (*shape, start, stop))
    except (KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"its header does not say what {name} is")
    if stop - start != math.prod(shape) * item_bytes:
        raise ValueError(f"{name} has not the bytes of its shape {shape}")
    # Of a tensor without elements the file's size bounds nothing.
    if math.prod(max(1, one) for one in shape) > 1 << 62 or len(shape) > MAX_DIMS:
        raise ValueError(f"{name} has a shape that is too large")
    if first + stop > size:
        raise ValueError(f"{name} is cut off")
    return Entry(kind, shape, first + start, first + stop)
