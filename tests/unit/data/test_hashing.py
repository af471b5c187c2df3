"""Hashing against an independent plain-Python version of the documented definition."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.arrow_keys import keys_of
from rankloom.data.hashing import hash_ids, hash_keys
from rankloom.data.texts import Texts
from rankloom.errors import ConfigError, DataError

WORD = 2**64
STRINGS = [
    "",
    "a",
    "b",
    "item-42",
    "12345678",
    "123456789",
    "caf\u00e9",
    "\u4e16\u754c" * 9,
    "x" * 100,
]
INTEGERS = [0, 1, 2, -1, 42, 2**40, -(2**63), 2**63 - 1]


def plain_mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


def plain_hash(value: int | str, seed: int) -> int:
    if isinstance(value, int):
        return plain_mix(plain_mix(seed) ^ (value % WORD))
    data = value.encode()
    h = plain_mix(plain_mix(seed) ^ len(data))
    for start in range(0, len(data), 8):
        h = plain_mix(h ^ int.from_bytes(data[start : start + 8], "little"))
    return h


def test_mix_is_the_published_splitmix64() -> None:
    # The first two outputs of the reference generator (Vigna) started at 0.
    assert plain_mix(0) == 0xE220A8397B1DCDAF
    assert plain_mix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("seed", [0, 1, 2026])
@pytest.mark.parametrize("values", [STRINGS, INTEGERS], ids=["strings", "integers"])
def test_hash_is_the_documented_one(values: list[int] | list[str], seed: int) -> None:
    expected = [plain_hash(value, seed) for value in values]
    keys = keys_of(pa.array(values))
    assert hash_keys(keys, seed=seed).tolist() == expected
    buckets = hash_ids(keys, num_buckets=1000, seed=seed)
    assert buckets.dtype == np.int64
    assert buckets.tolist() == [h % 1000 for h in expected]


def test_golden_values_never_change() -> None:
    # Trained models depend on these: a failure here means that they must all be retrained.
    assert hash_ids(np.array([0, 1, -1, 42]), num_buckets=10**6, seed=0).tolist() == [
        947055,
        732430,
        59696,
        985307,
    ]
    words = Texts.of(["", "a", "item-42", "a longer string than a word"])
    assert hash_ids(words, num_buckets=10**6, seed=0).tolist() == [947055, 771287, 184791, 683955]


def test_integer_width_does_not_matter() -> None:
    wide = hash_ids(np.array([-3, 0, 7], np.int64), num_buckets=97, seed=5)
    for dtype in (np.int8, np.int16, np.int32):
        narrow = hash_ids(np.array([-3, 0, 7], dtype), num_buckets=97, seed=5)
        np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_storage_of_strings_does_not_matter(kind: pa.DataType) -> None:
    expected = [plain_hash(value, 3) for value in STRINGS]
    array = pa.array(["dropped", *STRINGS], kind)
    assert hash_keys(keys_of(array[1:]), seed=3).tolist() == expected
    assert hash_keys(Texts.of(STRINGS), seed=3).tolist() == expected


def test_column_longer_than_a_block_matches_row_by_row() -> None:
    values = [f"user-{i * i}" for i in range(20_000)]
    hashes = hash_keys(Texts.of(values), seed=1)
    picked = [0, 8191, 8192, 16384, 19_999]
    assert hashes[picked].tolist() == [plain_hash(values[i], 1) for i in picked]
    assert len(np.unique(hashes)) == len(values)


def test_seed_changes_the_buckets() -> None:
    ids = np.arange(1000)
    first, second = (hash_ids(ids, num_buckets=1000, seed=seed) for seed in (0, 1))
    # Independent uniform buckets agree in about 1 row of 1000.
    assert (first == second).sum() < 10


def test_buckets_are_even() -> None:
    counts = np.bincount(hash_ids(np.arange(100_000), num_buckets=10, seed=0), minlength=10)
    # Binomial spread is 95; six of them is a wide bound.
    assert abs(counts - 10_000).max() < 570


def test_another_process_gives_the_same() -> None:
    code = (
        "from rankloom.data.hashing import hash_ids; from rankloom.data.texts import Texts;"
        "print(hash_ids(Texts.of(['a', 'bb']), num_buckets=10**9, seed=4).tolist())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str([plain_hash(v, 4) % 10**9 for v in ("a", "bb")])


def test_no_rows_no_hashes() -> None:
    for empty in (pa.array([], pa.string()), pa.array([], pa.int64()), pa.array([], pa.int32())):
        assert hash_ids(keys_of(empty), num_buckets=3, seed=0).shape == (0,)


def test_nulls_are_refused() -> None:
    with pytest.raises(DataError, match="2 nulls among 3"):
        keys_of(pa.array([1, None, None]))


def test_floats_are_refused() -> None:
    with pytest.raises(DataError, match="Got double"):
        keys_of(pa.array([1.5]))
    with pytest.raises(DataError, match="Got float64"):
        hash_ids(np.array([1.5]), num_buckets=3, seed=0)


@pytest.mark.parametrize(("num_buckets", "seed"), [(0, 0), (3, -1)])
def test_bad_settings_are_refused(num_buckets: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="Got"):
        hash_ids(np.array([1]), num_buckets=num_buckets, seed=seed)
