from __future__ import annotations

import math

import numpy as np
import pytest

from rankloom.errors import DataError
from rankloom.metrics import gauc, per_group_auc

# Group 1: .6 > .2: AUC 1 over 2 rows. Group 2: .5 = .5, .5 > .1: 0.75 over 3 rows.
# Group 3: one class.
GROUPS = [2, 1, 3, 2, 1, 2]
LABELS = [1, 0, 1, 0, 1, 0]
PREDICTIONS = [0.5, 0.2, 0.3, 0.5, 0.6, 0.1]


def test_weighs_groups_by_rows_and_leaves_one_class_groups_out() -> None:
    result = gauc(GROUPS, LABELS, PREDICTIONS)
    assert result.value == pytest.approx((2 * 1.0 + 3 * 0.75) / 5, rel=1e-15)
    assert (result.num_groups, result.num_scored_groups) == (3, 2)
    assert result.one_class_group_share == pytest.approx(1 / 3)
    assert result.one_class_row_share == pytest.approx(1 / 6)


def test_groups_come_in_ascending_order() -> None:
    group_auc, group_weights = per_group_auc(GROUPS, LABELS, PREDICTIONS)
    np.testing.assert_array_equal(group_auc, [1.0, 0.75, math.nan])
    np.testing.assert_array_equal(group_weights, [2, 3, 1])


def test_row_weights_weigh_pairs_and_groups() -> None:
    weights = [1.0, 1.0, 5.0, 3.0, 1.0, 1.0]
    # Group 2: the tie weighs 3 and the won pair 1: (1.5 + 1) / 4 over weight 5.
    result = gauc(GROUPS, LABELS, PREDICTIONS, weights)
    assert result.value == pytest.approx((2 * 1.0 + 5 * 0.625) / 7, rel=1e-15)
    assert result.one_class_row_share == pytest.approx(5 / 12)


def test_equal_predictions_of_different_groups_are_no_tie() -> None:
    assert gauc([1, 1, 2, 2], [0, 1, 0, 1], [0.1, 0.5, 0.5, 0.9]).value == 1.0


def test_ids_may_be_any_int64() -> None:
    limits = np.iinfo(np.int64)
    groups = np.array([limits.min, limits.max, limits.min, limits.max])
    assert gauc(groups, [0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8]).value == 0.5


@pytest.mark.parametrize("is_weighted", [False, True])
def test_equals_counting_every_pair_of_each_group(is_weighted: bool) -> None:
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 40, 400)
    labels = generator.integers(0, 2, 400)
    predictions = generator.integers(0, 4, 400) / 4
    # Weights of very different size: a light group must not drown in a heavy neighbour.
    weights = 10.0 ** generator.uniform(-6, 6, 400) if is_weighted else np.ones(400)
    group_auc, _ = per_group_auc(groups, labels, predictions, weights)
    for group, value in enumerate(group_auc):
        rows = np.flatnonzero(groups == group)
        won = total = 0.0
        for i in rows[labels[rows] == 1]:
            for j in rows[labels[rows] == 0]:
                total += weights[i] * weights[j]
                sign = np.sign(predictions[i] - predictions[j])
                won += weights[i] * weights[j] * (sign + 1) / 2
        expected = won / total if total else math.nan
        # Cumulative sums lose what is 1e-16 of the larger of two neighbouring groups.
        assert value == pytest.approx(expected, rel=1e-9 if is_weighted else 1e-14, nan_ok=True)


def test_heavy_groups_do_not_blur_later_light_ones() -> None:
    groups = [0, 0, 1, 1, 2, 2, 2]
    labels = [0, 1, 0, 1, 0, 1, 0]
    weights = [1e15, 1e15, 1.0, 1.0, 0.1, 1.0, 0.2]
    group_auc, _ = per_group_auc(groups, labels, np.arange(7), weights)
    # A sum over all groups would be rounded to 0.125.
    assert group_auc[2] == pytest.approx(0.1 / 0.3, rel=1e-14)


def test_many_rows_are_counted_in_blocks() -> None:
    # More rows than one block of the counter, one group over all of them.
    labels = np.concatenate([np.zeros(100_000), np.arange(200_000) % 2])
    value = gauc(np.full(300_000, 7), labels, np.arange(300_000)).value
    # The k-th positive (from 1 to 100,000) stands above 100,000 + k of 200,000 negatives.
    assert value == pytest.approx((100_000 + 100_001 / 2) / 200_000, rel=1e-13)


def test_without_scored_groups_the_value_is_nan() -> None:
    result = gauc([1, 2], [0, 1], [0.1, 0.2])
    assert math.isnan(result.value)
    assert (result.one_class_group_share, result.one_class_row_share) == (1.0, 1.0)


def test_without_rows_everything_is_nan() -> None:
    result = gauc(np.zeros(0, dtype=np.int64), [], [])
    assert result.num_groups == 0
    assert math.isnan(result.value)
    assert math.isnan(result.one_class_group_share)


def test_refuses_groups_that_are_not_integers() -> None:
    with pytest.raises(DataError, match=r"groups must be integers\. Got float64"):
        gauc([1.0, 1.0], [0, 1], [0.1, 0.2])
