"""Decoded columns in NumPy: joined, put in order and cut; needs no torch.

A `Block` is some lines of a log after decoding. Lines are requests; in a flat log each is one row.
Lines are put in order a whole column at a time, where the column fits into the processor's cache;
done batch by batch, every value would be fetched from main memory, five times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Key = tuple[str, str]
"""Field of `Batch` and name within it; of a sequence also ("first_event" or "age_newest", name)."""


@dataclass(frozen=True)
class Plain:
    """One value, or one vector, for each line or row."""

    values: Array
    """(n,) or (n, dim)."""

    @staticmethod
    def join(parts: Sequence[Plain], order: Ints | None) -> Plain:
        """Put parts behind each other, then in order."""
        whole = parts[0].values
        if len(parts) > 1:
            whole = np.concatenate([part.values for part in parts])
        return Plain(whole if order is None else whole.take(order, axis=0))

    def cut(self, first: int, stop: int) -> Plain:
        """View some entries."""
        return Plain(self.values[first:stop])


@dataclass(frozen=True)
class Lists:
    """Lists for each line or row: aligned columns that share their offsets."""

    offsets: Ints
    """(n + 1,), from 0 on."""
    values: dict[str, Array]
    """Name -> (V,)."""

    @staticmethod
    def join(parts: Sequence[Lists], order: Ints | None) -> Lists:
        """Put parts behind each other, then the lists in order."""
        offsets, inside = join_lists([part.offsets for part in parts], order)
        columns = {name: [Plain(part.values[name]) for part in parts] for name in parts[0].values}
        return Lists(offsets, {name: Plain.join(c, inside).values for name, c in columns.items()})

    def cut(self, first: int, stop: int) -> Lists:
        """View some lists."""
        start, end = self.offsets[first], self.offsets[stop]
        values = {name: array[start:end] for name, array in self.values.items()}
        return Lists(self.offsets[first : stop + 1] - start, values)


Column = Plain | Lists


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some lines of a log, decoded."""

    requests: dict[Key, Column]
    """Columns with one entry for each line."""
    rows: dict[Key, Column]
    """Columns with one entry for each row."""
    row_offsets: Ints | None
    """(lines + 1,). The rows of each line, or none where each line is one row."""
    num_requests: int
    """Lines."""

    @property
    def num_rows(self) -> int:
        """Rows of all lines."""
        return self.num_requests if self.row_offsets is None else int(self.row_offsets[-1])

    def num_rows_of_each(self) -> Ints:
        """Give (lines,) the number of rows of each line."""
        if self.row_offsets is None:
            return np.ones(self.num_requests, np.int64)
        return np.diff(self.row_offsets)

    def cut(self, first: int, stop: int) -> Block:
        """View some lines."""
        offsets = self.row_offsets
        first_row, stop_row, row_offsets = first, stop, None
        if offsets is not None:
            first_row, stop_row = int(offsets[first]), int(offsets[stop])
            row_offsets = offsets[first : stop + 1] - first_row
        return Block(
            requests={key: column.cut(first, stop) for key, column in self.requests.items()},
            rows={key: column.cut(first_row, stop_row) for key, column in self.rows.items()},
            row_offsets=row_offsets,
            num_requests=stop - first,
        )

    def keep_rows(self, kept: Bools) -> Block:
        """Give all lines with some of their rows; a line may be left without any.

        Args:
            kept: (rows,).
        """
        order = np.flatnonzero(kept)
        before = offsets_of(kept.astype(np.int64))
        return Block(
            requests=self.requests,
            rows=_join_columns([self.rows], order),
            row_offsets=before if self.row_offsets is None else before[self.row_offsets],
            num_requests=self.num_requests,
        )

    def copy(self) -> Block:
        """Copy all lines."""
        return join_blocks([self], np.arange(self.num_requests))


def join_blocks(parts: list[Block], order: Ints | None = None) -> Block:
    """Put blocks behind each other, then their lines in order.

    Args:
        parts: At least one, all with the same columns. With several of them, list and parts are
            emptied, so that each value is held about once.
        order: (n,) line numbers, counted through all parts; without one, all as they are.
    """
    held = list(parts)
    parts.clear()
    if len(held) == 1 and order is None:
        return held[0]
    offsets = [part.row_offsets for part in held if part.row_offsets is not None]
    row_offsets, row_order = join_lists(offsets, order) if offsets else (None, order)
    num_requests = sum(part.num_requests for part in held) if order is None else len(order)
    return Block(
        requests=_join_columns([part.requests for part in held], order),
        rows=_join_columns([part.rows for part in held], row_order),
        row_offsets=row_offsets,
        num_requests=num_requests,
    )


def _join_columns(parts: list[dict[Key, Column]], order: Ints | None) -> dict[Key, Column]:
    joined: dict[Key, Column] = {}
    for key in list(parts[0]):
        # Popping frees each part's column as soon as it is copied.
        columns = [part.pop(key) if len(parts) > 1 else part[key] for part in parts]
        if isinstance(columns[0], Plain):
            joined[key] = Plain.join([c for c in columns if isinstance(c, Plain)], order)
        else:
            joined[key] = Lists.join([c for c in columns if isinstance(c, Lists)], order)
    return joined


def join_lists(parts: Sequence[Ints], order: Ints | None) -> tuple[Ints, Ints | None]:
    """Put lists behind each other, then in order.

    Args:
        parts: Offsets, each (n_i + 1,) from 0 on.
        order: (n,) list numbers, counted through all parts; without one, all as they are.

    Returns:
        offsets: (n + 1,) of the ordered lists.
        inside: (V,) where the ordered values were, counted through all parts; none without order.
    """
    lengths = np.concatenate([np.diff(part) for part in parts])
    if order is None:
        return (parts[0] if len(parts) == 1 else offsets_of(lengths)), None
    starts, lengths = offsets_of(lengths)[order], lengths[order]
    return offsets_of(lengths), expand_ranges(starts, lengths)


def offsets_of(lengths: Ints) -> Ints:
    """Give (n + 1,) offsets of lists with these (n,) lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def expand_ranges(starts: Ints, lengths: Ints) -> Ints:
    """Give the numbers of all ranges, one range after the other.

    Args:
        starts: (n,) first number of each range.
        lengths: (n,).

    Returns:
        (sum of lengths,).
    """
    offsets = offsets_of(lengths)
    numbers: Ints = np.arange(offsets[-1])
    numbers += np.repeat(starts - offsets[:-1], lengths)
    return numbers
