"""Metrics that are sums over rows: log loss, normalized entropy, errors and calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rankloom.errors import ConfigError
from rankloom.metrics.rows import Rows, check_rows

_EPS = float(np.finfo(np.float64).eps)


class PointwiseSums:
    """Sums from which means and the calibration ratio come; memory does not grow with rows."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._weight = 0.0
        self._label = 0.0
        self._prediction = 0.0

    @property
    def mean_label(self) -> float:
        """Weighted mean of the labels; NaN without weight."""
        return _ratio(self._label, self._weight)

    @property
    def mean_prediction(self) -> float:
        """Weighted mean of the predictions; NaN without weight."""
        return _ratio(self._prediction, self._weight)

    @property
    def calibration_ratio(self) -> float:
        """Mean prediction over mean label: above 1 predicts too much; NaN if no label is set."""
        return _ratio(self._prediction, self._label)

    def _add(self, rows: Rows) -> None:
        self.num_rows += len(rows)
        self._weight += len(rows) if rows.sample_weights is None else _sum(rows.sample_weights)
        self._label += _weighted_sum(rows.labels, rows.sample_weights)
        self._prediction += _weighted_sum(rows.predictions, rows.sample_weights)


class BinarySums(PointwiseSums):
    """Sums over rows of a binary task.

    Example:
        >>> sums = BinarySums()
        >>> sums.update([0, 1], [0.5, 0.5])
        >>> sums.update([1, 0], [0.5, 0.5])
        >>> round(sums.log_loss, 4), sums.normalized_entropy, sums.calibration_ratio
        (0.6931, 1.0, 1.0)
    """

    def __init__(self) -> None:
        super().__init__()
        self._log_loss = 0.0

    def update(
        self,
        labels: npt.ArrayLike,
        probabilities: npt.ArrayLike,
        sample_weights: npt.ArrayLike | None = None,
    ) -> None:
        """Add rows.

        Args:
            labels: (B,). 0 or 1.
            probabilities: (B,). In [0, 1].
            sample_weights: (B,). Finite, not negative.

        Raises:
            DataError: Lengths differ or a value is outside its range.
        """
        rows = check_rows(
            labels, probabilities, sample_weights, where="BinarySums", kind="probability"
        )
        self._add(rows)
        self._log_loss += _weighted_sum(_log_losses(rows), rows.sample_weights)

    @property
    def log_loss(self) -> float:
        """Mean negative log likelihood in nats; NaN without weight."""
        return _ratio(self._log_loss, self._weight)

    @property
    def normalized_entropy(self) -> float:
        """Log loss over the entropy of the mean label; NaN where one class has no weight.

        1 is what predicting the mean label reaches; lower is better (He et al., "Practical
        Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, eq. 3).
        """
        rate = self.mean_label
        if not 0 < rate < 1:
            return float("nan")
        return self.log_loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


class PositiveSums(PointwiseSums):
    """Sums over rows of a real-valued task, such as watch time.

    Example:
        >>> sums = PositiveSums()
        >>> sums.update([1.0, 3.0], [2.0, 6.0])
        >>> sums.mean_absolute_error, sums.calibration_ratio
        (2.0, 2.0)
    """

    def __init__(self) -> None:
        super().__init__()
        self._absolute = 0.0
        self._squared = 0.0

    def update(
        self,
        labels: npt.ArrayLike,
        predictions: npt.ArrayLike,
        sample_weights: npt.ArrayLike | None = None,
    ) -> None:
        """Add rows.

        Args:
            labels: (B,). Finite, in the task's unit.
            predictions: (B,). Finite, in the same unit.
            sample_weights: (B,). Finite, not negative.

        Raises:
            DataError: Lengths differ or a value is not finite.
        """
        rows = check_rows(labels, predictions, sample_weights, where="PositiveSums", kind="real")
        self._add(rows)
        errors_B = rows.predictions - rows.labels
        self._absolute += _weighted_sum(np.abs(errors_B), rows.sample_weights)
        self._squared += _weighted_sum(np.square(errors_B), rows.sample_weights)

    @property
    def mean_absolute_error(self) -> float:
        """Mean distance between prediction and label, in the label's unit."""
        return _ratio(self._absolute, self._weight)

    @property
    def root_mean_squared_error(self) -> float:
        """Root of the mean squared distance, in the label's unit."""
        return math.sqrt(_ratio(self._squared, self._weight))


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Mean prediction and mean label over bins of rows, by ascending prediction.

    Attributes:
        mean_predictions: (bins,).
        mean_labels: (bins,).
        weights: (bins,). Rows in the bin, or the sum of their weights.
    """

    mean_predictions: npt.NDArray[np.float64]
    mean_labels: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def log_loss(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> float:
    """Compute the mean negative log likelihood, in nats.

    Probabilities are clipped to [eps, 1 - eps] with float64's eps (2.2e-16), whatever their dtype:
    a row that is certain and wrong costs 36.04 and not infinity.

    Args:
        labels: (B,). 0 or 1.
        probabilities: (B,). In [0, 1].
        sample_weights: (B,). Finite, not negative.

    Raises:
        DataError: Lengths differ or a value is outside its range.
    """
    return _binary(labels, probabilities, sample_weights).log_loss


def log_losses(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Compute each row's negative log likelihood, clipped as in `log_loss`.

    Args:
        labels: (B,). 0 or 1.
        probabilities: (B,). In [0, 1].

    Returns:
        (B,). In nats; `mean_interval` of them is the interval of the log loss.

    Raises:
        DataError: Lengths differ or a value is outside its range.
    """
    return _log_losses(check_rows(labels, probabilities, where="log_losses", kind="probability"))


def normalized_entropy(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> float:
    """Compute the log loss over that of predicting the mean label; NaN for one class.

    Args:
        labels: (B,). 0 or 1.
        probabilities: (B,). In [0, 1].
        sample_weights: (B,). Finite, not negative.

    Raises:
        DataError: Lengths differ or a value is outside its range.
    """
    return _binary(labels, probabilities, sample_weights).normalized_entropy


def calibration_ratio(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> float:
    """Compute mean prediction over mean label; NaN where the labels sum to 0.

    Args:
        labels: (B,). Of a binary or a real-valued task, finite.
        predictions: (B,). Probabilities, or numbers in the labels' unit.
        sample_weights: (B,). Finite, not negative.

    Raises:
        DataError: Lengths differ or a value is not finite.
    """
    return _positive(labels, predictions, sample_weights).calibration_ratio


def mean_absolute_error(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> float:
    """Compute the mean distance between prediction and label.

    Args:
        labels: (B,). Finite.
        predictions: (B,). Finite, in the same unit, which is the result's.
        sample_weights: (B,). Finite, not negative.

    Raises:
        DataError: Lengths differ or a value is not finite.
    """
    return _positive(labels, predictions, sample_weights).mean_absolute_error


def root_mean_squared_error(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> float:
    """Compute the root of the mean squared distance between prediction and label.

    Args:
        labels: (B,). Finite.
        predictions: (B,). Finite, in the same unit, which is the result's.
        sample_weights: (B,). Finite, not negative.

    Raises:
        DataError: Lengths differ or a value is not finite.
    """
    return _positive(labels, predictions, sample_weights).root_mean_squared_error


def calibration_curve(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    num_bins: int,
    sample_weights: npt.ArrayLike | None = None,
) -> CalibrationCurve:
    """Compute mean prediction and mean label over bins of equal row count.

    Equal predictions stay in one bin, so that the result does not depend on the order of rows;
    where there are many ties bins differ in count and there may be fewer of them. A bin without
    weight has NaN means.

    Args:
        labels: (B,). Finite.
        predictions: (B,). Finite.
        num_bins: Bins at most.
        sample_weights: (B,). Finite, not negative. They weigh the means; bins count rows.

    Raises:
        DataError: Lengths differ or a value is not finite.
        ConfigError: `num_bins` is below 1.
    """
    if num_bins < 1:
        raise ConfigError(
            f"calibration_curve: num_bins must be at least 1. Got {num_bins}. 20 is usual."
        )
    rows = check_rows(labels, predictions, sample_weights, where="calibration_curve", kind="real")
    rows = rows.sort()
    if len(rows) == 0:
        return CalibrationCurve(np.zeros(0), np.zeros(0), np.zeros(0))
    targets = np.arange(num_bins, dtype=np.int64) * len(rows) // num_bins
    # A border inside a tie moves to the tie's first row.
    starts = np.unique(np.searchsorted(rows.predictions, rows.predictions[targets], side="left"))
    weights_B = np.ones(len(rows)) if rows.sample_weights is None else rows.sample_weights
    weights = np.add.reduceat(weights_B, starts)
    missing = np.full(len(starts), np.nan)
    predicted = np.add.reduceat(weights_B * rows.predictions, starts)
    labelled = np.add.reduceat(weights_B * rows.labels, starts)
    return CalibrationCurve(
        np.divide(predicted, weights, out=missing.copy(), where=weights > 0),
        np.divide(labelled, weights, out=missing.copy(), where=weights > 0),
        weights,
    )


def _log_losses(rows: Rows) -> npt.NDArray[np.float64]:
    # In float64: 1 - eps is not a float32 number.
    probabilities_B = np.clip(rows.predictions.astype(np.float64), _EPS, 1 - _EPS)
    return -np.log(np.where(rows.labels, probabilities_B, 1 - probabilities_B))


def _sum(values: npt.NDArray[Any]) -> float:
    return float(np.sum(values, dtype=np.float64))


def _weighted_sum(values: npt.NDArray[Any], weights: npt.NDArray[np.float64] | None) -> float:
    return _sum(values) if weights is None else _sum(values * weights)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")


def _binary(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, sample_weights: npt.ArrayLike | None
) -> BinarySums:
    sums = BinarySums()
    sums.update(labels, probabilities, sample_weights)
    return sums


def _positive(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, sample_weights: npt.ArrayLike | None
) -> PositiveSums:
    sums = PositiveSums()
    sums.update(labels, predictions, sample_weights)
    return sums
