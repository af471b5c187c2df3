"""Safetensors files, written and read in place.

The safetensors package makes a copy of all tensors before it writes, and of each that it reads:
beside a table that fills the memory there is no room for either. The format is simple: the length
of a JSON header (8 bytes), the header, and the tensors' bytes one after the other.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rankloom.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK_BYTES = 1 << 24


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file and give its sha256.

    Args:
        path: The file; replaced when it exists.
        tensors: By name; of any device.

    Raises:
        OSError: It cannot be written.
    """
    # The wide types first, so that each tensor is aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
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
        CheckpointError: It cannot be read.
    """
    found = {name: torch.empty(shape, dtype=t) for name, (t, shape) in describe(path).items()}
    read_into(path, found)
    return found


def describe(path: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Give dtype and shape of each tensor in a file.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            header, _ = _header(file)
        return {
            name: (DTYPES[about["dtype"]], tuple(about["shape"])) for name, about in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise _unreadable(path, error) from None


@torch.no_grad()
def read_into(path: Path, targets: Mapping[str, Tensor]) -> None:
    """Overwrite tensors by those of the same names in a file, without a copy on the CPU.

    Args:
        path: The file.
        targets: Of the shapes in the file, which may hold more.

    Raises:
        CheckpointError: It cannot be read, or a tensor is missing or has another shape.
    """
    try:
        with path.open("rb") as file:
            header, first = _header(file)
            for name, target in targets.items():
                about = header[name]
                dtype, shape = DTYPES[about["dtype"]], tuple(about["shape"])
                if shape != tuple(target.shape):
                    raise ValueError(f"{name} is {shape} there and {tuple(target.shape)} here")
                is_direct = target.device.type == "cpu" and target.dtype == dtype
                is_direct &= target.is_contiguous()
                place = target if is_direct else torch.empty(shape, dtype=dtype)
                content = _bytes_of(place)
                file.seek(first + about["data_offsets"][0])
                if file.readinto(content) != len(content):
                    raise ValueError(f"{name} is cut off")
                if not is_direct:
                    target.copy_(place)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise _unreadable(path, error) from None


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Give the header, and where the tensors begin."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > 1 << 27:
        raise ValueError(f"its header would have {length} bytes")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise TypeError("its header is no mapping")
    header.pop("__metadata__", None)
    return header, 8 + length


def _bytes_of(tensor: Tensor) -> memoryview:
    """Give a contiguous CPU tensor's memory."""
    flat = tensor.reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    what = f"{error} is missing" if isinstance(error, KeyError) else error
    return CheckpointError(f"{path}: cannot be read ({what}). Use another checkpoint.")
