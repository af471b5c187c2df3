"""AUC within groups (users or requests), averaged over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankloom.metrics.pairs import GroupPairs, count_pairs, split_rows
from rankloom.metrics.rows import check_rows


@dataclass(frozen=True)
class GroupedAUC:
    """GAUC with the groups it was computed from.

    Attributes:
        value: Mean AUC of the scored groups, weighted by their rows; NaN where there is none.
        num_groups: All groups.
        num_scored_groups: Groups with rows of both classes.
        one_class_group_share: Share of groups left out because they have one class.
        one_class_row_share: Share of rows (of weight, where rows have weights) in those groups.
    """

    value: float
    num_groups: int
    num_scored_groups: int
    one_class_group_share: float
    one_class_row_share: float


class GroupedSums:
    """Sums from which `GroupedAUC` is computed, so that groups may come in parts."""

    def __init__(self) -> None:
        self._num_groups = 0
        self._num_scored = 0
        self._weight = 0.0
        self._scored_weight = 0.0
        self._weighted_auc = 0.0

    def update(self, pairs: GroupPairs) -> None:
        """Add finished groups."""
        group_auc, weights = pairs.auc(), pairs.weights
        is_scored = ~np.isnan(group_auc)
        self._num_groups += len(group_auc)
        self._num_scored += int(is_scored.sum())
        self._weight += float(weights.sum())
        self._scored_weight += float(weights[is_scored].sum())
        self._weighted_auc += float((weights * group_auc)[is_scored].sum())

    def result(self) -> GroupedAUC:
        """Compute GAUC over all groups added so far; shares of nothing are NaN."""
        scored, num_groups = self._scored_weight, self._num_groups
        nan = float("nan")
        return GroupedAUC(
            value=self._weighted_auc / scored if scored > 0 else nan,
            num_groups=num_groups,
            num_scored_groups=self._num_scored,
            one_class_group_share=1 - self._num_scored / num_groups if num_groups else nan,
            one_class_row_share=1 - scored / self._weight if self._weight > 0 else nan,
        )


def gauc(
    groups: npt.ArrayLike,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> GroupedAUC:
    """Compute the mean of the groups' AUC, weighted by their rows.

    Groups with rows of one class have no AUC; they are left out, and their share is reported.

    Args:
        groups: (B,), integers. The user or the request of each row, in any order.
        labels: (B,). 0 or 1.
        predictions: (B,). Probabilities or logits; only their order counts, ties one half.
        sample_weights: (B,). Finite, not negative. A group then counts the sum of its weights.

    Raises:
        DataError: As `auc`, or groups are not integers.

    Example:
        >>> gauc([1, 1, 2, 2, 2, 3], [0, 1, 1, 0, 0, 1], [0.2, 0.6, 0.5, 0.5, 0.1, 0.3]).value
        0.85
    """
    rows = check_rows(labels, predictions, sample_weights, groups, where="gauc").sort()
    return sum_groups(count_pairs(split_rows(rows)))


def per_group_auc(
    groups: npt.ArrayLike,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute each group's AUC and weight, for the bootstrap and for plots.

    Args:
        groups: (B,), integers. `G` different ones.
        labels: (B,). 0 or 1.
        predictions: (B,). Probabilities or logits.
        sample_weights: (B,). Finite, not negative.

    Returns:
        (G,) the AUC, NaN for a group of one class, and (G,) the number or weight of the group's
        rows, both in ascending order of group.

    Raises:
        DataError: As `gauc`.
    """
    rows = check_rows(labels, predictions, sample_weights, groups, where="per_group_auc").sort()
    return collect_groups(count_pairs(split_rows(rows)))


def sum_groups(parts: Iterable[GroupPairs]) -> GroupedAUC:
    """Compute GAUC from groups that come in parts, in constant memory."""
    sums = GroupedSums()
    for pairs in parts:
        sums.update(pairs)
    return sums.result()


def collect_groups(
    parts: Iterable[GroupPairs],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Join the AUC and the weight of groups that come in parts; 16 bytes a group."""
    pieces = [(pairs.auc(), pairs.weights) for pairs in parts]
    return (
        np.concatenate([group_auc for group_auc, _ in pieces]),
        np.concatenate([weights for _, weights in pieces]),
    )
