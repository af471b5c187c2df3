from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rankloom.errors import DataError
from rankloom.metrics import auc


def count_all_pairs(
    labels: npt.NDArray[Any], predictions: npt.NDArray[Any], weights: npt.NDArray[Any]
) -> float:
    """AUC by looking at every (positive, negative) pair."""
    won = total = 0.0
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero(~labels):
            pair = float(weights[i] * weights[j])
            total += pair
            if predictions[i] > predictions[j]:
                won += pair
            elif predictions[i] == predictions[j]:
                won += pair / 2
    return won / total


def test_a_tie_counts_one_half() -> None:
    # Pairs (positive, negative): .4 > .1, .4 = .4, .9 > .1, .9 > .4: 3.5 of 4.
    assert auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9]) == 0.875


def test_constant_predictions_are_worth_one_half() -> None:
    assert auc([0, 1, 0, 1, 1], [0.3] * 5) == 0.5


def test_a_pair_counts_the_product_of_its_weights() -> None:
    # The positive .5 beats the negative .2 (2 * 3) and loses to the negative .8 (2 * 1).
    assert auc([1, 0, 0], [0.5, 0.2, 0.8], [2.0, 3.0, 1.0]) == 6 / 8


def test_logits_rank_like_their_probabilities_infinite_ones_included() -> None:
    logits = np.array([-np.inf, -2.0, 0.5, np.inf, np.inf])
    assert auc([0, 1, 0, 1, 0], logits) == auc([0, 1, 0, 1, 0], 1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize("num_levels", [2, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_counting_every_pair(num_levels: int, dtype: type) -> None:
    generator = np.random.default_rng(num_levels)
    labels = generator.random(150) < 0.3
    predictions = (generator.integers(0, num_levels, 150) / num_levels).astype(dtype)
    weights = generator.random(150) * generator.integers(0, 2, 150)
    unweighted = count_all_pairs(labels, predictions, np.ones(150))
    assert auc(labels, predictions) == pytest.approx(unweighted, rel=1e-13)
    weighted = count_all_pairs(labels, predictions, weights)
    assert auc(labels, predictions, weights) == pytest.approx(weighted, rel=1e-12)


def test_float64_predictions_are_not_rounded_into_ties() -> None:
    assert auc([0, 1], [0.5, 0.5 + 1e-12]) == 1.0


def test_float16_predictions_keep_their_order() -> None:
    assert auc([0, 1, 1], np.array([0.25, 0.5, 0.25], dtype=np.float16)) == 0.75


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_is_nan_without_both_classes(labels: list[int]) -> None:
    assert math.isnan(auc(np.array(labels, dtype=np.int64), np.zeros(len(labels))))


def test_is_nan_when_a_class_has_no_weight() -> None:
    assert math.isnan(auc([0, 1], [0.1, 0.2], [1.0, 0.0]))


def test_names_every_wrong_column() -> None:
    with pytest.raises(DataError) as error:
        auc([0, 2, 1], [0.1, 0.2, math.nan], [1.0, -1.0, 1.0])
    message = str(error.value)
    assert message.startswith("auc has 3 mistakes:")
    assert "labels hold a value that is not 0 or 1. Got 2 at row 1" in message
    assert "predictions hold a value that is NaN. Got nan at row 2" in message
    assert "sample_weights hold a value that is negative or not finite. Got -1.0" in message


def test_refuses_columns_of_different_length() -> None:
    with pytest.raises(DataError, match="Got labels 2, predictions 3"):
        auc([0, 1], [0.1, 0.2, 0.3])


def test_refuses_a_column_of_two_dimensions() -> None:
    with pytest.raises(DataError, match=r"predictions must have one dimension. Got shape \(2, 1\)"):
        auc([0, 1], [[0.1], [0.2]])
