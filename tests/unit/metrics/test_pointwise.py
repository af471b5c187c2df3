from __future__ import annotations

import math

import numpy as np
import pytest

from rankloom.errors import ConfigError, DataError
from rankloom.metrics import (
    BinarySums,
    PositiveSums,
    calibration_curve,
    calibration_ratio,
    log_loss,
    log_losses,
    mean_absolute_error,
    normalized_entropy,
    root_mean_squared_error,
)


def test_log_loss_is_the_mean_negative_log_likelihood() -> None:
    expected = -(math.log(0.8) + math.log(0.9) + math.log(0.3)) / 3
    assert log_loss([1, 0, 1], [0.8, 0.1, 0.3]) == pytest.approx(expected, rel=1e-14)


def test_log_loss_weighs_rows() -> None:
    expected = -(3 * math.log(0.8) + math.log(0.9)) / 4
    assert log_loss([1, 0], [0.8, 0.1], [3.0, 1.0]) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_certain_and_wrong_row_costs_36_nats(dtype: type) -> None:
    # -log(2.22e-16), whatever the dtype: float32 must not be clipped at its own eps.
    rows = log_losses([0, 1, 1], np.array([1, 0, 1], dtype=dtype))
    np.testing.assert_allclose(rows, [36.0437, 36.0437, 2.22e-16], rtol=1e-3)


def test_predicting_the_mean_label_has_normalized_entropy_one() -> None:
    assert normalized_entropy([1, 0, 0, 0], [0.25] * 4) == pytest.approx(1.0, rel=1e-14)


def test_normalized_entropy_divides_by_the_entropy_of_the_weighted_mean_label() -> None:
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    loss = -(3 * math.log(0.6) + math.log(0.8)) / 4
    value = normalized_entropy([1, 0], [0.6, 0.2], [3.0, 1.0])
    assert value == pytest.approx(loss / entropy, rel=1e-14)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_normalized_entropy_of_one_class_is_nan(labels: list[int]) -> None:
    assert math.isnan(normalized_entropy(labels, [0.2, 0.3]))


def test_calibration_ratio_is_above_one_when_too_much_is_predicted() -> None:
    assert calibration_ratio([1, 0, 0, 1], [0.9, 0.4, 0.3, 0.8]) == pytest.approx(1.2)
    assert calibration_ratio([1, 0], [0.5, 0.25], [1.0, 2.0]) == pytest.approx(1.0)
    assert calibration_ratio([2.0, 4.0], [1.0, 2.0]) == pytest.approx(0.5)


def test_calibration_ratio_without_positive_labels_is_nan() -> None:
    assert math.isnan(calibration_ratio([0, 0], [0.1, 0.2]))


def test_errors_of_a_real_task() -> None:
    labels, predictions = [1.0, 5.0], [4.0, 1.0]
    assert mean_absolute_error(labels, predictions) == 3.5
    assert root_mean_squared_error(labels, predictions) == pytest.approx(math.sqrt(12.5))
    assert mean_absolute_error(labels, predictions, [3.0, 1.0]) == 3.25
    assert root_mean_squared_error(labels, predictions, [3.0, 1.0]) == pytest.approx(
        math.sqrt(10.75)
    )


@pytest.mark.parametrize("is_weighted", [False, True])
def test_binary_sums_over_batches_equal_one_pass(is_weighted: bool) -> None:
    generator = np.random.default_rng(0)
    labels, probabilities = generator.random(100) < 0.3, generator.random(100).astype(np.float32)
    weights = generator.random(100) if is_weighted else None
    sums = BinarySums()
    for start in range(0, 100, 33):
        part = slice(start, start + 33)
        sums.update(labels[part], probabilities[part], None if weights is None else weights[part])
    assert sums.num_rows == 100
    assert sums.log_loss == pytest.approx(log_loss(labels, probabilities, weights), rel=1e-13)
    expected = np.average(labels, weights=weights)
    assert sums.mean_label == pytest.approx(expected, rel=1e-13)
    expected = np.average(probabilities.astype(np.float64), weights=weights)
    assert sums.mean_prediction == pytest.approx(expected, rel=1e-13)


def test_positive_sums_over_batches_equal_one_pass() -> None:
    sums = PositiveSums()
    sums.update([1.0], [4.0], [3.0])
    sums.update([5.0], [1.0], [1.0])
    assert sums.mean_absolute_error == 3.25
    assert sums.root_mean_squared_error == pytest.approx(math.sqrt(10.75))
    assert sums.calibration_ratio == pytest.approx(13 / 8)


def test_without_rows_everything_is_nan() -> None:
    sums = BinarySums()
    assert math.isnan(sums.log_loss)
    assert math.isnan(sums.normalized_entropy)
    assert math.isnan(PositiveSums().root_mean_squared_error)


def test_float32_predictions_are_summed_in_float64() -> None:
    predictions = np.random.default_rng(0).random(10_000, dtype=np.float32)
    sums = PositiveSums()
    sums.update(np.ones(10_000), predictions)
    # A float32 sum is off by about 1e-7.
    assert sums.mean_prediction == pytest.approx(math.fsum(predictions) / 10_000, rel=1e-12)


def test_logits_are_refused_as_probabilities() -> None:
    with pytest.raises(DataError, match=r"outside \[0, 1\]. Got 1.5 at row 1"):
        log_loss([0, 1], [0.5, 1.5])


def test_non_finite_real_values_are_refused() -> None:
    with pytest.raises(DataError, match="PositiveSums has 2 mistakes"):
        mean_absolute_error([math.nan, 1.0], [1.0, math.inf])


def test_curve_bins_hold_equally_many_rows() -> None:
    predictions = np.array([0.4, 0.1, 0.3, 0.2])
    curve = calibration_curve([1, 0, 0, 1], predictions, 2)
    np.testing.assert_allclose(curve.mean_predictions, [0.15, 0.35])
    np.testing.assert_allclose(curve.mean_labels, [0.5, 0.5])
    np.testing.assert_array_equal(curve.weights, [2, 2])


def test_curve_means_are_weighted() -> None:
    curve = calibration_curve([1, 0, 1], [0.1, 0.5, 0.9], 1, [1.0, 0.0, 3.0])
    np.testing.assert_allclose(curve.mean_predictions, [2.8 / 4])
    np.testing.assert_allclose(curve.mean_labels, [1.0])
    np.testing.assert_array_equal(curve.weights, [4.0])


def test_curve_never_splits_a_tie() -> None:
    labels, predictions = [0, 1, 1, 1, 0, 1], [0.1, 0.5, 0.5, 0.5, 0.5, 0.9]
    curve = calibration_curve(labels, predictions, 3)
    np.testing.assert_allclose(curve.mean_predictions, [0.1, 2.9 / 5])
    np.testing.assert_allclose(curve.mean_labels, [0.0, 4 / 5])


def test_curve_with_more_bins_than_rows_has_a_bin_a_row() -> None:
    np.testing.assert_array_equal(calibration_curve([0, 1], [0.1, 0.2], 9).weights, [1, 1])


def test_curve_needs_a_bin() -> None:
    with pytest.raises(ConfigError, match="num_bins must be at least 1"):
        calibration_curve([0, 1], [0.1, 0.2], 0)
