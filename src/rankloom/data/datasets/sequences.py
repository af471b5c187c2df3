"""From what users took in turn to rows to rank: the item taken beside items drawn at random.

The last item of a user is for the test, the one before for validation, the others for training, as
in SASRec and S3-Rec (leave-one-out); a user with fewer than three gives training rows only. A row
needs a history, so a user's first items are events only.

Beside each item taken stand negatives: items drawn uniformly, with replacement, from those that
the user never took. So AUC is that of telling a taken item from a random one. It is neither the
HR@k nor the NDCG@k that papers give, least of all those over the whole catalogue, and a model gains
much of it by popularity alone. Probabilities hold for the share of negatives in training only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.datasets.histories import Histories, with_columns
from rankloom.data.datasets.split_writer import ROW_GROUP_ROWS, SplitWriter
from rankloom.errors import ConfigError, DataError

Int64 = npt.NDArray[np.int64]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """How many items are drawn beside each item taken.

    Raises:
        ConfigError: A number is not positive.
    """

    fit: int
    """In train and valid."""
    test: int
    """In test."""

    def __post_init__(self) -> None:
        for name, count in (("num_negatives", self.fit), ("test_negatives", self.test)):
            if count < 1:
                raise ConfigError(f"data.{name}: must be positive. Got {count}. Give 1 or more.")

    def of(self, split: str) -> int:
        """Give the number for a split."""
        return self.test if split == "test" else self.fit

    def note(self, *, seed: int) -> str:
        """Say in a line what was drawn and what its AUC is not."""
        return (
            f"negatives: {self.fit} for each item in train and valid, {self.test} in test, drawn "
            f"uniformly, seed {seed}; this AUC is not the HR@k or NDCG@k of papers, which rank 100 "
            "items or the whole catalogue"
        )


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """What some users took, in any order; all that each of them took."""

    user_id: pa.Array
    """(V,) without nulls."""
    item: Int64
    """(V,) row in the table of items."""
    time: Int64
    """(V,); what has the same time stays in the order given."""
    shared: Mapping[str, pa.Array]
    """More (V,) columns, which negatives share with the item taken, such as the time."""
    outcomes: Mapping[str, pa.Array]
    """More (V,) columns of numbers, 0 for negatives, such as the rating."""
    history: pa.Table
    """(V) columns of the events of histories."""


def write_sequences(
    writer: SplitWriter,
    sequences: Sequences,
    items: pa.Table,
    *,
    negatives: Negatives,
    max_history: int,
    generator: np.random.Generator,
) -> None:
    """Write the rows of some users, or of none.

    Columns: user_id, those of `items`, label (1 for the item taken, 0 for one drawn), request_id
    (an item taken and its negatives), those of `shared` and `outcomes`, and the history's. The item
    taken is the first of its request; no model sees the place.

    Args:
        writer: With `SPLITS`.
        sequences: Of these users.
        items: The catalogue, one row an item.
        negatives: How many.
        max_history: The newest events that are kept.
        generator: Draws the negatives.

    Raises:
        ConfigError: `max_history` is negative.
        DataError: A user took every item, so that there is none to draw.
    """
    if not len(sequences.item):
        return
    user = sequences.user_id.dictionary_encode().indices.to_numpy().astype(np.int64)
    histories = Histories(
        user,
        sequences.time,
        events=sequences.history,
        event_user=user,
        event_time=sequences.time,
        max_history=max_history,
    )
    split_of = _leave_one_out(user, sequences.time)
    taken = _Taken(user, sequences.item, num_items=len(items))
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero((split_of == number) & (histories.lengths > 0))
        count = negatives.of(split)
        size = max(ROW_GROUP_ROWS // (1 + count), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            drawn = taken.draw_others(user[part], count, generator)
            item = np.column_stack([sequences.item[part], drawn]).ravel()
            row = np.repeat(part, 1 + count)
            label = np.zeros((len(part), 1 + count), np.int64)
            label[:, 0] = 1
            first = sum(writer.rows.values())
            request = first + np.repeat(np.arange(len(part)), 1 + count)
            table = pa.table({"user_id": sequences.user_id.take(pa.array(row))})
            chosen = items.take(pa.array(item))
            columns = {name: chosen[name] for name in chosen.column_names}
            columns |= {"label": pa.array(label.ravel()), "request_id": pa.array(request)}
            at = pa.array(row)
            for name, values in sequences.shared.items():
                columns[name] = values.take(at)
            for name, values in sequences.outcomes.items():
                columns[name] = pc.multiply(values.take(at), columns["label"])
            writer.write(split, with_columns(table, columns | histories.columns(row)))


def _leave_one_out(user: Int64, time: Int64) -> Int64:
    """Give (V,) the place of each item's split in `SPLITS`."""
    order = np.lexsort((time, user))
    num_of_user = np.bincount(user)
    last = np.cumsum(num_of_user)[user[order]] - 1
    from_end = last - np.arange(len(order))
    split = np.maximum(2 - from_end, 0)
    split[num_of_user[user[order]] < len(SPLITS)] = 0
    split_of = np.empty(len(order), np.int64)
    split_of[order] = split
    return split_of


class _Taken:
    """Which user took which items, to draw others."""

    def __init__(self, user: Int64, item: Int64, *, num_items: int) -> None:
        self._num_items = num_items
        self._pairs = np.unique(user * num_items + item)
        most = np.bincount(self._pairs // num_items).max()
        if most >= num_items:
            raise DataError(
                f"negatives: a user took all {num_items:,} items, so that none is left to draw. "
                "Got too few items. Give a log with more items."
            )

    def draw_others(self, user: Int64, count: int, generator: np.random.Generator) -> Int64:
        """Draw (n, count) items for (n,) users that each did not take."""
        users = np.repeat(user, count)
        drawn = generator.integers(0, self._num_items, len(users))
        again = self._is_taken(users, drawn)
        while len(again):
            drawn[again] = generator.integers(0, self._num_items, len(again))
            again = again[self._is_taken(users[again], drawn[again])]
        return drawn.reshape(len(user), count)

    def _is_taken(self, user: Int64, item: Int64) -> Int64:
        """Give the places of the pairs that are taken."""
        pair = user * self._num_items + item
        place = np.minimum(np.searchsorted(self._pairs, pair), len(self._pairs) - 1)
        return np.flatnonzero(self._pairs[place] == pair)
