"""Columns of items, used where they lie in a mapped Arrow file.

What is taken out is what a client would send: arrays, texts, (N, dim) vectors, lists; null is none,
and NaN in a column of floats. A missing item's vector is zeros: the one thing that may stand for
it, and an array still, which costs a fraction of lists.

Shapes: K items, N candidates.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Array, Bools, Ints, expand_ranges, offsets_of
from rankloom.data.plain_lists import Ragged
from rankloom.data.texts import Texts

Values = Array | Texts | Ragged | list[Any]
"""N values of a column; a list where some are null."""


class StoredValues(Protocol):
    """One column of K items."""

    def take(self, items: Ints, is_missing: Bools | None) -> Values:
        """Give N items' values.

        Args:
            items: (N,) positions, below K.
            is_missing: (N,) where null, or a vector of zeros, is given instead; or none.
        """
        ...


def stored_values(array: pa.Array) -> StoredValues:
    """Choose how an Arrow column is used; nothing is copied but which values are null."""
    kind = array.type
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    if pa.types.is_fixed_size_list(kind):
        return _Numbers(_numbers(array.values).reshape(-1, kind.list_size), valid)
    if pa.types.is_large_list(kind):
        return _Lists(array.offsets.to_numpy(), stored_values(array.values), valid)
    if pa.types.is_large_string(kind):
        return _Texts(array, valid)
    return _Numbers(_numbers(array), valid)


class _Numbers:
    """Integers, floats or vectors.

    Args:
        values: (K,) or (K, dim).
        valid: (K,) where there is one, or none where no value is null.
    """

    def __init__(self, values: Array, valid: Bools | None) -> None:
        self._values, self._valid = values, valid

    def take(self, items: Ints, is_missing: Bools | None) -> Values:
        """Give N items' values."""
        found = self._values[items]
        if is_missing is not None and found.ndim == 2:
            found[is_missing] = 0
            is_missing = None
        is_null = _nulls(items, is_missing, self._valid)
        if is_null is not None and found.ndim == 1 and found.dtype.kind == "f":
            found[is_null] = np.nan
            return found
        return _with_null(found, is_null)


class _Texts:
    """Texts.

    Args:
        array: (K,) large_string.
        valid: (K,) or none.
    """

    def __init__(self, array: pa.Array, valid: Bools | None) -> None:
        _, offsets, data = array.buffers()
        self._offsets: Ints = np.frombuffer(offsets, np.int64)
        self._bytes = np.frombuffer(data or b"", np.uint8)
        self._valid = valid

    def take(self, items: Ints, is_missing: Bools | None) -> Values:
        """Give N items' texts."""
        starts = self._offsets[items]
        lengths = self._offsets[items + 1] - starts
        data = self._bytes[expand_ranges(starts, lengths)]
        found = Texts.of_bytes(data, offsets_of(lengths))
        return _with_null(found, _nulls(items, is_missing, self._valid))


class _Lists:
    """Lists of any length.

    Args:
        offsets: (K + 1,).
        entries: Of all lists.
        valid: (K,) or none.
    """

    def __init__(self, offsets: Ints, entries: StoredValues, valid: Bools | None) -> None:
        self._offsets, self._entries, self._valid = offsets, entries, valid

    def take(self, items: Ints, is_missing: Bools | None) -> Values:
        """Give N items' lists."""
        starts = self._offsets[items]
        lengths = self._offsets[items + 1] - starts
        entries = self._entries.take(expand_ranges(starts, lengths), None)
        # Entries that are null stand in a list, which this takes too.
        found = Ragged(entries, offsets_of(lengths))  # type: ignore[arg-type]
        is_null = _nulls(items, is_missing, self._valid)
        return _with_null(found.tolist() if isinstance(entries, list) else found, is_null)


def _numbers(array: pa.Array) -> Array:
    """View the numbers of an array; anything where one is null."""
    kind = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1] or b"", kind)[array.offset : array.offset + len(array)]


def _nulls(items: Ints, is_missing: Bools | None, valid: Bools | None) -> Bools | None:
    """Mark the N places of null, or give none where there is not any."""
    is_null = is_missing
    if valid is not None:
        is_null = ~valid[items] if is_missing is None else is_missing | ~valid[items]
    return is_null if is_null is not None and is_null.any() else None


def _with_null(values: Values, is_null: Bools | None) -> Values:
    if is_null is None:
        return values
    found: list[Any] = values if isinstance(values, list) else values.tolist()
    for at in np.flatnonzero(is_null).tolist():
        found[at] = None
    return found
