from __future__ import annotations

import numpy as np
import pytest

from rankloom.data.hashing import hash_keys
from rankloom.data.inspection.drift import (
    Rate,
    column_counts,
    distance,
    drift_findings,
    effective_size,
    label_finding,
    label_rate,
    new_id_findings,
)
from rankloom.data.inspection.kinds import Guess
from rankloom.data.inspection.leaks import Label
from rankloom.data.inspection.samples import Rows
from rankloom.data.inspection.sides import SideGuess
from rankloom.data.inspection.sketch import KeySketch


def rows(values: np.ndarray) -> Rows:
    return Rows(hash_keys(values.astype(np.int64), seed=0)[:, None], values[:, None].astype(float))


def test_distances_by_hand():
    # Shares 1/2, 1/2 and 1/4, 3/4.
    found = distance(np.array([50.0, 50]), np.array([25.0, 75]))
    assert found.total_variation == 0.25
    # Pooled 3/8: each bucket's deviation is sqrt(3/8 * 5/8 * 2/100).
    assert found.noise == pytest.approx(np.sqrt(2 / np.pi * 3 / 8 * 5 / 8 * 2 / 100))
    p, q = 50.5 / 101, 25.5 / 101
    assert found.psi == pytest.approx((p - q) * np.log(p / q) + (q - p) * np.log((1 - p) / (1 - q)))


def test_the_noise_is_what_equal_distributions_show():
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(30))
    drawn = [
        distance(*(generator.multinomial(400, shares).astype(float) for _ in range(2)))
        for _ in range(200)
    ]
    mean = np.mean([one.total_variation for one in drawn])
    assert mean == pytest.approx(np.mean([one.noise for one in drawn]), rel=0.05)


def test_buckets_hold_equal_shares_of_training():
    train = rows(np.arange(10_000))
    first, second = column_counts(train, rows(np.full(100, 20_000)), 0)
    assert first[:20].min() > 450
    assert second.tolist().index(100) == 19
    few, other = column_counts(rows(np.array([1, 1, 2])), rows(np.array([2, 9])), 0)
    assert sorted(few.tolist()) == [0, 1, 2]
    assert other[-1] == 1  # the value that training does not have


def found_in(train: np.ndarray, test: np.ndarray, sizes=None):
    kinds, sides = {"x": Guess("sparse", "")}, {"x": SideGuess("user", "")}
    return list(drift_findings(rows(train), rows(test), ["x"], kinds, sides, sizes or {}))


def test_small_samples_do_not_cry_wolf():
    for seed in range(50):
        generator = np.random.default_rng(seed)
        assert found_in(generator.integers(0, 40, 300), generator.integers(0, 40, 60)) == []


def test_a_drift_is_found_unless_few_users_explain_it():
    generator = np.random.default_rng(0)
    train, test = generator.integers(0, 4, 5_000), generator.integers(0, 3, 5_000)
    (finding,) = found_in(train, test)
    assert "total variation of 0.2" in finding.got
    assert found_in(train, test, {"user": (8.0, 8.0)}) == []


def test_effective_size_counts_users_by_their_rows():
    sketch = KeySketch()
    sketch.add(np.array([1, 2, 3], np.uint64), np.array([2, 2, 4]))
    assert effective_size(sketch, 8) == pytest.approx(64 / 24)
    assert effective_size(None, 8) == 8


def test_the_deviation_of_a_rate_by_hand():
    users = np.array([1, 1, 2, 2], np.uint64)
    labels = np.array([1.0, 1, 0, 0])
    # The users are off by +1 and -1 together: variance (1 + 1) / 4 / 4.
    found = label_rate(labels, users, 4)
    assert (found.mean, found.deviation) == (0.5, pytest.approx(np.sqrt(2 / 16)))
    # Rows of users of their own: 4 * 0.25 / 4 / 4.
    assert label_rate(labels, np.arange(4, dtype=np.uint64), 4).deviation == pytest.approx(0.25)
    assert label_rate(np.array([np.nan]), users[:1], 1) is None


def test_label_rates():
    def found(train: float, test: float, deviation: float) -> int:
        rates = (Rate(mean=mean, deviation=deviation) for mean in (train, test))
        return len(list(label_finding(Label("click", "click", np.empty(0)), *rates)))

    assert found(0.1, 0.15, 0.001) == 1
    assert found(0.1, 0.15, 0.02) == 0  # within the noise
    assert found(0.1, 0.105, 0.0001) == 0  # certain, but small


def test_new_ids():
    train, test = KeySketch(), KeySketch()
    train.add(np.arange(50, dtype=np.uint64))
    test.add(np.arange(40, 100, dtype=np.uint64))
    kinds = {"x": Guess("item id", "")}
    (finding,) = new_id_findings({"x": train}, {"x": test}, kinds)
    assert finding.got == "83.3 % of the rows, 83.3 % of the ids"
    assert list(new_id_findings({"x": test}, {"x": test}, kinds)) == []
    assert list(new_id_findings({"x": train}, {"x": test}, {"x": Guess("time", "")})) == []
