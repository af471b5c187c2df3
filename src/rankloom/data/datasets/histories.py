"""Histories for rows: the newest events of the row's user strictly before the row's second."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rankloom.data.columns import expand_ranges, offsets_of
from rankloom.data.datasets.partitions import one_array
from rankloom.data.datasets.split_writer import ROW_GROUP_ROWS, SplitWriter
from rankloom.errors import ConfigError

Int64 = npt.NDArray[np.int64]


class Histories:
    """The history of each row; events at the row's own second or later are none of it.

    Args:
        row_user: (B,) whole numbers.
        row_time: (B,).
        events: One row an event; its columns become the history's columns.
        event_user: (V,).
        event_time: (V,); events of one time stay in the order of `events`.
        max_history: The newest events that are kept.

    Raises:
        ConfigError: `max_history` is negative.
    """

    def __init__(
        self,
        row_user: Int64,
        row_time: Int64,
        *,
        events: pa.Table,
        event_user: Int64,
        event_time: Int64,
        max_history: int,
    ) -> None:
        if max_history < 0:
            raise ConfigError(
                f"data.max_history: must not be negative. Got {max_history}. Give 50."
            )
        num_rows = len(row_user)
        user = np.concatenate([row_user, event_user])
        is_event = np.arange(len(user)) >= num_rows
        # At one second rows come first, so that the events counted before a row are older ones.
        order = np.lexsort((is_event, np.concatenate([row_time, event_time]), user))
        is_event = is_event[order]
        num_before = np.cumsum(is_event)[~is_event]
        self._end = np.empty(num_rows, np.int64)
        self._end[order[~is_event]] = num_before
        self._order = order[is_event] - num_rows
        first = np.searchsorted(event_user[self._order], row_user)
        self._start = np.maximum(first, self._end - max_history)
        self._events = events
        self.first_event = self._start - first
        """(B,) how many events of the user came before the first one kept."""
        self.lengths = self._end - self._start
        """(B,) events kept."""

    def columns(self, rows: Int64) -> dict[str, pa.Array]:
        """Give `history_<column>` lists and `history_first_event` of some rows."""
        lengths = self.lengths[rows]
        place = pa.array(self._order[expand_ranges(self._start[rows], lengths)])
        offsets = pa.array(offsets_of(lengths), pa.int32())
        columns = {
            f"history_{name}": pa.ListArray.from_arrays(
                offsets, one_array(self._events[name].take(place))
            )
            for name in self._events.column_names
        }
        return columns | {"history_first_event": pa.array(self.first_event[rows])}


def write_impressions(
    writer: SplitWriter,
    rows: pa.Table,
    *,
    user: str,
    events: pa.Table,
    event_user: Int64,
    splits: Mapping[str, npt.NDArray[np.bool_]],
    max_history: int,
) -> None:
    """Write rows with histories and request numbers, in order of time and user.

    A request is what one user saw in one second.

    Args:
        writer: Of the splits.
        rows: With `timestamp` and the column `user`, whole numbers.
        user: Name of that column.
        events: With `time`; see `Histories`.
        event_user: (V,).
        splits: Split -> (B,) its rows.
        max_history: The newest events that are kept.
    """
    row_user, row_time = rows[user].to_numpy(), rows["timestamp"].to_numpy()
    histories = Histories(
        row_user,
        row_time,
        events=events,
        event_user=event_user,
        event_time=events["time"].to_numpy(),
        max_history=max_history,
    )
    order = np.lexsort((row_user, row_time))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(row_user[order]) != 0) | (np.diff(row_time[order]) != 0)
    request = np.empty(len(order), np.int64)
    request[order] = np.cumsum(is_first) - 1 + sum(writer.rows.values())
    for split, is_chosen in splits.items():
        chosen = order[is_chosen[order]]
        for start in range(0, len(chosen), ROW_GROUP_ROWS):
            part = chosen[start : start + ROW_GROUP_ROWS]
            columns = {"request_id": pa.array(request[part])} | histories.columns(part)
            writer.write(split, with_columns(rows.take(pa.array(part)), columns))


def with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Add columns on the right."""
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table
