"""The planted signal: reproducible, calibrated, and out of reach of an additive model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from rankloom.data.datasets.synthetic import PlantedRows, planted_rows, prepare_synthetic
from rankloom.errors import ConfigError


@pytest.fixture(scope="module")
def planted() -> PlantedRows:
    return planted_rows(num_rows=20_000, num_users=200, num_items=150, seed=0)


def auc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """Compute the AUC of scores without ties."""
    rank = np.empty(len(scores))
    rank[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = labels.sum()
    above = rank[labels].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(labels) - positives)))


def test_same_seed_same_rows() -> None:
    sizes = {"num_rows": 500, "num_users": 20, "num_items": 30}
    first, again = (planted_rows(**sizes, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.log.rating, again.log.rating)
    np.testing.assert_array_equal(first.log.timestamp, again.log.timestamp)
    assert first.log.items.equals(again.log.items)
    other = planted_rows(**sizes, seed=4)
    assert (first.log.rating != other.log.rating).any()


def test_sizes_and_ranges(planted: PlantedRows) -> None:
    log = planted.log
    assert len(log.user) == len(log.item) == len(log.rating) == len(log.timestamp) == 20_000
    assert len(log.users) == 200
    assert len(log.items) == 150
    assert set(log.rating.tolist()) == {1, 2, 3, 4, 5}
    assert log.item.max() < 150


def test_time_runs_forward_within_a_user(planted: PlantedRows) -> None:
    log = planted.log
    same_user = np.diff(log.user) == 0
    gaps = np.diff(log.timestamp)[same_user]
    assert gaps.min() == 0  # several rows in one request
    assert gaps[gaps > 0].min() >= 60
    assert 2 < len(log.user) / (1 + (gaps > 0).sum()) < 3


def test_stated_probability_is_calibrated(planted: PlantedRows) -> None:
    liked = planted.log.rating >= 4
    for low in np.arange(0, 1, 0.2):
        inside = (planted.probability >= low) & (planted.probability < low + 0.2)
        error = liked[inside].mean() - planted.probability[inside].mean()
        # Four standard errors of a share.
        assert abs(error) < 4 * 0.5 / np.sqrt(inside.sum())


def test_additive_model_is_far_below_the_truth(planted: PlantedRows) -> None:
    log, liked = planted.log, planted.log.rating >= 4
    onehot = np.zeros((20_000, 350))
    onehot[np.arange(20_000), log.user] = 1
    onehot[np.arange(20_000), 200 + log.item] = 1
    is_test = np.random.default_rng(0).random(20_000) < 0.25
    train = onehot[~is_test]
    # Ridge regression; 5 is about what cross-validation chooses, and the AUC is flat around it.
    weights = np.linalg.solve(
        train.T @ train + 5 * np.eye(350), train.T @ (liked[~is_test] - liked.mean())
    )
    additive = auc(liked[is_test], onehot[is_test] @ weights)
    oracle = auc(liked[is_test], planted.probability[is_test])
    assert additive > 0.58
    assert oracle > additive + 0.1


def test_a_like_raises_the_next_request_and_a_dislike_lowers_it() -> None:
    # With one item nothing but the mood changes within a user.
    rows = planted_rows(num_rows=1000, num_users=200, num_items=1, seed=1)
    log, logit = rows.log, np.log(rows.probability / (1 - rows.probability))
    of_user = [np.flatnonzero(log.user == user) for user in range(200)]
    # Users whose first request has one row, and the row after it.
    pairs = np.array(
        [rows[:2] for rows in of_user if len(rows) > 1 and np.ptp(log.timestamp[rows[:2]]) > 0]
    )
    change = logit[pairs[:, 1]] - logit[pairs[:, 0]]
    is_liked = log.rating[pairs[:, 0]] >= 4
    assert 10 < is_liked.sum() < len(pairs) - 10
    np.testing.assert_allclose(change, np.where(is_liked, 1, -1) * change.max(), rtol=1e-9)
    assert change.max() > 0.5


def test_rows_of_one_request_see_one_mood() -> None:
    rows = planted_rows(num_rows=1000, num_users=20, num_items=1, seed=1)
    same = (np.diff(rows.log.user) == 0) & (np.diff(rows.log.timestamp) == 0)
    change = np.diff(rows.probability)
    np.testing.assert_array_equal(change[same], 0)
    assert abs(change[~same]).max() > 0.1


def test_files_have_three_splits(tmp_path: Path) -> None:
    lines: list[str] = []
    prepared = prepare_synthetic(
        tmp_path, num_rows=2000, num_users=20, num_items=30, seed=0, report=lines.append
    )
    assert sum(prepared.rows.values()) == 2000
    assert prepared.rows["train"] == pytest.approx(1600, abs=30)
    for split, rows in prepared.rows.items():
        assert pq.read_metadata(tmp_path / split / "part-0.parquet").num_rows == rows
    assert lines[0].startswith("synthetic: 2,000 ratings")


@pytest.mark.parametrize("name", ["num_rows", "num_users", "num_items"])
def test_sizes_below_one_are_refused(name: str) -> None:
    sizes = {"num_rows": 10, "num_users": 2, "num_items": 2} | {name: 0}
    with pytest.raises(ConfigError, match=rf"data\.{name}: .*Got 0"):
        planted_rows(**sizes, seed=0)
