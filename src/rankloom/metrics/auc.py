"""Area under the ROC curve, exact."""

from __future__ import annotations

import numpy.typing as npt

from rankloom.metrics.pairs import count_one_group, split_rows
from rankloom.metrics.rows import check_rows


def auc(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> float:
    """Compute the share of (positive, negative) pairs that are in the right order.

    A pair with equal predictions counts one half; a pair of weighted rows counts the product of
    their weights. No binning: one sort, then cumulative sums over ties.

    Args:
        labels: (B,). 0 or 1.
        predictions: (B,). Probabilities or logits; only their order counts.
        sample_weights: (B,). Finite, not negative.

    Returns:
        The AUC in [0, 1]; NaN where one class has no row (or no weight).

    Raises:
        DataError: Lengths differ, a label is not 0 or 1, a prediction is NaN, a weight is
            negative or not finite.

    Example:
        >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9])
        0.875
    """
    rows = check_rows(labels, predictions, sample_weights, where="auc").sort()
    return count_one_group(split_rows(rows))
