"""Tensors of the protocol, read from JSON or raw bytes. All raw numbers are little-endian."""

from __future__ import annotations

import math
import re
import struct
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from rankloom.data.plain_lists import shown
from rankloom.errors import RequestError

Array = npt.NDArray[Any]

NUMBERS = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatype -> what it is in NumPy."""
_TEXTS = "BYTES"
_FLAT: dict[str, msgspec.json.Decoder[Any]] = {
    "b": msgspec.json.Decoder(list[bool]),
    "i": msgspec.json.Decoder(list[int]),
    "u": msgspec.json.Decoder(list[int]),
    "f": msgspec.json.Decoder(list[float]),
}
"""NumPy's kind -> what reads JSON's values."""
_NESTED: dict[str, msgspec.json.Decoder[Any]] = {
    "b": msgspec.json.Decoder(list[list[bool]]),
    "i": msgspec.json.Decoder(list[list[int]]),
    "u": msgspec.json.Decoder(list[list[int]]),
    "f": msgspec.json.Decoder(list[list[float]]),
}
_OF_TEXTS = msgspec.json.Decoder(list[str])
_IS_NESTED = re.compile(rb"\s*\[\s*\[")
_MAX_LENGTH = 2**31 - 1
_read_length = struct.Struct("<I").unpack_from
_LENGTH_BYTES = 4


class TensorParameters(msgspec.Struct):
    """Where a tensor's values are."""

    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Raw bytes that hold them."""
    shared_memory_region: str | None = None
    """Refused."""


class TensorHead(msgspec.Struct):
    """A tensor of a request's JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | None = None
    data: msgspec.Raw = msgspec.Raw()
    """JSON that is not decoded yet: flat or nested values, row after row."""

    @property
    def where(self) -> str:
        """What errors call it; a hostile name is cut."""
        return f"input {self.name[:200]!r}"

    @property
    def raw_bytes(self) -> int | None:
        """How many raw bytes hold the values; none if JSON does."""
        return self.parameters.binary_data_size if self.parameters else None


class Tensor(msgspec.Struct, frozen=True):
    """A decoded tensor. It may share memory with the request's body."""

    where: str
    """What errors call it."""
    shape: list[int]
    """Of one or two dimensions; texts have one."""
    values: Array | list[str]
    """Numbers of that shape, or texts."""

    def tolist(self) -> list[Any]:
        """Give the values as Python's."""
        return self.values if isinstance(self.values, list) else self.values.tolist()


def decode_tensor(head: TensorHead, raw: memoryview | None) -> Tensor:
    """Check a tensor and give its values.

    Args:
        head: What the JSON says of it.
        raw: Its raw bytes, if it has such.

    Raises:
        RequestError: Datatype, shape and values do not fit each other, or are none.
    """
    if problem := _wrong_head(head):
        raise RequestError(f"{head.where}: {problem}")
    data = bytes(head.data)
    has_data = data not in (b"", b"null")
    if has_data == (raw is not None):
        raise RequestError(
            f"{head.where}: must have either `data` or raw bytes. Got "
            f"{'both' if has_data else 'neither'}. Give `data`, or `binary_data_size` among its "
            "parameters and the header Inference-Header-Content-Length."
        )
    try:
        values = _json_values(head, data) if raw is None else _raw_values(head, raw)
    except (ValueError, OverflowError) as error:
        # Texts that are no UTF-8, values that are not of the type, numbers that are too large.
        raise RequestError(
            f"{head.where}: does not hold {head.datatype}. Got: {str(error)[:500]}. Change the "
            "values or the datatype."
        ) from None
    return Tensor(head.where, head.shape, values)


def _wrong_head(head: TensorHead) -> str:
    """Tell what is wrong with datatype, shape or parameters; nothing if they are fine."""
    if head.parameters and head.parameters.shared_memory_region is not None:
        return "there is no shared memory here. Send the values."
    ranks = (1,) if head.datatype == _TEXTS else (1, 2)
    if head.datatype not in NUMBERS and head.datatype != _TEXTS:
        known = ", ".join((*NUMBERS, _TEXTS))
        return f"unknown datatype. Got {shown(head.datatype)}. Give one of {known}."
    if len(head.shape) not in ranks:
        return (
            f"{head.datatype} has {' or '.join(map(str, ranks))} dimensions. Got shape "
            f"{shown(head.shape)}. Reshape it."
        )
    if min(head.shape) < 0 or max(head.shape) > _MAX_LENGTH:
        return f"lengths are 0 to {_MAX_LENGTH}. Got shape {shown(head.shape)}. Give the lengths."
    return ""


def _raw_values(head: TensorHead, raw: memoryview) -> Array | list[str]:
    count = math.prod(head.shape)
    if head.datatype == _TEXTS:
        texts = _cut_texts(bytes(raw), count)
        if texts is None:
            raise RequestError(
                f"{head.where}: {len(raw)} bytes are not {count} texts, each behind the 4 bytes of "
                f"its length. Got shape {head.shape}. Send all texts, and no more."
            )
        return [text.decode() for text in texts]
    dtype = NUMBERS[head.datatype]
    if len(raw) != count * dtype.itemsize:
        raise RequestError(
            f"{head.where}: {head.datatype} of shape {head.shape} has {count * dtype.itemsize} "
            f"bytes. Got {len(raw)}. Send all values, and no more."
        )
    if head.datatype == "BOOL":
        flags = np.frombuffer(raw, np.uint8)
        if (flags > 1).any():
            raise RequestError(
                f"{head.where}: a BOOL's byte is 0 or 1. Got {flags.max()}. Send one of them."
            )
        return flags.view(np.bool_).reshape(head.shape)
    return np.frombuffer(raw, dtype).reshape(head.shape)


def _cut_texts(data: bytes, count: int) -> list[bytes] | None:
    """Cut bytes into texts; none if they are not so many."""
    texts, at = [], 0
    try:
        # Each length says where the next one stands: this cannot be done a whole column at a time.
        for _ in range(count):
            first = at + _LENGTH_BYTES
            at = first + _read_length(data, at)[0]
            texts.append(data[first:at])
    except struct.error:
        return None
    return texts if at == len(data) else None


def _json_values(head: TensorHead, data: bytes) -> Array | list[str]:
    shape = head.shape
    if head.datatype == _TEXTS:
        texts = _OF_TEXTS.decode(data)
        _check_count(head, len(texts) == shape[0])
        return texts
    dtype = NUMBERS[head.datatype]
    if len(shape) == 2 and _IS_NESTED.match(data):
        # Counted first: to make a million empty lists takes a second.
        _check_count(head, data.count(b"[") == shape[0] + 1)
        rows = _NESTED[dtype.kind].decode(data)
        _check_count(head, len(rows) == shape[0] and all(len(row) == shape[1] for row in rows))
        values: list[Any] = list(chain.from_iterable(rows))
    else:
        values = _FLAT[dtype.kind].decode(data)
        _check_count(head, len(values) == math.prod(shape))
    # Infinity is an error of the column's; only integers are refused here.
    with np.errstate(over="ignore"):
        return np.array(values, dtype).reshape(shape)


def _check_count(head: TensorHead, is_right: bool) -> None:
    if not is_right:
        raise RequestError(
            f"{head.where}: `data` is not of shape {head.shape}. Got another number of values. "
            "Give all, and no more."
        )
