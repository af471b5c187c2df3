"""Stable hashing of ids: the same bucket in every process, on every platform, in every version.

With `mix` the splitmix64 function on 64-bit words (all arithmetic modulo 2**64),

    mix(x):  x += 0x9E3779B97F4A7C15
             x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
             x = (x ^ (x >> 27)) * 0x94D049BB133111EB
             return x ^ (x >> 31)

an integer hashes to

    h = mix(mix(seed) ^ two's complement of the value in 64 bits)

and a string of n UTF-8 bytes, cut into words of 8 bytes (little-endian, the last one padded with
zeros), to

    h = mix(mix(seed) ^ n);  for each word w:  h = mix(h ^ w)

and `hash_ids` gives `h % num_buckets`, h being unsigned. `mix` is a bijection, so integers never
collide in 64 bits, nor do two strings of the same length of up to 8 bytes. A trained model depends
on these buckets: changing the definition makes every model with hashed ids useless.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.errors import ConfigError, DataError

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)
_WORD_BYTES = 8
# Entry n keeps a word's first n bytes.
_KEPT_BYTES = np.array([2 ** (8 * n) - 1 for n in range(_WORD_BYTES + 1)], np.uint64)
# Temporaries of this many rows stay in the cache; a whole column would go through memory ten times.
_BLOCK_ROWS = 8192


def hash_ids(
    values: pa.Array | pa.ChunkedArray | npt.NDArray[Any], *, num_buckets: int, seed: int
) -> npt.NDArray[np.int64]:
    """Give each id a bucket that depends on its value and the seed only.

    Args:
        values: (V,) integers or strings without nulls; a dictionary of either is fine.
        num_buckets: How many buckets there are.
        seed: Two seeds give independent buckets, so colliding ids of one rarely collide in the
            other.

    Returns:
        (V,) in [0, num_buckets).

    Raises:
        ConfigError: `num_buckets` is not positive, or `seed` is negative.
        DataError: The values are neither integers nor strings, or some are null.
    """
    if num_buckets < 1:
        raise ConfigError(f"hash_buckets: must be positive. Got {num_buckets}. Give at least 1.")
    hashes = hash_keys(values, seed=seed)
    buckets = np.uint64(num_buckets)
    # Not `%`: NumPy has a fast path for the division by a scalar, but none for the remainder.
    hashes -= hashes // buckets * buckets
    return hashes.view(np.int64)


def hash_keys(
    values: pa.Array | pa.ChunkedArray | npt.NDArray[Any], *, seed: int
) -> npt.NDArray[np.uint64]:
    """Give the 64-bit hash that `hash_ids` takes the remainder of.

    Args:
        values: (V,) integers or strings without nulls; a dictionary of either is fine.
        seed: Not negative.

    Returns:
        (V,) hashes, a new array.

    Raises:
        ConfigError: `seed` is negative.
        DataError: The values are neither integers nor strings, or some are null.
    """
    if seed < 0:
        raise ConfigError(f"hash seed: must not be negative. Got {seed}. Give 0 or more.")
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return _hash_integers(values, seed=seed)
    array = pa.array(values) if isinstance(values, np.ndarray) else values
    if isinstance(array, pa.ChunkedArray):
        parts = [hash_keys(chunk, seed=seed) for chunk in array.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)
    if array.null_count:
        raise DataError(
            f"hashing: a null has no hash. Got {array.null_count} nulls among {len(array)} values. "
            "Fill them before hashing."
        )
    if not len(array):
        return np.empty(0, np.uint64)
    if pa.types.is_dictionary(array.type):
        of_entry = hash_keys(array.dictionary, seed=seed)
        indices: npt.NDArray[np.int64] = array.indices.to_numpy()
        return of_entry[indices]
    if pa.types.is_integer(array.type):
        return _hash_integers(array.to_numpy(zero_copy_only=False), seed=seed)
    if is_string(array.type):
        return _hash_strings(pc.cast(array, pa.large_string()), seed=seed)
    raise DataError(
        f"hashing: only integers and strings can be hashed. Got {array.type}. "
        "Cast the column to one of the two."
    )


def is_string(kind: pa.DataType) -> bool:
    """Tell whether a type is one of Arrow's UTF-8 string types."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _mix(words: npt.NDArray[np.uint64], scratch: npt.NDArray[np.uint64]) -> None:
    """Apply splitmix64 in place; `scratch` has the same shape."""
    words += _GAMMA
    for shift, factor in ((30, _FACTOR_1), (27, _FACTOR_2), (31, None)):
        np.right_shift(words, np.uint64(shift), out=scratch)
        words ^= scratch
        if factor is not None:
            words *= factor


def _mixed_seed(seed: int) -> np.uint64:
    # An array, because NumPy warns when a scalar's multiplication overflows.
    word = np.array([seed % 2**64], np.uint64)
    _mix(word, np.empty_like(word))
    return np.uint64(word[0])


def _hash_integers(values: npt.NDArray[Any], *, seed: int) -> npt.NDArray[np.uint64]:
    key = _mixed_seed(seed)
    hashes = np.empty(len(values), np.uint64)
    scratch = np.empty(min(len(values), _BLOCK_ROWS), np.uint64)
    for start in range(0, len(values), _BLOCK_ROWS):
        block = hashes[start : start + _BLOCK_ROWS]
        # The conversion wraps negative values to their two's complement.
        block[:] = values[start : start + _BLOCK_ROWS]
        block ^= key
        _mix(block, scratch[: len(block)])
    return hashes


def _hash_strings(array: pa.Array, *, seed: int) -> npt.NDArray[np.uint64]:
    """Hash a `large_string` array; the loops run over blocks and word positions, not rows."""
    key = _mixed_seed(seed)
    hashes = np.empty(len(array), np.uint64)
    if not len(array):
        return hashes
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    words = _words_at_each_byte(data)
    for start in range(0, len(array), _BLOCK_ROWS):
        edges = offsets[start : start + _BLOCK_ROWS + 1] - offsets[0]
        _hash_block(
            words, edges[:-1], np.diff(edges), key=key, out=hashes[start : start + _BLOCK_ROWS]
        )
    return hashes


def _words_at_each_byte(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """View the bytes as overlapping words: entry i holds bytes i to i + 7, zeros past the end."""
    padded = np.zeros(len(data) + _WORD_BYTES, np.uint8)
    padded[: len(data)] = data
    return np.ndarray(len(data) + 1, np.dtype("<u8"), buffer=padded, strides=(1,))


def _hash_block(
    words: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    *,
    key: np.uint64,
    out: npt.NDArray[np.uint64],
) -> None:
    out[:] = lengths
    out ^= key
    _mix(out, np.empty_like(out))
    rows = np.flatnonzero(lengths)
    state, starts, left = out[rows], starts[rows], lengths[rows]
    while len(rows):
        word = words[starts]
        word &= _KEPT_BYTES[np.minimum(left, _WORD_BYTES)]
        state ^= word
        _mix(state, word)
        out[rows] = state
        starts += _WORD_BYTES
        left -= _WORD_BYTES
        # A row leaves when its bytes are used up, so short strings do not pay for long ones.
        going = np.flatnonzero(left > 0)
        if len(going) < len(rows):
            rows, state, starts, left = rows[going], state[going], starts[going], left[going]
