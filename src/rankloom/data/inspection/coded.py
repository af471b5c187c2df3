"""A column's values as codes into its distinct values, whatever their Arrow type.

One pass through a hash table gives what all of the inspection asks of a column: counts, distinct
values, a hash and a number of each value.

Shapes: n values, d distinct ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.arrow_keys import is_string, keys_of
from rankloom.data.columns import Ints, offsets_of
from rankloom.data.hashing import hash_keys
from rankloom.data.raw import list_lengths

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

NULL_HASH = np.uint64(0x9E3779B97F4A7C15)
_SEED = 0x1A5BEC7
_LIST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, eq=False)
class Coded:
    """(n,) values of one column."""

    dictionary: pa.Array
    """(d,) the distinct values, without null."""
    codes: Ints
    """(n,) place of each value in the dictionary, or d for null."""

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, array: pa.Array) -> Coded:
        """Encode numbers, texts, booleans, times or a dictionary of them."""
        array = _plain(array)
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        codes = pc.fill_null(array.indices, len(array.dictionary))
        return cls(array.dictionary, codes.to_numpy(zero_copy_only=False).astype(np.int64))

    @cached_property
    def counts(self) -> Ints:
        """(d,) how often each value stands here."""
        return np.bincount(self.codes, minlength=len(self.dictionary) + 1)[:-1]

    @cached_property
    def hashes(self) -> Hashes:
        """(d,) hash of each distinct value."""
        return _hash_distinct(self.dictionary)

    @cached_property
    def numbers(self) -> Floats:
        """(d,) each distinct value as a number; NaN for texts."""
        return _numbers(self.dictionary)

    def row_hashes(self, at: Ints | slice = slice(None)) -> Hashes:
        """Give the hash of some values, `NULL_HASH` for null."""
        return np.append(self.hashes, NULL_HASH)[self.codes[at]]

    def row_numbers(self, at: Ints | slice = slice(None)) -> Floats:
        """Give some values as numbers, NaN for null."""
        return np.append(self.numbers, np.nan)[self.codes[at]]


def hash_lists(array: pa.Array) -> Hashes:
    """Give (n,) a hash of each list: of its values and their order."""
    lengths = list_lengths(array)
    offsets = offsets_of(lengths)
    values = Coded.of(array.flatten()).row_hashes()
    places = np.arange(len(values), dtype=np.uint64) - np.repeat(offsets[:-1], lengths).astype(
        np.uint64
    )
    # A sum wraps around and needs no loop; the factor depends on the place, so order counts.
    summed = np.concatenate([[np.uint64(0)], np.cumsum(values * (2 * places + 1))])
    hashes: Hashes = (summed[offsets[1:]] - summed[offsets[:-1]]) * _LIST_FACTOR
    hashes ^= lengths.astype(np.uint64)
    return hash_keys(hashes, seed=_SEED)


def combine(hashes: list[Hashes]) -> Hashes:
    """Give (n,) one hash of several columns' hashes."""
    combined = hashes[0]
    for one in hashes[1:]:
        combined = hash_keys(combined ^ (one * _LIST_FACTOR), seed=_SEED)
    return combined


def _plain(array: pa.Array) -> pa.Array:
    """Give times, booleans and decimals as numbers."""
    kind = array.type
    if pa.types.is_boolean(kind):
        return pc.cast(array, pa.int8())
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind) or pa.types.is_time64(kind):
        return pc.cast(array, pa.int64())
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pc.cast(pc.cast(array, pa.int32()), pa.int64())
    if pa.types.is_duration(kind):
        return pc.cast(array, pa.int64())
    if pa.types.is_string_view(kind):
        # Arrow cannot take from such an array.
        return pc.cast(array, pa.large_string())
    if pa.types.is_float16(kind) or pa.types.is_decimal(kind):
        return pc.cast(array, pa.float64())
    return array


def _hash_distinct(dictionary: pa.Array) -> Hashes:
    if pa.types.is_floating(dictionary.type):
        # Adding 0 turns -0.0 into 0.0: they are equal.
        bits = pc.cast(dictionary, pa.float64()).to_numpy(zero_copy_only=False) + 0.0
        return hash_keys(bits.view(np.int64), seed=_SEED)
    return hash_keys(keys_of(dictionary), seed=_SEED)


def _numbers(dictionary: pa.Array) -> Floats:
    if is_string(dictionary.type):
        return np.full(len(dictionary), np.nan)
    values: npt.NDArray[Any] = dictionary.to_numpy(zero_copy_only=False)
    return values.astype(np.float64)
