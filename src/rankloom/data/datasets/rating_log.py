"""From ratings to training rows: requests, histories, calendar columns and splits by time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.splits import write_splits
from rankloom.errors import ConfigError

Split = Literal["user_time", "global_time"]
Int64 = npt.NDArray[np.int64]

_SPLITS = ("train", "valid", "test")
_TRAIN_SHARE = 0.8
_TRAIN_AND_VALID_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class RatingLog:
    """Ratings of items by users, in any order."""

    users: pa.Table
    """One row a user: user_id (string, distinct), age, gender, occupation, zip_code."""
    items: pa.Table
    """One row an item: item_id (string, distinct), release_year, genres."""
    user: Int64
    """(V,) row of each rating's user in `users`."""
    item: Int64
    """(V,) row of each rating's item in `items`."""
    rating: Int64
    """(V,) from 1 to 5."""
    timestamp: Int64
    """(V,) seconds since 1970, UTC."""


def write_rating_log(
    log: RatingLog,
    destination: Path,
    *,
    name: str,
    split: Split,
    max_history: int,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Write train, valid and test rows in order of (timestamp, user_id, item_id).

    A request is what one user rated in one second. Its rows share a request_id, a history and a
    split. The history is what the user rated strictly before, oldest first.

    Args:
        log: The ratings.
        destination: Folder to write to.
        name: The data set's name.
        split: `user_time` cuts each user's requests by time into 80, 10 and 10 % of the rows;
            `global_time` cuts all requests so, by which most users of the test were never seen.
        max_history: The newest events that are kept.
        report: Called with each line of progress.

    Raises:
        ConfigError: `split` is unknown or `max_history` is negative.
        DataError: The folder cannot be written to.
    """
    if split not in get_args(Split):
        raise ConfigError(
            f"data.split: unknown split. Got {split!r}. Choose one of {', '.join(get_args(Split))}."
        )
    if max_history < 0:
        raise ConfigError(f"data.max_history: must not be negative. Got {max_history}. Give 200.")
    log = _sorted_by_time(log)
    rows = _Rows(log, max_history=max_history)
    numbers = rows.split_by_user_time() if split == "user_time" else rows.split_by_global_time()
    tables = {
        part: rows.table(np.flatnonzero(numbers == number)) for number, part in enumerate(_SPLITS)
    }
    counts = write_splits(tables, destination)
    notes = [f"split {split}: " + ", ".join(f"{part} {n:,}" for part, n in counts.items())]
    is_test = numbers == _SPLITS.index("test")
    is_cold = ~np.isin(log.user[is_test], np.unique(log.user[numbers == 0]))
    if len(is_cold):
        notes.append(f"cold share: {is_cold.mean():.1%} of the test rows have a user not in train")
    for note in notes:
        report(note)
    return PreparedDataset(name=name, folder=destination, rows=counts, notes=tuple(notes))


def _sorted_by_time(log: RatingLog) -> RatingLog:
    """Renumber users and items by their ids, and sort the ratings."""
    users, user = _sorted_entities(log.users, "user_id", log.user)
    items, item = _sorted_entities(log.items, "item_id", log.item)
    order = np.lexsort((item, user, log.timestamp))
    return RatingLog(
        users=users,
        items=items,
        user=user[order],
        item=item[order],
        rating=log.rating[order],
        timestamp=log.timestamp[order],
    )


def _sorted_entities(entities: pa.Table, key: str, rows: Int64) -> tuple[pa.Table, Int64]:
    order = pc.sort_indices(entities[key]).to_numpy()
    new_number = np.empty(len(order), np.int64)
    new_number[order] = np.arange(len(order))
    return entities.take(pa.array(order)), new_number[rows]


class _Rows:
    """Training rows of a log that is sorted by time."""

    def __init__(self, log: RatingLog, *, max_history: int) -> None:
        self.log = log
        num_rows = len(log.user)
        is_first = np.ones(num_rows, bool)
        is_first[1:] = (np.diff(log.timestamp) != 0) | (np.diff(log.user) != 0)
        self.request = np.cumsum(is_first) - 1
        # The user-major order is stable, so each user's rows stay in order of time.
        self.by_user = np.argsort(log.user, kind="stable")
        place = np.empty(num_rows, np.int64)
        place[self.by_user] = np.arange(num_rows)
        # A request's rows are contiguous in both orders.
        request_start = place[np.flatnonzero(is_first)][self.request]
        user_start = np.searchsorted(log.user[self.by_user], log.user)
        self.start_in_user = request_start - user_start
        self.history_end = request_start
        self.history_start = np.maximum(user_start, request_start - max_history)
        self.first_event = self.history_start - user_start

    def split_by_user_time(self) -> Int64:
        """Number each row's split: 0 train, 1 valid, 2 test."""
        num_of_user = np.bincount(self.log.user, minlength=len(self.log.users))
        return self._split(self.start_in_user, num_of_user[self.log.user])

    def split_by_global_time(self) -> Int64:
        """Number each row's split: 0 train, 1 valid, 2 test."""
        start = np.searchsorted(self.request, self.request)
        return self._split(start, np.full(len(start), len(start)))

    def _split(self, start: Int64, total: Int64) -> Int64:
        """Cut at the edge between requests that is nearest to the wanted share.

        Args:
            start: (V,) rows before this row's request.
            total: (V,) rows that are cut together.
        """
        # A request goes to the part that holds its middle: that is the nearest edge.
        middle = start + np.bincount(self.request)[self.request] / 2
        part = np.zeros(len(start), np.int64)
        for share in (_TRAIN_SHARE, _TRAIN_AND_VALID_SHARE):
            part += middle > share * total
        return part

    def table(self, rows: Int64) -> pa.Table:
        """Make the table of some rows, in their order."""
        log = self.log
        user, item, timestamp = log.user[rows], log.item[rows], log.timestamp[rows]
        users, items = log.users.take(pa.array(user)), log.items.take(pa.array(item))
        offsets, events = self._history(rows)
        return pa.table(
            {
                "user_id": users["user_id"],
                "age": users["age"],
                "gender": users["gender"],
                "occupation": users["occupation"],
                "zip_code": users["zip_code"],
                "item_id": items["item_id"],
                "release_year": items["release_year"],
                "genres": items["genres"],
                "rating": log.rating[rows],
                "timestamp": timestamp,
                "hour": timestamp // 3600 % 24,
                # 1 January 1970 was a Thursday; Monday is 0.
                "weekday": (timestamp // 86_400 + 3) % 7,
                "request_id": self.request[rows],
                "history_item_id": _lists(
                    offsets,
                    pa.concat_arrays(log.items["item_id"].chunks).take(pa.array(log.item[events])),
                ),
                "history_rating": _lists(offsets, pa.array(log.rating[events])),
                "history_time": _lists(offsets, pa.array(log.timestamp[events])),
                "history_first_event": self.first_event[rows],
            }
        )

    def _history(self, rows: Int64) -> tuple[Int64, Int64]:
        """Give (B + 1,) offsets and the log's row of each event, row after row."""
        starts = self.history_start[rows]
        lengths = self.history_end[rows] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        place = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return offsets, self.by_user[place]


def _lists(offsets: Int64, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
