"""Columns as raw bytes inside msgpack: arrays, texts and lists of different lengths.

Each is an extension type; docs/wire.md gives its bytes. Reading copies no numbers.

Shapes: N values, or lists.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeGuard

import msgspec
import numpy as np

from rankloom.data.columns import Array, Ints, offsets_of
from rankloom.data.plain_lists import Ragged
from rankloom.data.texts import Texts

Buffer = Array | Texts | Ragged

ARRAY, TEXTS, RAGGED = 1, 2, 3
"""Codes of the extension types."""
DTYPES = {
    1: np.dtype(np.bool_),
    2: np.dtype("<i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<u1"),
    7: np.dtype("<u2"),
    8: np.dtype("<u4"),
    9: np.dtype("<u8"),
    10: np.dtype("<f4"),
    11: np.dtype("<f8"),
}
_ARRAY_HEAD = struct.Struct("<BBHI")
_MATRIX_HEAD = struct.Struct("<4xII")
_TEXTS_HEAD = struct.Struct("<I")
_RAGGED_HEAD = struct.Struct("<II")
_LENGTH = np.dtype("<u4")
# Without the byte order, which is mended while encoding.
_CODES = {dtype.str[1:]: code for code, dtype in DTYPES.items()}
_DTYPE_OF = {int: np.int64, float: np.float64, bool: np.bool_}


class BufferFormatError(ValueError):
    """The bytes of a buffer are wrong. It reads `what is wrong. Got x. What to do`."""


def encode_buffer(value: Any) -> Any:
    """Give what msgpack knows for a value that it does not know: a hook for its encoder.

    Raises:
        TypeError: Nothing stands for such a value.
    """
    if isinstance(value, np.ma.MaskedArray):
        return value.tolist()
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biufU" and value.itemsize <= 8:
        return value.item()
    if isinstance(value, Texts):
        return msgspec.msgpack.Ext(TEXTS, _text_bytes(value))
    if isinstance(value, Ragged):
        inner = encode_buffer(value.values)
        if not isinstance(inner, msgspec.msgpack.Ext):
            return value.tolist()
        head = _RAGGED_HEAD.pack(inner.code, len(value))
        lengths = np.diff(value.offsets).astype(_LENGTH).tobytes()
        return msgspec.msgpack.Ext(RAGGED, head + lengths + bytes(inner.data))
    kind = value.dtype if isinstance(value, np.generic) else type(value).__name__
    raise TypeError(f"{kind} cannot be sent")


def _of_array(array: Array) -> Any:
    if array.ndim == 0:
        return array.item()
    if array.dtype.kind in "UO":
        return packed(array.tolist())
    if array.ndim == 2 and not array.shape[1]:
        # Any number of rows would fit into no bytes: the reader refuses that.
        return array.tolist()
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    code = _CODES.get(array.dtype.str[1:])
    if code is None or array.ndim > 2:
        raise TypeError(f"an array of {array.dtype} in {array.ndim} dimensions cannot be sent")
    head = struct.pack(f"<BBH{array.ndim}I", code, array.ndim, 0, *array.shape)
    return msgspec.msgpack.Ext(ARRAY, head + array.astype(DTYPES[code], copy=False).tobytes())


def _text_bytes(texts: Texts) -> bytes:
    first, last = int(texts.offsets[0]), int(texts.offsets[-1])
    lengths = texts.lengths.astype(_LENGTH).tobytes()
    return _TEXTS_HEAD.pack(len(texts)) + lengths + texts.padded[first:last].tobytes()


def packed(value: Any) -> Any:
    """Give a column's value as it is sent: as a buffer, if one holds just what the value holds.

    Raises:
        TypeError: Nothing stands for such a value.
    """
    found = _as_buffer(value)
    # msgspec would take the two for mappings, since they are data classes.
    return encode_buffer(found) if isinstance(found, np.ndarray | Texts | Ragged) else found


def _as_buffer(value: Any) -> Any:
    """Give a buffer in place of a list; all else, and mixed lists, as it is."""
    if not isinstance(value, list | tuple) or not value:
        return value
    kinds = set(map(type, value))
    if kinds <= {list, tuple}:
        return _as_ragged(value)
    if len(kinds) > 1:
        return value
    kind = kinds.pop()
    if kind in _DTYPE_OF:
        return _as_numbers(value, _DTYPE_OF[kind])
    if kind is str:
        try:
            return Texts.of(value)
        except UnicodeEncodeError:
            return value
    if kind is np.ndarray:
        is_flat = {(one.ndim, one.dtype) for one in value} == {(1, value[0].dtype)}
        return _with_offsets(np.concatenate(value), value) if is_flat else value
    return np.array(value) if issubclass(kind, np.number) else value


def _as_numbers(values: Sequence[Any], dtype: Any) -> Any:
    try:
        return np.array(values, dtype)
    except OverflowError:
        # Beyond int64: ids may take all 64 bits.
        return values if dtype is np.uint64 else _as_numbers(values, np.uint64)


def _as_ragged(values: Sequence[Sequence[Any]]) -> Any:
    entries = list(chain.from_iterable(values))
    inner = _as_buffer(entries) if entries else np.empty(0, np.int64)
    return _with_offsets(inner, values) if _is_flat(inner) else values


def _with_offsets(inner: Array | Texts, lists: Sequence[Any]) -> Ragged:
    return Ragged(inner, offsets_of(np.fromiter(map(len, lists), np.int64, len(lists))))


def decode_buffer(code: int, data: memoryview) -> Buffer:
    """Give what an extension type holds; arrays are views of the data.

    Raises:
        BufferFormatError: Its bytes are wrong.
    """
    if code == ARRAY:
        return _read_array(data)
    if code == TEXTS:
        return _read_texts(data)
    if code == RAGGED:
        return _read_ragged(data)
    raise BufferFormatError(
        f"must be of type {ARRAY} (array), {TEXTS} (texts) or {RAGGED} (lists). Got {code}. "
        "Send one of these, or a plain value."
    )


def _read_array(data: memoryview) -> Array:
    code, ndim, zero, length = _unpack(_ARRAY_HEAD, data)
    if code not in DTYPES or ndim not in {1, 2} or zero:
        raise BufferFormatError(
            f"must have a type from 1 to {len(DTYPES)}, 1 or 2 dimensions and two zero bytes. Got "
            f"{code}, {ndim} and {zero}. Send the head as documented."
        )
    dtype, start = DTYPES[code], 4 + 4 * ndim
    width = 1 if ndim == 1 else _unpack(_MATRIX_HEAD, data)[1]
    if not width:
        raise BufferFormatError(
            f"must have at least 1 value a row. Got {length} rows of 0. Send empty lists."
        )
    _check_size(length * width * dtype.itemsize, len(data) - start)
    array: Array = np.ndarray((length, width)[:ndim], dtype, data, start)
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise BufferFormatError("must hold bytes 0 and 1. Got another. Send truth values so.")
    return array


def _read_texts(data: memoryview) -> Texts:
    (count,) = _unpack(_TEXTS_HEAD, data)
    offsets = _read_lengths(data, 4, count)
    text = data[4 + 4 * count :]
    _check_size(int(offsets[-1]), len(text))
    units = np.frombuffer(text, np.uint8)
    try:
        characters = len(str(text, "utf-8"))
    except UnicodeDecodeError as error:
        raise BufferFormatError(
            f"must be UTF-8. Got {error.reason}. Encode the texts so."
        ) from None
    if characters < len(units):
        # A text must not begin inside a character; where it would begin at the end, it is empty.
        starts = offsets[:-1][offsets[:-1] < len(units)]
        if ((units[starts] & 0xC0) == 0x80).any():
            raise BufferFormatError(
                "must have lengths of whole characters. Got a part of one. Count bytes."
            )
    return Texts.of_bytes(units, offsets)


def _read_ragged(data: memoryview) -> Ragged:
    code, count = _unpack(_RAGGED_HEAD, data)
    offsets = _read_lengths(data, 8, count)
    if code not in {ARRAY, TEXTS}:
        raise BufferFormatError(
            f"must hold an array ({ARRAY}) or texts ({TEXTS}). Got {code}. Send plain lists."
        )
    values = decode_buffer(code, data[8 + 4 * count :])
    if not _is_flat(values) or len(values) != offsets[-1]:
        raise BufferFormatError(
            f"must hold as many values as its lists, in one dimension. Got {len(values)} for lists "
            f"of {offsets[-1]}. Send one value for each place."
        )
    return Ragged(values, offsets)


def _is_flat(values: Any) -> TypeGuard[Array | Texts]:
    return isinstance(values, Texts) or (isinstance(values, np.ndarray) and values.ndim == 1)


def _read_lengths(data: memoryview, start: int, count: int) -> Ints:
    """Give (count + 1,) offsets."""
    if len(data) - start < 4 * count:
        raise BufferFormatError(
            f"must have {count} lengths, of 4 bytes each. Got {len(data) - start} bytes. "
            "Send all of them."
        )
    lengths = np.ndarray(count, _LENGTH, data, start)
    return offsets_of(lengths.astype(np.int64))


def _unpack(head: struct.Struct, data: memoryview) -> tuple[Any, ...]:
    if len(data) < head.size:
        raise BufferFormatError(f"ends within its head. Got {len(data)} bytes. Send all of it.")
    return head.unpack_from(data)


def _check_size(expected: int, size: int) -> None:
    if expected != size:
        raise BufferFormatError(
            f"must have as many bytes as its sizes say, {expected}. Got {size}. "
            "Send the sizes of what follows."
        )
