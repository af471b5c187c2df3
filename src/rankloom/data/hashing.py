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

from rankloom.data.texts import WORD_BYTES, Texts
from rankloom.errors import ConfigError, DataError

Keys = npt.NDArray[Any] | Texts
"""(V,) integers of any width, or strings."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)
# Temporaries of this many rows stay in the cache; a whole column would go through memory ten times.
_BLOCK_ROWS = 8192


def hash_ids(keys: Keys, *, num_buckets: int, seed: int) -> npt.NDArray[np.int64]:
    """Give each id a bucket that depends on its value and the seed only.

    Args:
        keys: (V,).
        num_buckets: How many buckets there are.
        seed: Two seeds give independent buckets, so colliding ids of one rarely collide in the
            other.

    Returns:
        (V,) in [0, num_buckets).

    Raises:
        ConfigError: `num_buckets` is not positive, or `seed` is negative.
        DataError: The keys are neither integers nor strings.
    """
    if num_buckets < 1:
        raise ConfigError(f"hash_buckets: must be positive. Got {num_buckets}. Give at least 1.")
    hashes = hash_keys(keys, seed=seed)
    buckets = np.uint64(num_buckets)
    # Not `%`: NumPy has a fast path for the division by a scalar, but none for the remainder.
    hashes -= hashes // buckets * buckets
    return hashes.view(np.int64)


def hash_keys(keys: Keys, *, seed: int) -> npt.NDArray[np.uint64]:
    """Give the 64-bit hash that `hash_ids` takes the remainder of.

    Args:
        keys: (V,).
        seed: Not negative.

    Returns:
        (V,) hashes, a new array.

    Raises:
        ConfigError: `seed` is negative.
        DataError: The keys are neither integers nor strings.
    """
    if seed < 0:
        raise ConfigError(f"hash seed: must not be negative. Got {seed}. Give 0 or more.")
    if isinstance(keys, Texts):
        return _hash_texts(keys, seed=seed)
    if keys.dtype.kind in "iu":
        return _hash_integers(keys, seed=seed)
    raise DataError(
        f"hashing: only integers and strings can be hashed. Got {keys.dtype}. "
        "Cast the column to one of the two."
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


def _hash_texts(texts: Texts, *, seed: int) -> npt.NDArray[np.uint64]:
    """Hash strings; the loops run over blocks and word positions, not rows."""
    key = _mixed_seed(seed)
    hashes = np.empty(len(texts), np.uint64)
    lengths = texts.lengths
    for first in range(0, len(texts), _BLOCK_ROWS):
        block = slice(first, first + _BLOCK_ROWS)
        starts = texts.offsets[:-1][block]
        _hash_block(texts, starts, lengths[block], key=key, out=hashes[block])
    return hashes


def _hash_block(
    texts: Texts,
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
        word = texts.word_at(starts, left)
        state ^= word
        _mix(state, word)
        out[rows] = state
        starts += WORD_BYTES
        left -= WORD_BYTES
        # A row leaves when its bytes are used up, so short strings do not pay for long ones.
        going = np.flatnonzero(left > 0)
        if len(going) < len(rows):
            rows, state, starts, left = rows[going], state[going], starts[going], left[going]
