"""Some lines of a log with their columns coded, at the level of lines or of rows.

Shapes: L lines, n rows (L of them in a flat log).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Bools, Ints, offsets_of
from rankloom.data.inspection.coded import Coded, Floats, Hashes, hash_lists
from rankloom.data.inspection.samples import Rows
from rankloom.data.inspection.shape import Shape
from rankloom.data.raw import list_lengths


class Chunk:
    """Lines of a log; those of a grouped log whose candidate lists disagree are left out.

    Args:
        batch: The lines.
        shape: What their columns are.
    """

    def __init__(self, batch: pa.RecordBatch, shape: Shape) -> None:
        self.shape = shape
        self.num_read = len(batch)
        self.unaligned: dict[str, int] = {}
        """Column -> lines in which its list is not as long as the first column's."""
        self.line_of_row: Ints | None = None
        """(n,) line of each row; none in a flat log."""
        self.batch = batch
        per_row = [name for name in batch.schema.names if shape.is_per_row(name)]
        if per_row:
            self._align(per_row)
        self._coded: dict[str, Coded] = {}

    def _align(self, per_row: list[str]) -> None:
        lengths = {name: list_lengths(self.batch.column(name)) for name in per_row}
        first = lengths[per_row[0]]
        good: Bools = np.ones(self.num_read, np.bool_)
        for name, others in lengths.items():
            wrong = others != first
            if wrong.any():
                self.unaligned[name] = int(wrong.sum())
                good &= ~wrong
        if self.unaligned:
            self.batch, first = self.batch.filter(pa.array(good)), first[good]
        self.row_offsets = offsets_of(first)
        self.line_of_row = np.repeat(np.arange(len(self.batch)), first)

    @property
    def num_lines(self) -> int:
        """Count the lines that are left."""
        return len(self.batch)

    @property
    def num_rows(self) -> int:
        """Count their rows."""
        return self.num_lines if self.line_of_row is None else len(self.line_of_row)

    def values(self, name: str) -> pa.Array:
        """Give a column's values, one a line, or one a row where the column is per row."""
        array = self.batch.column(name)
        return array.flatten() if self.shape.is_per_row(name) else array

    def coded(self, name: str) -> Coded:
        """Give a scalar column's values at its own level."""
        if name not in self._coded:
            self._coded[name] = Coded.of(self.values(name))
        return self._coded[name]

    def hashes(self, name: str, rows: Ints | None = None) -> Hashes:
        """Give the hash of a column's value in some rows, or in all."""
        return self.coded(name).row_hashes(self._places(name, rows))

    def numbers(self, name: str, rows: Ints | None = None) -> Floats:
        """Give a column's number in some rows, or in all; NaN for null and texts."""
        return self.coded(name).row_numbers(self._places(name, rows))

    def _places(self, name: str, rows: Ints | None) -> Ints | slice:
        if self.line_of_row is None or self.shape.is_per_row(name):
            return slice(None) if rows is None else rows
        return self.line_of_row if rows is None else self.line_of_row[rows]

    def rows(self, places: Ints) -> Rows:
        """Give some rows' scalar columns and bags, in the order of `columns`."""
        scalars, bags = self.shape.scalars, self.shape.bags
        hashes = np.empty((len(places), len(scalars) + len(bags)), np.uint64)
        numbers = np.full(hashes.shape, np.nan)
        for at, name in enumerate(scalars):
            hashes[:, at] = self.hashes(name, places)
            numbers[:, at] = self.numbers(name, places)
        for at, name in enumerate(bags, start=len(scalars)):
            where = self._places(name, places)
            # Only the chosen lists are hashed: a list costs as much as its values.
            hashes[:, at] = hash_lists(self.values(name).take(pa.array(where)))
        return Rows(hashes, numbers)

    @cached_property
    def line_rows(self) -> Ints:
        """(L,) number of rows of each line."""
        if self.line_of_row is None:
            return np.ones(self.num_lines, np.int64)
        return np.diff(self.row_offsets)

    def history(self, name: str) -> tuple[Ints, pa.Array]:
        """Open a history's column: (L + 1,) offsets from 0 on, and the (V,) events."""
        array = self.batch.column(name)
        return offsets_of(list_lengths(array)), array.flatten()


def sample_columns(shape: Shape) -> tuple[str, ...]:
    """Give the names of the columns that `Chunk.rows` gives."""
    return shape.scalars + shape.bags
