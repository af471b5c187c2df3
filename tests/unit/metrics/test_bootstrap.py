from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from rankloom.errors import ConfigError, DataError
from rankloom.metrics import auc, auc_interval, gauc_interval, mean_interval, shrink_interval
from rankloom.metrics.bootstrap import _POISSON_TABLE


def make_rows(seed: int, num_rows: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Scores are normal, the positives' mean one higher: the AUC is Phi(1 / sqrt 2) = 0.7602."""
    generator = np.random.default_rng(seed)
    labels = generator.random(num_rows) < 0.3
    return labels, generator.normal(size=num_rows) + labels


def test_table_draws_are_poisson_one() -> None:
    counts = _POISSON_TABLE
    assert counts.mean() == pytest.approx(1.0, abs=1e-4)
    assert counts.var() == pytest.approx(1.0, abs=1e-4)
    for number in range(6):
        share = np.mean(counts == number)
        assert share == pytest.approx(math.exp(-1) / math.factorial(number), abs=1e-4)


def test_auc_intervals_hold_the_true_auc_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        low, high = auc_interval(*make_rows(seed, 400), seed=seed, num_resamples=100)
        held += low < 0.76025 < high
    # Binomial(200, 0.95) has a standard deviation of 3.1; the percentiles of 100 resamples of
    # few rows hold slightly less than they say.
    assert 175 <= held <= 199


def test_mean_intervals_have_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, size=10_000)
    low, high = mean_interval(values, seed=0, num_resamples=1000)
    assert high - low == pytest.approx(2 * 1.96 * 3.0 / 100, rel=0.1)
    assert low < values.mean() < high


def test_gauc_intervals_resample_groups_and_skip_one_class_groups() -> None:
    generator = np.random.default_rng(1)
    group_auc = generator.uniform(0.5, 0.9, size=2_500)
    group_auc[::5] = math.nan
    weights = np.full(2_500, 10.0)
    low, high = gauc_interval(group_auc, weights, seed=0, num_resamples=1000)
    # 2000 scored groups, standard deviation 0.4 / sqrt 12.
    assert high - low == pytest.approx(2 * 1.96 * 0.1155 / math.sqrt(2000), rel=0.1)
    assert low < np.nanmean(group_auc) < high


def test_weights_move_the_interval() -> None:
    values, weights = np.array([0.0, 1.0] * 500), np.array([1.0, 9.0] * 500)
    low, high = mean_interval(values, weights, seed=0)
    assert low < 0.9 < high
    assert low > 0.85


def test_auc_weights_act_as_repeated_rows_in_the_centre() -> None:
    labels, predictions = make_rows(2, 3_000)
    weights = np.where(predictions > 0.5, 3.0, 1.0)
    low, high = auc_interval(labels, predictions, weights, seed=0)
    assert low < auc(labels, predictions, weights) < high
    assert not low < auc(labels, predictions) < high


def test_resampled_ties_count_one_half() -> None:
    assert auc_interval([0, 1] * 50, [0.3] * 100, seed=0) == (0.5, 0.5)


def test_the_seed_decides() -> None:
    labels, predictions = make_rows(3, 500)
    first = auc_interval(labels, predictions, seed=1)
    assert first == auc_interval(labels, predictions, seed=1)
    assert first != auc_interval(labels, predictions, seed=2)


def test_a_sample_gives_the_interval_of_all_rows() -> None:
    labels, predictions = make_rows(4, 40_000)
    low, high = auc_interval(labels, predictions, seed=0, num_resamples=500)
    sampled_low, sampled_high = auc_interval(
        labels, predictions, seed=0, num_resamples=500, max_rows=4_000
    )
    # The width of 500 resamples spreads by 6 %, that of a sample of 4000 rows by 3 % more.
    assert sampled_high - sampled_low == pytest.approx(high - low, rel=0.25)
    assert sampled_low < auc(labels, predictions) < sampled_high


def test_a_sampled_mean_stays_centred_on_the_mean_of_all_rows() -> None:
    values = np.random.default_rng(5).normal(size=40_000)
    low, high = mean_interval(values, seed=0, max_rows=2_500, num_resamples=1000)
    assert high - low == pytest.approx(2 * 1.96 / 200, rel=0.15)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.002)


def test_shrinking_scales_the_distance_from_the_value() -> None:
    low, high = shrink_interval((0.6, 0.9), 0.7, 0.75, share=0.25)
    assert low == pytest.approx(0.70)
    assert high == pytest.approx(0.85)


@pytest.mark.parametrize("labels", [[], [1, 1, 1]])
def test_auc_interval_is_nan_without_both_classes(labels: list[int]) -> None:
    low, high = auc_interval(np.array(labels, dtype=np.int64), np.zeros(len(labels)), seed=0)
    assert math.isnan(low)
    assert math.isnan(high)


def test_gauc_interval_is_nan_without_scored_groups() -> None:
    low, high = gauc_interval([math.nan], [3.0], seed=0)
    assert math.isnan(low)
    assert math.isnan(high)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_resamples must be at least 2"):
        auc_interval([0, 1], [0.1, 0.2], seed=0, num_resamples=1)
    with pytest.raises(ConfigError, match="level must lie between 0 and 1"):
        mean_interval([0.1, 0.2], seed=0, level=95)


def test_group_columns_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match=r"Got \(2,\) and \(1,\)"):
        gauc_interval([0.5, 0.6], [3.0], seed=0)
