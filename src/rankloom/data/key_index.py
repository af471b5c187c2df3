"""Finding the positions of keys, a column at a time; of two kinds, each a few arrays.

The arrays can be stored and used where they lie: a mapped file needs no building.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rankloom.data.hashing import Keys, hash_keys
from rankloom.data.texts import BLOCK_BYTES, Texts

Arrays = dict[str, npt.NDArray[Any]]

# A direct table may be this much longer than the number of keys; 16,384 entries always may.
_MAX_DIRECT_RATIO = 8
_ALWAYS_DIRECT = 1 << 14
_EMPTY = -1
# Most taken slots in a row. In a half full table of 2**31 keys the longest run has about a hundred.
_MAX_RUN = 4096
_SLOTS_AT_ONCE = 1 << 20

_INT64 = frozenset({np.dtype(np.int64)})
_TYPES: dict[str, tuple[frozenset[np.dtype[Any]], int]] = {
    "smallest": (_INT64, 0),
    "positions": (_INT64, 1),
    "seed": (_INT64, 0),
    "hashes": (frozenset({np.dtype(np.uint64)}), 1),
    "slots": (frozenset({np.dtype(np.int32), np.dtype(np.int64)}), 1),
    "keys": (_INT64, 1),
    "padded": (frozenset({np.dtype(np.uint8)}), 1),
    "offsets": (_INT64, 1),
}
"""Array of an index -> what it may be of, and how many dimensions it has."""
_KINDS_OF_INDEX = (
    {"smallest", "positions"},
    {"seed", "hashes", "slots", "keys"},
    {"seed", "hashes", "slots", "padded", "offsets"},
)


class KeyIndex(Protocol):
    """Finds keys; made by `build_key_index`."""

    @property
    def is_text(self) -> bool:
        """Tell whether the keys are strings."""
        ...

    @property
    def is_empty(self) -> bool:
        """Tell whether there is no key."""
        ...

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Give each value's position among the keys.

        Args:
            keys: (V,) of the keys' type.

        Returns:
            (V,) position, or -1 for a value that is no key.
        """
        ...

    def arrays(self) -> Arrays:
        """Give what the index consists of, for `index_of_arrays`."""
        ...


def build_key_index(keys: Keys) -> KeyIndex:
    """Choose and fill the fastest index for the keys.

    Args:
        keys: (K,) distinct, int64 or strings.
    """
    if not isinstance(keys, Texts):
        if len(keys) == 0:
            return DirectIndex.of(keys)
        span = int(keys.max()) - int(keys.min())
        if span < max(_MAX_DIRECT_RATIO * len(keys), _ALWAYS_DIRECT):
            return DirectIndex.of(keys)
    return HashIndex.of(keys)


def index_of_arrays(arrays: Arrays) -> KeyIndex:
    """Give the index that consists of these arrays; nothing is copied.

    Raises:
        ValueError: They are no index's, or of other types and sizes than an index has.
    """
    _check(arrays)
    if "positions" in arrays:
        return DirectIndex(arrays["smallest"], arrays["positions"])
    keys: Keys = (
        Texts(arrays["padded"], arrays["offsets"]) if "padded" in arrays else arrays["keys"]
    )
    return HashIndex(keys, arrays["seed"], arrays["hashes"], arrays["slots"])


class DirectIndex:
    """One entry for each integer between the smallest and the largest key.

    Args:
        smallest: () int64. The smallest key.
        positions: (span + 2,) int64. Position of each integer from the smallest key on, -1 where
            it is no key; one entry more, which every value outside is sent to.
    """

    is_text = False

    def __init__(self, smallest: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> None:
        self._smallest, self._positions = np.int64(smallest), positions

    @classmethod
    def of(cls, keys: npt.NDArray[np.int64]) -> DirectIndex:
        """Build it for (K,) distinct keys."""
        smallest = np.array(keys.min() if len(keys) else 0, np.int64)
        span = int(keys.max()) - int(smallest) + 1 if len(keys) else 0
        positions = np.full(span + 1, -1, np.int64)
        positions[keys - smallest] = np.arange(len(keys))
        return cls(smallest, positions)

    @property
    def is_empty(self) -> bool:
        """Tell whether there is no key."""
        return len(self._positions) == 1

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Give each value's position among the keys, or -1."""
        assert not isinstance(keys, Texts)
        # A value below the smallest key wraps to a huge unsigned number, hence past the end too.
        entries = (keys - self._smallest).view(np.uint64)
        np.minimum(entries, np.uint64(len(self._positions) - 1), out=entries)
        positions: npt.NDArray[np.int64] = self._positions[entries.view(np.int64)]
        return positions

    def arrays(self) -> Arrays:
        """Give what the index consists of."""
        return {"smallest": np.array(self._smallest), "positions": self._positions}


class HashIndex:
    """An open-addressing hash table with linear probing, a NumPy array at a time.

    It is filled once and then asked for small batches, where `pyarrow.compute.index_in` would hash
    all keys anew at each call and a binary search would miss the cache twenty times a row.

    Args:
        keys: (K,) distinct.
        seed: () int64. Of the hash.
        hashes: (K,) uint64. Of the keys, all different.
        slots: (a power of two,) int32 or int64. Position of the key in each slot, -1 where none is.
    """

    def __init__(
        self,
        keys: Keys,
        seed: npt.NDArray[np.int64],
        hashes: npt.NDArray[np.uint64],
        slots: npt.NDArray[Any],
    ) -> None:
        self._keys, self._seed, self._hashes, self._slots = keys, int(seed), hashes, slots
        self._mask = np.uint64(len(slots) - 1)

    @classmethod
    def of(cls, keys: Keys) -> HashIndex:
        """Build it for (K,) distinct keys."""
        seed, hashes = _distinct_hashes(keys)
        # At most half full, so that a search ends after one and a half probes on average.
        size = 1 << max(4, (2 * len(keys)).bit_length())
        slots = np.full(size, _EMPTY, np.int32 if len(keys) < 2**31 else np.int64)
        wanted_of_key = (hashes & np.uint64(size - 1)).view(np.int64)
        waiting = np.arange(len(hashes))
        while len(waiting):
            wanted = wanted_of_key[waiting]
            free = slots[wanted] == _EMPTY
            # Several keys may write to one slot; the one that stays has won it.
            slots[wanted[free]] = waiting[free]
            waiting = waiting[slots[wanted] != waiting]
            wanted_of_key[waiting] = (wanted_of_key[waiting] + 1) & (size - 1)
        return cls(keys, np.array(seed), hashes, slots)

    @property
    def is_text(self) -> bool:
        """Tell whether the keys are strings."""
        return isinstance(self._keys, Texts)

    @property
    def is_empty(self) -> bool:
        """Tell whether there is no key."""
        return not len(self._keys)

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Give each value's position among the keys, or -1."""
        if self.is_empty:
            return np.full(len(keys), -1)
        hashes = hash_keys(keys, seed=self._seed)
        slots = (hashes & self._mask).view(np.int64)
        found: npt.NDArray[np.int64] = self._slots[slots].astype(np.int64)
        # The entry of an empty slot is -1 and reads the last key; `found >= 0` sorts that out.
        waiting = np.flatnonzero((found >= 0) & (self._hashes[found] != hashes))
        while len(waiting):
            slots[waiting] = (slots[waiting] + 1) & int(self._mask)
            entries: npt.NDArray[np.int64] = self._slots[slots[waiting]].astype(np.int64)
            found[waiting] = entries
            waiting = waiting[(entries >= 0) & (self._hashes[entries] != hashes[waiting])]
        if isinstance(self._keys, Texts) and isinstance(keys, Texts):
            # Strings may share a key's 64-bit hash without being that key.
            found[~self._keys.equal_at(found, keys)] = -1
        return found

    def arrays(self) -> Arrays:
        """Give what the index consists of."""
        found: Arrays = {
            "seed": np.array(self._seed),
            "hashes": self._hashes,
            "slots": self._slots,
        }
        if isinstance(self._keys, Texts):
            return {**found, "padded": self._keys.padded, "offsets": self._keys.offsets}
        return {**found, "keys": self._keys}


def _check(arrays: Arrays) -> None:
    """Check what a search relies on: types, shapes, and that every search ends, and in range.

    Raises:
        ValueError: Something is otherwise.
    """
    names = set(arrays)
    if names not in _KINDS_OF_INDEX:
        raise ValueError(f"no key index consists of {', '.join(sorted(names)) or 'nothing'}")
    for name, array in arrays.items():
        types, ndim = _TYPES[name]
        # A type of the other byte order is another type.
        if array.dtype not in types or array.ndim != ndim or not array.flags.c_contiguous:
            raise ValueError(f"{name} is {array.dtype} of {array.ndim} dimensions, or not in a row")
    if "positions" in names:
        positions = arrays["positions"]
        if not len(positions) or positions.min() < _EMPTY or positions[-1] != _EMPTY:
            raise ValueError("positions is no table of positions")
        if positions.max() >= len(positions) - 1:
            raise ValueError("positions names a key that there is not")
        return
    num_keys = len(arrays["hashes"])
    _check_slots(arrays["slots"], num_keys)
    if arrays["seed"] < 0:
        raise ValueError("the seed is negative")
    if "keys" in names and len(arrays["keys"]) != num_keys:
        raise ValueError("there is not one hash for each key")
    if "offsets" in names:
        offsets, size = arrays["offsets"], len(arrays["padded"]) - BLOCK_BYTES
        is_whole = len(offsets) == num_keys + 1 and offsets[0] == 0 and offsets[-1] == size
        # Compared and not subtracted: a difference may wrap.
        if not is_whole or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("offsets do not part the texts")


def _check_slots(slots: npt.NDArray[Any], num_keys: int) -> None:
    """Check that a search ends at a key that there is, or at an empty slot, and soon.

    Raises:
        ValueError: It may not.
    """
    is_power = len(slots) > 0 and not len(slots) & (len(slots) - 1)
    if not is_power or 2 * num_keys > len(slots):
        raise ValueError("slots are no power of two, or too few for the keys")
    if slots.min() < _EMPTY or slots.max() >= num_keys:
        raise ValueError("a slot names a key that there is not")
    num_empty, last_empty, longest_run = 0, -1, 0
    # In parts, because the positions of all empty slots may take more memory than the slots.
    for first in range(0, len(slots), _SLOTS_AT_ONCE):
        empty = first + np.flatnonzero(slots[first : first + _SLOTS_AT_ONCE] == _EMPTY)
        if len(empty):
            longest_run = max(longest_run, int(np.diff(empty, prepend=last_empty).max()) - 1)
            num_empty, last_empty = num_empty + len(empty), int(empty[-1])
    if num_empty + num_keys != len(slots):
        raise ValueError("there is not one slot for each key")
    # A run that goes on at the start of the table is seen in two parts.
    if max(longest_run, len(slots) - 1 - last_empty) > _MAX_RUN:
        raise ValueError(f"more than {_MAX_RUN} slots in a row are taken")


def _distinct_hashes(keys: Keys) -> tuple[int, npt.NDArray[np.uint64]]:
    """Hash the keys with the first seed that gives each its own 64-bit hash."""
    seed = 0
    while True:
        hashes = hash_keys(keys, seed=seed)
        if len(np.unique(hashes)) == len(keys):
            return seed, hashes
        seed += 1
