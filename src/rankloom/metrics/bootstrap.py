"""Intervals of metrics by resampling rows or groups.

Each resample gives every row (or group) a Poisson(1) weight, which is the usual bootstrap but for
a total that varies a little, and needs no row to move: rows are sorted once.

Resampling rows takes them as independent. Rows of one user are not, so over a log with many rows a
user an interval of `auc_interval` or `mean_interval` is too narrow; `gauc_interval` resamples whole
groups and is right when the groups are the users.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rankloom.errors import ConfigError, DataError
from rankloom.metrics.auc import auc
from rankloom.metrics.rows import Rows, check_rows

MAX_ROWS = 500_000
"""Rows that are resampled; more are sampled down to this, which bounds the cost."""

NUM_RESAMPLES = 200


def auc_interval(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    max_rows: int = MAX_ROWS,
) -> tuple[float, float]:
    """Compute a percentile bootstrap interval of the AUC over rows.

    Costs one sort and `num_resamples` passes. Of more than `max_rows` rows about that many are
    drawn at random, and the interval around their AUC is narrowed by the square root of their
    share (`shrink_interval`).

    Args:
        labels: (B,). 0 or 1.
        predictions: (B,). Probabilities or logits.
        sample_weights: (B,). Finite, not negative.
        seed: Determines the interval.
        num_resamples: More give steadier ends; at least 2.
        level: Share of resamples inside the interval.
        max_rows: Rows resampled at most, about.

    Returns:
        The low and the high end; NaN where the AUC is.

    Raises:
        DataError: As `auc`.
        ConfigError: `num_resamples`, `level` or `max_rows` is out of range.
    """
    _check_options("auc_interval", num_resamples, level, max_rows)
    rows = check_rows(labels, predictions, sample_weights, where="auc_interval")
    generator = np.random.default_rng(seed)
    sample = sample_rows(rows, max_rows, generator)
    values = _resample_auc(sample.sort(), num_resamples, generator)
    interval = _percentiles(values, level)
    if len(sample) == len(rows):
        return interval
    return shrink_interval(
        interval,
        auc(sample.labels, sample.predictions, sample.sample_weights),
        auc(rows.labels, rows.predictions, rows.sample_weights),
        share=len(sample) / len(rows),
    )


def gauc_interval(
    group_auc: npt.ArrayLike,
    group_weights: npt.ArrayLike,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute a percentile bootstrap interval of the GAUC over groups.

    Groups are taken whole, so dependence between the rows of a group is accounted for. Of more
    than 500,000 groups about that many are drawn, as in `auc_interval`.

    Args:
        group_auc: (G,). As `per_group_auc` gives it; NaN for groups of one class.
        group_weights: (G,). Number or weight of the group's rows.
        seed: Determines the interval.
        num_resamples: More give steadier ends; at least 2.
        level: Share of resamples inside the interval.

    Returns:
        The low and the high end; NaN where no group has both classes.

    Raises:
        DataError: Lengths differ or a weight is negative or not finite.
        ConfigError: `num_resamples` or `level` is out of range.
    """
    values_G = np.asarray(group_auc, dtype=np.float64)
    weights_G = np.asarray(group_weights, dtype=np.float64)
    if values_G.shape != weights_G.shape or values_G.ndim != 1:
        raise DataError(
            f"gauc_interval: group_auc and group_weights must be one-dimensional and of one "
            f"length. Got {values_G.shape} and {weights_G.shape}. Pass what per_group_auc gives."
        )
    is_scored_G = ~np.isnan(values_G)
    return mean_interval(
        values_G[is_scored_G],
        weights_G[is_scored_G],
        seed=seed,
        num_resamples=num_resamples,
        level=level,
    )


def mean_interval(
    values: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    max_rows: int = MAX_ROWS,
) -> tuple[float, float]:
    """Compute a percentile bootstrap interval of a weighted mean, such as the log loss.

    Args:
        values: (B,). One finite value a row, such as `log_losses` gives.
        sample_weights: (B,). Finite, not negative.
        seed: Determines the interval.
        num_resamples: More give steadier ends; at least 2.
        level: Share of resamples inside the interval.
        max_rows: Rows resampled at most, about; see `auc_interval`.

    Returns:
        The low and the high end; NaN where there is no row or no weight.

    Raises:
        DataError: Lengths differ, a value is not finite, a weight is negative or not finite.
        ConfigError: `num_resamples`, `level` or `max_rows` is out of range.
    """
    _check_options("mean_interval", num_resamples, level, max_rows)
    rows = check_rows(values, values, sample_weights, where="mean_interval", kind="real")
    generator = np.random.default_rng(seed)
    sample = sample_rows(rows, max_rows, generator)
    means = _resample_mean(sample, num_resamples, generator)
    interval = _percentiles(means, level)
    if len(sample) == len(rows):
        return interval
    return shrink_interval(interval, _mean(sample), _mean(rows), share=len(sample) / len(rows))


def shrink_interval(
    interval: tuple[float, float], sample_value: float, value: float, *, share: float
) -> tuple[float, float]:
    """Turn the interval of a random sample of rows into one for all rows.

    The spread of a mean-like metric falls with the square root of the rows, so each end's distance
    from the sample's value is multiplied by the square root of `share` and put around `value`.

    Args:
        interval: Low and high end, from the sample.
        sample_value: The metric over the sample.
        value: The metric over all rows.
        share: Rows of the sample by all rows, in [0, 1].
    """
    scale = math.sqrt(share)
    low, high = interval
    return value + (low - sample_value) * scale, value + (high - sample_value) * scale


def sample_rows(rows: Rows, max_rows: int, generator: np.random.Generator) -> Rows:
    """Draw about `max_rows` rows without replacement, or give all where there are no more."""
    if len(rows) <= max_rows:
        return rows
    return rows.take(generator.random(len(rows)) < max_rows / len(rows))


def _resample_auc(
    rows: Rows, num_resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Compute the AUC of each resample of sorted rows, (num_resamples,)."""
    positives, negatives = rows.take(rows.labels), rows.take(~rows.labels)
    # A positive row wins what stands below it and half of what it ties with: the mean of the
    # negatives' cumulative weight at the two ends of its tie.
    below = np.searchsorted(negatives.predictions, positives.predictions, side="left")
    up_to = np.searchsorted(negatives.predictions, positives.predictions, side="right")
    values = np.full(num_resamples, np.nan)
    for index in range(num_resamples):
        weights_P = _poisson_weights(positives, generator)
        total_N = np.concatenate([[0.0], np.cumsum(_poisson_weights(negatives, generator))])
        pairs = float(weights_P.sum() * total_N[-1])
        if pairs > 0:
            won = 0.5 * (weights_P @ total_N[below] + weights_P @ total_N[up_to])
            values[index] = won / pairs
    return values


def _resample_mean(
    rows: Rows, num_resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Compute the mean label of each resample, (num_resamples,)."""
    means = np.full(num_resamples, np.nan)
    for index in range(num_resamples):
        weights_B = _poisson_weights(rows, generator)
        weight = float(weights_B.sum())
        if weight > 0:
            means[index] = float(weights_B @ rows.labels) / weight
    return means


def _mean(rows: Rows) -> float:
    return float(np.average(rows.labels, weights=rows.sample_weights))


def _percentiles(values: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    # A resample without both classes has no value and says nothing about the spread.
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _poisson_weights(rows: Rows, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a Poisson(1) weight a row, times the row's own."""
    # From a table: several times faster than the generator's own Poisson draws.
    index = generator.integers(0, len(_POISSON_TABLE), len(rows), dtype=np.uint16)
    counts_B = _POISSON_TABLE[index]
    return counts_B if rows.sample_weights is None else counts_B * rows.sample_weights


def _poisson_table() -> npt.NDArray[np.float64]:
    """Make 2**16 equally likely numbers whose mean and variance are 1 within 1e-4."""
    size = 1 << 16
    probabilities = [math.exp(-1.0) / math.factorial(number) for number in range(10)]
    ends = np.rint(np.cumsum(probabilities) * size).astype(np.int64)
    ends[-1] = size
    return np.repeat(np.arange(10, dtype=np.float64), np.diff(ends, prepend=0))


def _check_options(where: str, num_resamples: int, level: float, max_rows: int) -> None:
    if num_resamples < 2:
        raise ConfigError(
            f"{where}: num_resamples must be at least 2. Got {num_resamples}. 200 is usual."
        )
    if not 0 < level < 1:
        raise ConfigError(f"{where}: level must lie between 0 and 1. Got {level}. 0.95 is usual.")
    if max_rows < 1:
        raise ConfigError(f"{where}: max_rows must be at least 1. Got {max_rows}. 500000 is usual.")


_POISSON_TABLE = _poisson_table()
