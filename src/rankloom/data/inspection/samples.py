"""Rows of a stream kept in bounded memory: drawn one by one, or all rows of some keys.

Shapes: n rows that are added, S kept ones, C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rankloom.data.columns import Ints
from rankloom.data.inspection.coded import Floats, Hashes


@dataclass(frozen=True)
class Rows:
    """(S,) rows."""

    hashes: Hashes
    """(S, C) of every column's value."""
    numbers: Floats
    """(S, C) every column's value; NaN for texts, lists and nulls."""

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, places: Ints) -> Rows:
        """Give some of the rows."""
        return Rows(self.hashes[places], self.numbers[places])


class KeyedRows:
    """The rows with the smallest keys: all rows of a key stay, or none.

    With random keys that is a uniform sample of the rows; with the hash of a user as the key, all
    rows of a random sample of users.

    Args:
        max_rows: Rows kept at most, about; twice as many are held.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._bound: np.uint64 | None = None
        self._parts: list[tuple[Hashes, Rows]] = []
        self._held = 0

    def add(self, keys: Hashes, read: Callable[[Ints], Rows]) -> None:
        """Offer (n,) rows by their keys; `read` gives the rows at some places from 0 to n - 1."""
        chosen: Ints = np.arange(len(keys))
        if self._bound is not None:
            chosen = np.flatnonzero(keys < self._bound)
        if len(chosen):
            self._parts.append((keys[chosen], read(chosen)))
            self._held += len(chosen)
        if self._held > 2 * self._max_rows:
            self._shrink()

    def _shrink(self) -> None:
        keys = np.concatenate([part for part, _ in self._parts])
        rows = Rows(
            np.concatenate([rows.hashes for _, rows in self._parts]),
            np.concatenate([rows.numbers for _, rows in self._parts]),
        )
        if len(keys) > self._max_rows:
            self._bound = np.partition(keys, self._max_rows)[self._max_rows]
            stays = np.flatnonzero(keys < self._bound)
            if not len(stays):
                # The rows of one key are too many: some of them say as much as all.
                stays = np.arange(self._max_rows)
            keys, rows = keys[stays], rows.take(stays)
        self._parts, self._held = [(keys, rows)], len(keys)

    def rows(self) -> tuple[Hashes, Rows]:
        """Give (S,) keys, ascending, and the kept rows."""
        if not self._parts:
            return np.empty(0, np.uint64), Rows(np.empty((0, 0), np.uint64), np.empty((0, 0)))
        self._shrink()
        ((keys, rows),) = self._parts
        order = np.argsort(keys, kind="stable")
        return keys[order], rows.take(order)


def run_starts(keys: Hashes) -> Ints:
    """Give where each run of equal (n,) keys starts."""
    if not len(keys):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
