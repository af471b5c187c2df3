"""Arrow columns that know where they come from, so that a bad value is named by file and row."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Bools, Ints, offsets_of
from rankloom.errors import DataError


@dataclass(frozen=True)
class Origin:
    """Where some lines come from."""

    name: str
    """The file, or what the caller calls the table."""
    first_line: int = 0
    """Number of the first of the lines in it, from 0 on."""

    def moved(self, lines: int) -> Origin:
        """Give where the lines after the first few come from."""
        return Origin(self.name, self.first_line + lines)


@dataclass(frozen=True)
class RawColumn:
    """A column as it was read: one value per line, row or list entry."""

    name: str
    array: pa.Array
    origin: Origin
    parents: tuple[Ints, ...] = ()
    """Offsets of the lists that the values were taken out of, the outermost first."""

    def __len__(self) -> int:
        return len(self.array)

    def lists(self) -> tuple[Ints, RawColumn]:
        """Open the lists; a null one is empty.

        Returns:
            offsets: (n + 1,), from 0 on.
            entries: (V,) the values of all lists.
        """
        return self._opened(list_lengths(self.array), self.array.flatten())

    def lists_with_null(self) -> tuple[Ints, RawColumn]:
        """Open the lists; a null one holds one null.

        Returns:
            offsets: (n + 1,), from 0 on.
            entries: (V,) the values of all lists.
        """
        if not self.array.null_count:
            return self.lists()
        is_null = self.array.is_null().to_numpy(zero_copy_only=False)
        lengths = np.where(is_null, 1, list_lengths(self.array))
        inserted = np.repeat(is_null, lengths)
        taken = np.cumsum(~inserted) - 1
        values = self.array.flatten().take(pa.array(taken, mask=inserted))
        return self._opened(lengths, values)

    def _opened(self, lengths: Ints, values: pa.Array) -> tuple[Ints, RawColumn]:
        offsets = offsets_of(lengths)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        return offsets, replace(self, array=values, parents=(*self.parents, offsets))

    def line(self, index: int) -> int:
        """Give the number, in its file, of the line that an entry belongs to."""
        for offsets in reversed(self.parents):
            index = int(np.searchsorted(offsets, index, side="right")) - 1
        return self.origin.first_line + index

    def error(self, bad: Bools, *, rule: str, advice: str) -> DataError:
        """Make the error for entries that break a rule.

        Args:
            bad: (len,) at least one true.
            rule: Such as `must be finite`.
            advice: What to do, as a sentence.
        """
        indices = np.flatnonzero(bad)
        first = int(indices[0])
        value = self.array[first].as_py()
        got = "null" if value is None else reprlib.repr(value)
        others = f" and {len(indices) - 1} more after it" if indices[1:].size else ""
        return DataError(
            f"{self.origin.name}: column {self.name!r} {rule}. "
            f"Got {got} in row {self.line(first)}{others}. {advice}"
        )

    def null_error(self, *, rule: str = "has no value", advice: str) -> DataError:
        """Make the error for nulls, of which there is at least one."""
        return self.error(
            self.array.is_null().to_numpy(zero_copy_only=False), rule=rule, advice=advice
        )


def list_lengths(array: pa.Array) -> Ints:
    """Give the (n,) lengths of lists, 0 for null."""
    lengths = pc.list_value_length(array)
    if lengths.null_count:
        lengths = pc.fill_null(lengths, 0)
    result: Ints = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    return result


def check_same_lengths(offsets: Ints, name: str, other_offsets: Ints, other: RawColumn) -> None:
    """Check that two list columns have lists of equal lengths.

    Args:
        offsets: (n + 1,) of the column that sets the lengths.
        name: Its name.
        other_offsets: (n + 1,) of the other one.
        other: The other one's entries.

    Raises:
        DataError: They differ; the first such row is named.
    """
    if np.array_equal(offsets, other_offsets):
        return
    expected, got = np.diff(offsets), np.diff(other_offsets)
    line = int(np.flatnonzero(expected != got)[0])
    outer = replace(other, parents=other.parents[:-1])
    raise DataError(
        f"{other.origin.name}: column {other.name!r} must have lists as long as {name!r}. "
        f"Got {got[line]} entries beside {expected[line]} in row {outer.line(line)}. "
        "Write the same events, or candidates, to both in preparation."
    )
