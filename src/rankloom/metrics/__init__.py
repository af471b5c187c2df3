"""Metrics under their usual names, exact, on NumPy columns.

    auc, gauc, per_group_auc         ranking, ties one half, no binning
    ScoreStore                       the same for more rows than memory holds
    log_loss, normalized_entropy, calibration_ratio, mean_absolute_error,
    root_mean_squared_error          and BinarySums, PositiveSums to accumulate them
    calibration_curve                what the calibration plot shows
    auc_interval, gauc_interval, mean_interval

`labels`, `predictions` (or `probabilities`) and `sample_weights` are one-dimensional, one value a
row. Where a metric is not defined (one class, no rows) it is NaN.
"""

from __future__ import annotations

from rankloom.metrics.auc import auc
from rankloom.metrics.bootstrap import (
    auc_interval,
    gauc_interval,
    mean_interval,
    shrink_interval,
)
from rankloom.metrics.gauc import GroupedAUC, gauc, per_group_auc
from rankloom.metrics.pointwise import (
    BinarySums,
    CalibrationCurve,
    PointwiseSums,
    PositiveSums,
    calibration_curve,
    calibration_ratio,
    log_loss,
    log_losses,
    mean_absolute_error,
    normalized_entropy,
    root_mean_squared_error,
)
from rankloom.metrics.store import ScoreStore

__all__ = [
    "BinarySums",
    "CalibrationCurve",
    "GroupedAUC",
    "PointwiseSums",
    "PositiveSums",
    "ScoreStore",
    "auc",
    "auc_interval",
    "calibration_curve",
    "calibration_ratio",
    "gauc",
    "gauc_interval",
    "log_loss",
    "log_losses",
    "mean_absolute_error",
    "mean_interval",
    "normalized_entropy",
    "per_group_auc",
    "root_mean_squared_error",
    "shrink_interval",
]
