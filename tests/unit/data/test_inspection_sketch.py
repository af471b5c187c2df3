from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.hashing import hash_keys
from rankloom.data.inspection.samples import KeyedRows, Rows, run_starts
from rankloom.data.inspection.sketch import FrequentValues, KeySketch


def hashes(*keys: int) -> np.ndarray:
    return np.array(keys, np.uint64)


def filled(keys: np.ndarray, size: int, pieces: int = 7) -> KeySketch:
    sketch = KeySketch(size)
    for piece in np.array_split(keys, pieces):
        sketch.add(hash_keys(piece, seed=1))
    return sketch


def test_small_streams_are_counted_exactly():
    sketch = KeySketch(4)
    sketch.add(hashes(5, 9, 5))
    sketch.add(hashes(9, 2), np.array([10, 1]))
    kept, counts = sketch.kept()
    assert sketch.is_exact
    assert sketch.distinct == 3
    assert (kept.tolist(), counts.tolist()) == ([2, 5, 9], [1, 2, 11])


def test_the_smallest_hashes_stay_with_exact_counts():
    sketch = KeySketch(2)
    for _ in range(3):
        sketch.add(hashes(8, 1, 4, 6))
    kept, counts = sketch.kept()
    assert (kept.tolist(), counts.tolist()) == ([1, 4], [3, 3])
    assert sketch.bound == 6
    assert not sketch.is_exact


@pytest.mark.parametrize("distinct", [3_000, 60_000, 200_000])
def test_many_keys_are_estimated_within_four_deviations(distinct):
    generator = np.random.default_rng(0)
    keys = generator.permutation(np.r_[np.arange(distinct), generator.integers(0, distinct, 9_000)])
    estimate = filled(keys, 1024).distinct
    assert abs(estimate / distinct - 1) < 4 / np.sqrt(1024)


def test_counts_do_not_depend_on_how_the_stream_is_cut():
    keys = np.random.default_rng(1).integers(0, 5_000, 40_000)
    one, many = filled(keys, 256, 1), filled(keys, 256, 50)
    for first, second in zip(one.kept(), many.kept(), strict=True):
        np.testing.assert_array_equal(first, second)
    some, counts = many.kept()
    true = np.unique(hash_keys(keys, seed=1), return_counts=True)
    np.testing.assert_array_equal(counts, true[1][np.searchsorted(true[0], some)])


def test_counts_of_keys_that_are_not_kept_are_unknown():
    sketch = KeySketch(4)
    assert sketch.counts_of(hashes(1)).tolist() == [-1]
    sketch.add(hashes(3, 3))
    assert sketch.counts_of(hashes(3, 4)).tolist() == [2, -1]


def test_repeated_keys():
    sketch = KeySketch(8)
    sketch.add(hashes(1, 2, 2, 3, 3, 3))
    found = sketch.repeated()
    assert (found.keys, found.extra, found.is_exact) == (2, 3, True)


def test_overlap_of_two_exact_streams():
    test, train = KeySketch(8), KeySketch(8)
    train.add(hashes(1, 2))
    test.add(hashes(2, 2, 2, 7))
    overlap = test.compare(train)
    assert overlap.shared_key_share == 0.5
    assert overlap.new_row_share == 0.25


def test_overlap_of_estimated_streams():
    train, test = filled(np.arange(20_000), 2048), filled(np.arange(15_000, 35_000), 2048)
    assert test.compare(train).shared_key_share == pytest.approx(0.25, abs=0.05)


def test_a_small_stream_within_a_large_one():
    large, small = filled(np.arange(50_000), 2048), filled(np.arange(1_500), 2048)
    assert small.is_exact
    overlap = small.compare(large)
    # Only keys below the large one's bound can be judged: about 1,500 * 2,048 / 50,000.
    assert 30 < overlap.num_keys < 100
    assert overlap.shared_key_share == 1


def test_frequent_values_keep_what_is_frequent():
    generator = np.random.default_rng(2)
    exact, frequent = KeySketch(16), FrequentValues(8)
    for _ in range(20):
        keys = np.r_[generator.integers(100, 10_000, 500), np.full(200, 7), np.full(120, 9)]
        values, counts = np.unique(keys, return_counts=True)
        exact.add(hash_keys(values, seed=0), counts)
        frequent.add(hash_keys(values, seed=0), counts, pa.array(values))
    (first, count), (second, _) = frequent.top(2, exact)
    assert (first, second) == (7, 9)
    # At most n / (size + 1) too small.
    assert 4_000 - 20 * 820 / 9 <= count <= 4_000


def test_frequent_values_of_a_small_stream_are_exact():
    exact, frequent = KeySketch(16), FrequentValues()
    exact.add(hashes(1, 2), np.array([3, 5]))
    frequent.add(hashes(1, 2), np.array([3, 5]), pa.array(["a", "b"]))
    assert frequent.top(5, exact) == [("b", 5), ("a", 3)]


def rows_of(keys: np.ndarray):
    return lambda at: Rows(keys[at][:, None].astype(np.uint64), keys[at][:, None].astype(float))


def test_all_rows_of_a_kept_key_stay():
    generator = np.random.default_rng(3)
    keys = generator.integers(0, 400, 20_000)
    sample = KeyedRows(1_000)
    for piece in np.array_split(keys, 30):
        sample.add(hash_keys(piece, seed=0), rows_of(piece))
    kept, rows = sample.rows()
    sizes = np.diff(run_starts(kept), append=len(kept))
    values = rows.hashes[run_starts(kept), 0].astype(np.int64)
    assert 500 < len(kept) <= 1_000
    np.testing.assert_array_equal(sizes, np.bincount(keys)[values])


def test_one_key_with_all_rows_does_not_empty_the_sample():
    sample = KeyedRows(10)
    sample.add(np.full(50, 3, np.uint64), rows_of(np.arange(50)))
    assert len(sample.rows()[1]) == 10


def test_an_empty_sample():
    keys, rows = KeyedRows(10).rows()
    assert (len(keys), len(rows), len(run_starts(keys))) == (0, 0, 0)
