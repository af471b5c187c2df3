"""Keys of one of two types, and finding their positions a column at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.hashing import hash_keys, is_string
from rankloom.errors import DataError

# A direct table may be this much longer than the number of keys; 16,384 entries always may.
_MAX_DIRECT_RATIO = 8
_ALWAYS_DIRECT = 1 << 14
_EMPTY = -1


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


class KeyIndex(Protocol):
    """Finds keys; made by `build_key_index`."""

    def find(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """Give each value's position among the keys.

        Args:
            values: (V,) of the keys' type, without nulls.

        Returns:
            (V,) position, or -1 for a value that is no key.
        """
        ...


def build_key_index(keys: pa.Array) -> KeyIndex:
    """Choose and fill the fastest index for the keys.

    Args:
        keys: (K,) distinct int64 or large_string, without nulls.
    """
    if pa.types.is_int64(keys.type):
        integers = keys.to_numpy()
        if len(integers) == 0:
            return DirectIndex(integers)
        span = int(integers.max()) - int(integers.min())
        if span < max(_MAX_DIRECT_RATIO * len(integers), _ALWAYS_DIRECT):
            return DirectIndex(integers)
    return HashIndex(keys)


class DirectIndex:
    """One entry for each integer between the smallest and the largest key."""

    def __init__(self, keys: npt.NDArray[np.int64]) -> None:
        self._smallest = np.int64(keys.min() if len(keys) else 0)
        span = int(keys.max()) - int(self._smallest) + 1 if len(keys) else 0
        # One entry more, which every value outside the range is sent to.
        self._positions = np.full(span + 1, -1, np.int64)
        self._positions[keys - self._smallest] = np.arange(len(keys))

    def find(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """Give each value's position among the keys, or -1."""
        # A value below the smallest key wraps to a huge unsigned number, hence past the end too.
        entries = (values.to_numpy() - self._smallest).view(np.uint64)
        np.minimum(entries, np.uint64(len(self._positions) - 1), out=entries)
        positions: npt.NDArray[np.int64] = self._positions[entries.view(np.int64)]
        return positions


class HashIndex:
    """An open-addressing hash table with linear probing, a NumPy array at a time.

    It is filled once and then asked for small batches, where `pyarrow.compute.index_in` would hash
    all keys anew at each call and a binary search would miss the cache twenty times a row.
    """

    def __init__(self, keys: pa.Array) -> None:
        self._keys = keys
        self._seed, self._hashes = _distinct_hashes(keys)
        # At most half full, so that a search ends after one and a half probes on average.
        size = 1 << max(4, (2 * len(keys)).bit_length())
        self._mask = np.uint64(size - 1)
        self._slots = np.full(size, _EMPTY, np.int32 if len(keys) < 2**31 else np.int64)
        self._fill()

    def _fill(self) -> None:
        slots = (self._hashes & self._mask).view(np.int64)
        waiting = np.arange(len(slots))
        while len(waiting):
            wanted = slots[waiting]
            free = self._slots[wanted] == _EMPTY
            # Several keys may write to one slot; the one that stays has won it.
            self._slots[wanted[free]] = waiting[free]
            lost = self._slots[wanted] != waiting
            waiting = waiting[lost]
            slots[waiting] = (slots[waiting] + 1) & int(self._mask)

    def find(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """Give each value's position among the keys, or -1."""
        hashes = hash_keys(values, seed=self._seed)
        slots = (hashes & self._mask).view(np.int64)
        found: npt.NDArray[np.int64] = self._slots[slots].astype(np.int64)
        # The entry of an empty slot is -1 and reads the last key; `found >= 0` sorts that out.
        waiting = np.flatnonzero((found >= 0) & (self._hashes[found] != hashes))
        while len(waiting):
            slots[waiting] = (slots[waiting] + 1) & int(self._mask)
            entries: npt.NDArray[np.int64] = self._slots[slots[waiting]].astype(np.int64)
            found[waiting] = entries
            waiting = waiting[(entries >= 0) & (self._hashes[entries] != hashes[waiting])]
        if not pa.types.is_int64(self._keys.type):
            self._drop_false_matches(values, found)
        return found

    def _drop_false_matches(self, values: pa.Array, found: npt.NDArray[np.int64]) -> None:
        """Undo matches of strings that share a key's 64-bit hash without being that key."""
        same = pc.equal(self._keys.take(pa.array(found, mask=found < 0)), values)
        is_same = np.asarray(
            pc.fill_null(same, fill_value=False).to_numpy(zero_copy_only=False), bool
        )
        found[~is_same] = -1


def _distinct_hashes(keys: pa.Array) -> tuple[int, npt.NDArray[np.uint64]]:
    """Hash the keys with the first seed that gives each its own 64-bit hash."""
    seed = 0
    while True:
        hashes = hash_keys(keys, seed=seed)
        if len(np.unique(hashes)) == len(keys):
            return seed, hashes
        seed += 1
