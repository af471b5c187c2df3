"""Sorted runs of rows on disk, and their merge in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rankloom.errors import DataError
from rankloom.metrics.rows import Rows, concatenate

_COLUMNS = ("labels", "predictions", "sample_weights", "groups")


class Run(Protocol):
    """Rows in ascending order of (group, prediction), or of prediction alone."""

    def __len__(self) -> int:
        """Give the number of rows."""
        ...

    def read(self, start: int, count: int) -> Rows:
        """Give up to `count` rows from `start` on."""
        ...


class StoredRun:
    """A sorted run on disk, each column a file of raw numbers.

    The files are scratch: no other process reads them, so they are written in place.
    """

    def __init__(self, folder: Path, num_rows: int, dtypes: dict[str, np.dtype[Any]]) -> None:
        self._folder = folder
        self._num_rows = num_rows
        self._dtypes = dtypes

    @classmethod
    def write(cls, folder: Path, rows: Rows) -> StoredRun:
        """Write sorted rows into a new folder.

        Raises:
            DataError: The disk is full or the folder cannot be written.
        """
        dtypes = {}
        try:
            # It exists when an earlier attempt failed half way; its files are overwritten.
            folder.mkdir(exist_ok=True)
            for name in _COLUMNS:
                column: npt.NDArray[Any] | None = getattr(rows, name)
                if column is not None:
                    column.tofile(folder / name)
                    dtypes[name] = column.dtype
        except OSError as error:
            raise DataError(
                f"{folder}: the scores for exact AUC cannot be spilled to disk. Got: {error}. "
                f"Free space there, name another folder or raise memory_rows."
            ) from error
        return cls(folder, len(rows), dtypes)

    def __len__(self) -> int:
        return self._num_rows

    def read(self, start: int, count: int) -> Rows:
        """Give up to `count` rows from `start` on.

        Raises:
            DataError: A file is gone or shorter than it was written.
        """
        count = min(count, self._num_rows - start)
        return Rows(
            self._read_column("labels", start, count),
            self._read_column("predictions", start, count),
            self._read_column("sample_weights", start, count)
            if "sample_weights" in self._dtypes
            else None,
            self._read_column("groups", start, count) if "groups" in self._dtypes else None,
        )

    def _read_column(self, name: str, start: int, count: int) -> npt.NDArray[Any]:
        path, dtype = self._folder / name, self._dtypes[name]
        # Not a memory map: its pages would count as this process's memory.
        try:
            column = np.fromfile(path, dtype=dtype, count=count, offset=start * dtype.itemsize)
        except OSError as error:
            raise DataError(
                f"{path}: a spilled column cannot be read. Got: {error}. Evaluate again."
            ) from error
        if len(column) != count:
            raise DataError(
                f"{path}: a spilled column was cut short. Got {len(column)} of {count} rows from "
                f"row {start} on. Evaluate again."
            )
        return column


class _Cursor:
    """The part of a run that is read and not yet merged."""

    def __init__(self, run: Run, block_rows: int) -> None:
        self._run = run
        self._block_rows = block_rows
        self._next = 0
        self.rows = run.read(0, 0)
        self.fill()

    @property
    def has_more(self) -> bool:
        """Whether the run has rows behind those held."""
        return self._next < len(self._run)

    def fill(self) -> None:
        """Read on when half of the block is taken.

        All runs are kept filled, so that a block of the merge has rows of all of them: fewer and
        larger blocks than if one run at a time were emptied.
        """
        if self.has_more and 2 * len(self.rows) <= self._block_rows:
            more = self._run.read(self._next, self._block_rows - len(self.rows))
            self._next += len(more)
            self.rows = concatenate([self.rows, more]) if len(self.rows) else more

    def last_key(self) -> tuple[int, float]:
        """Give the largest (group, prediction) held."""
        group = 0 if self.rows.groups is None else int(self.rows.groups[-1])
        return group, float(self.rows.predictions[-1])

    def take_up_to(self, key: tuple[int, float]) -> Rows:
        """Remove and give the rows that are not above `key`."""
        count = _count_up_to(self.rows, key)
        taken = self.rows.take(slice(0, count))
        self.rows = self.rows.take(slice(count, None))
        return taken


def merge_runs(runs: Sequence[Run], *, max_rows: int, block_rows: int) -> Iterator[Rows]:
    """Merge sorted runs into sorted blocks, holding at most about `max_rows` rows.

    Rows up to the smallest of the last keys held are complete: what a run has not yet given is not
    below its own last key. They are sorted together and given as one block, in which a tie or a
    group may begin and not end; rows equal to the last key of a block can follow in the next.

    Args:
        runs: Runs that carry the same columns.
        max_rows: Rows held over all runs; each run gets at least one.
        block_rows: Rows read at once from a run, if `max_rows` allows.
    """
    runs = [run for run in runs if len(run) > 0]
    block_rows = max(1, min(block_rows, max_rows // max(1, len(runs))))
    cursors = [_Cursor(run, block_rows) for run in runs]
    while cursors:
        bounds = [cursor.last_key() for cursor in cursors if cursor.has_more]
        if bounds:
            bound = min(bounds)
            taken = [cursor.take_up_to(bound) for cursor in cursors]
        else:
            taken, cursors = [cursor.rows for cursor in cursors], []
        parts = [part for part in taken if len(part) > 0]
        yield parts[0] if len(parts) == 1 else concatenate(parts).sort()
        for cursor in cursors:
            cursor.fill()
        cursors = [cursor for cursor in cursors if len(cursor.rows) > 0]


def _count_up_to(rows: Rows, key: tuple[int, float]) -> int:
    group, prediction = key
    # Compared in the column's own dtype: searchsorted would widen the whole column otherwise.
    bound = rows.predictions.dtype.type(prediction)
    if rows.groups is None:
        return int(np.searchsorted(rows.predictions, bound, side="right"))
    first = int(np.searchsorted(rows.groups, group, side="left"))
    end = int(np.searchsorted(rows.groups, group, side="right"))
    return first + int(np.searchsorted(rows.predictions[first:end], bound, side="right"))
