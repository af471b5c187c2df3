"""Ordered pairs counted over rows that come sorted, block by block.

The AUC of a group is the share of its (positive, negative) pairs in which the positive row has the
larger prediction, ties counted one half. Over rows sorted by (group, prediction) that is one pass
which needs to remember only the open tie and the open group, so blocks may end anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rankloom.metrics.rows import Floats, Rows

# Rows handled at once: a block's temporary arrays stay near the processor's cache.
BLOCK_ROWS = 1 << 17


@dataclass(frozen=True, eq=False)
class GroupPairs:
    """Pair counts of finished groups, `G` of them, in ascending order of group.

    Attributes:
        groups: (G,), int64.
        won: (G,). Weight of the pairs whose positive row is above, ties one half.
        positives: (G,). Weight of the positive rows.
        negatives: (G,). Weight of the negative rows.
    """

    groups: npt.NDArray[np.int64]
    won: npt.NDArray[np.float64]
    positives: npt.NDArray[np.float64]
    negatives: npt.NDArray[np.float64]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(G,). Weight of each group's rows: their number where rows have no weights."""
        return self.positives + self.negatives

    def auc(self) -> npt.NDArray[np.float64]:
        """(G,). AUC of each group, NaN where it has one class only."""
        pairs = self.positives * self.negatives
        return np.divide(self.won, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


class PairCounter:
    """Counts ordered pairs per group over sorted blocks of rows.

    Rows without groups count as one group, number 0.
    """

    def __init__(self) -> None:
        # The last tie: more of its rows may stand in the next block.
        self._tie: _Ties | None = None
        # What is already counted of the last tie's group, as a tie of known `won`.
        self._counted: GroupPairs | None = None

    def update(self, rows: Rows) -> GroupPairs:
        """Count a block whose rows are sorted and not below any row given before.

        Returns:
            The groups that this block has finished.
        """
        ties = _Ties.of(rows)
        if self._tie is not None:
            ties = _Ties.merge(self._tie, ties)
        if len(ties) == 0:
            return _first(_EMPTY, 0)
        self._tie = ties.take(slice(len(ties) - 1, None))
        pairs = self._count(ties.take(slice(0, len(ties) - 1)))
        if len(pairs.groups) == 0:
            return pairs
        last = len(pairs.groups) - 1
        self._counted = _rest(pairs, last)
        return _first(pairs, last)

    def finish(self) -> GroupPairs:
        """Give the group that is still open, if there were rows."""
        return _EMPTY if self._tie is None else self._count(self._tie)

    def _count(self, ties: _Ties) -> GroupPairs:
        """Sum closed ties per group, what was counted before included."""
        before = self._counted
        groups, positives, negatives = ties.groups, ties.positives, ties.negatives
        if before is not None:
            groups = np.concatenate([before.groups, groups])
            positives = np.concatenate([before.positives, positives])
            negatives = np.concatenate([before.negatives, negatives])
        if len(groups) == 0:
            return _EMPTY
        starts = _starts(groups[1:] != groups[:-1])
        won = positives * (_sum_before(negatives, starts) + 0.5 * negatives)
        if before is not None:
            won[0] = before.won[0]
        return GroupPairs(
            groups[starts],
            np.add.reduceat(won, starts),
            np.add.reduceat(positives, starts),
            np.add.reduceat(negatives, starts),
        )


@dataclass(frozen=True, eq=False)
class _Ties:
    """Runs of rows with equal (group, prediction), as weight of either class."""

    groups: npt.NDArray[np.int64]
    predictions: Floats
    positives: npt.NDArray[np.float64]
    negatives: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.groups)

    @staticmethod
    def of(rows: Rows) -> _Ties:
        positives = rows.labels.astype(np.float64)
        negatives = 1.0 - positives
        if rows.sample_weights is not None:
            positives *= rows.sample_weights
            negatives *= rows.sample_weights
        groups = rows.groups
        if groups is None:
            groups = np.zeros(len(rows), dtype=np.int64)
        return _Ties(groups, rows.predictions, positives, negatives).join_equal()

    @staticmethod
    def merge(tie: _Ties, ties: _Ties) -> _Ties:
        """Put one tie in front of sorted ties, joined to the first where they are equal."""
        return _Ties(
            np.concatenate([tie.groups, ties.groups]),
            np.concatenate([tie.predictions, ties.predictions]),
            np.concatenate([tie.positives, ties.positives]),
            np.concatenate([tie.negatives, ties.negatives]),
        ).join_equal()

    def take(self, index: slice | npt.NDArray[Any]) -> _Ties:
        return _Ties(
            self.groups[index],
            self.predictions[index],
            self.positives[index],
            self.negatives[index],
        )

    def join_equal(self) -> _Ties:
        if len(self) == 0:
            return self
        borders = self.predictions[1:] != self.predictions[:-1]
        borders |= self.groups[1:] != self.groups[:-1]
        if borders.all():
            return self
        starts = _starts(borders)
        return _Ties(
            self.groups[starts],
            self.predictions[starts],
            np.add.reduceat(self.positives, starts),
            np.add.reduceat(self.negatives, starts),
        )


def count_pairs(blocks: Iterable[Rows]) -> Iterator[GroupPairs]:
    """Count sorted blocks to their end, giving groups as they are finished."""
    counter = PairCounter()
    for block in blocks:
        yield counter.update(block)
    yield counter.finish()


def count_one_group(blocks: Iterable[Rows]) -> float:
    """Compute the AUC over sorted blocks without groups; NaN where there is one class."""
    counter = PairCounter()
    for block in blocks:
        counter.update(block)
    values = counter.finish().auc()
    return float(values[0]) if len(values) else float("nan")


def split_rows(rows: Rows, block_rows: int = BLOCK_ROWS) -> Iterator[Rows]:
    """Cut rows into consecutive blocks without copying them."""
    for start in range(0, len(rows), block_rows):
        yield rows.read(start, block_rows)


def _starts(borders: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Give the first index of each run; `borders[i]` says that i + 1 begins one."""
    return np.concatenate([[0], np.flatnonzero(borders) + 1]).astype(np.intp, copy=False)


def _sum_before(
    values: npt.NDArray[np.float64], starts: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Sum, for each value, the values before it in its own run."""
    if len(starts) == 1:
        return np.cumsum(values) - values
    # One cumulative sum over everything would round each run at the scale of the total. Taking a
    # run's sum off where the next begins keeps it at the scale of one run.
    steps = values.copy()
    steps[starts[1:]] -= np.add.reduceat(values, starts)[:-1]
    before = np.cumsum(steps) - values
    before -= np.repeat(before[starts], np.diff(starts, append=len(values)))
    return before


def _first(pairs: GroupPairs, count: int) -> GroupPairs:
    return GroupPairs(
        pairs.groups[:count], pairs.won[:count], pairs.positives[:count], pairs.negatives[:count]
    )


def _rest(pairs: GroupPairs, start: int) -> GroupPairs:
    return GroupPairs(
        pairs.groups[start:], pairs.won[start:], pairs.positives[start:], pairs.negatives[start:]
    )


_EMPTY = GroupPairs(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
