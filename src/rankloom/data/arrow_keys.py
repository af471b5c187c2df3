"""Keys in Arrow, and their form in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.hashing import Keys
from rankloom.data.texts import Texts
from rankloom.errors import DataError


def is_string(kind: pa.DataType) -> bool:
    """Tell whether a type is one of Arrow's UTF-8 string types."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def normalize_keys(array: pa.Array, *, where: str) -> pa.Array:
    """Cast integers of any width to int64 and strings of any storage to large_string.

    Args:
        array: Nulls stay.
        where: Named in the error.

    Raises:
        DataError: The values are neither, or an unsigned one is beyond int64.
    """
    if pa.types.is_int64(array.type) or pa.types.is_large_string(array.type):
        return array
    if is_string(array.type):
        return pc.cast(array, pa.large_string())
    if not pa.types.is_integer(array.type):
        raise DataError(
            f"{where}: keys are integers or strings. Got {array.type}. Cast the column to one of "
            "the two."
        )
    try:
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: a key does not fit into int64. Got: {error}. Cast the column to string."
        ) from error


def keys_of(array: pa.Array) -> Keys:
    """Give integers as they are, without a copy, and strings as `Texts`.

    Args:
        array: (V,) integers of any width or strings of any storage, without nulls.

    Raises:
        DataError: The values are neither, or some are null.
    """
    if array.null_count:
        raise DataError(
            f"hashing: a null has no hash. Got {array.null_count} nulls among {len(array)} values. "
            "Fill them before hashing."
        )
    if pa.types.is_integer(array.type):
        integers: Keys = array.to_numpy(zero_copy_only=False)
        return integers
    if not is_string(array.type):
        raise DataError(
            f"hashing: only integers and strings can be hashed. Got {array.type}. "
            "Cast the column to one of the two."
        )
    if not len(array):
        return Texts.of([])
    array = pc.cast(array, pa.large_string())
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    return Texts.of_bytes(np.frombuffer(data_buffer or b"", np.uint8), offsets)


def keys_and_nulls(array: pa.Array) -> tuple[Keys, npt.NDArray[np.bool_] | None]:
    """Give keys with some value where there is none, and where that is.

    Args:
        array: (V,) integers or strings, or nulls of no type.

    Returns:
        keys: (V,).
        is_null: (V,), or nothing without nulls.
    """
    if pa.types.is_null(array.type):
        array = pc.cast(array, pa.int64())
    if not array.null_count:
        return keys_of(array), None
    filled = pc.fill_null(array, "" if is_string(array.type) else 0)
    return keys_of(filled), array.is_null().to_numpy(zero_copy_only=False)
