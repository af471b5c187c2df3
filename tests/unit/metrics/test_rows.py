from __future__ import annotations

import numpy as np
import pytest

from rankloom.metrics.rows import check_rows


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int64, np.float64),
    ],
)
def test_predictions_keep_their_precision(given: type, kept: type) -> None:
    rows = check_rows([0, 1], np.array([0, 1], dtype=given), where="test")
    assert rows.predictions.dtype == kept


def test_columns_get_the_dtypes_of_rows() -> None:
    rows = check_rows([0.0, 1.0], [0.1, 0.2], [1, 2], np.array([1, 2], np.int32), where="test")
    assert rows.labels.dtype == np.bool_
    assert rows.sample_weights is not None
    assert rows.sample_weights.dtype == np.float64
    assert rows.groups is not None
    assert rows.groups.dtype == np.int64


def test_sorting_orders_by_group_then_prediction() -> None:
    rows = check_rows([0, 1, 1], [0.5, 0.9, 0.1], [1.0, 2.0, 3.0], [7, 2, 7], where="test").sort()
    np.testing.assert_array_equal(rows.sample_weights, [2.0, 3.0, 1.0])
    np.testing.assert_array_equal(rows.without_groups().sort().predictions, [0.1, 0.5, 0.9])
