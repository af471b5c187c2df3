"""Counting distinct keys of a stream in bounded memory.

A bottom-k sample keeps the k keys with the smallest hashes. Whether a key stays depends on its hash
alone, so what stays is a random sample of the distinct keys, and, since the bound on hashes only
ever falls, each kept key was kept from its first occurrence on: its count is exact. With at most k
distinct keys nothing is dropped and all answers are exact. Otherwise the k kept keys below the
smallest dropped hash t (as a share of all hashes) say that there are about k / t (Bar-Yossef et
al., 2002), with a relative deviation of 1 / sqrt(k). Two sketches are compared below the smaller
of their bounds, where both have every key.

Shapes: n keys that are added, K kept ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rankloom.data.columns import Bools, Ints
from rankloom.data.inspection.coded import Hashes

_ALL = float(2**64)


class KeySketch:
    """A sample of a stream's distinct keys, with the exact count of each.

    Args:
        size: Keys kept: the most for which everything is exact.

    Example:
        >>> sketch = KeySketch(4)
        >>> sketch.add(np.array([7, 9, 7], np.uint64))
        >>> sketch.distinct, sketch.is_exact
        (2.0, True)
    """

    def __init__(self, size: int = 1 << 14) -> None:
        self._size = size
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._counts: Ints = np.empty(0, np.int64)
        self._pending: list[tuple[Hashes, Ints]] = []
        self._num_pending = 0
        self.bound: np.uint64 | None = None
        """The smallest hash that was dropped, if any was."""

    def add(self, hashes: Hashes, counts: Ints | None = None) -> None:
        """Count (n,) keys by their hashes, each as often as `counts` says."""
        if counts is None:
            counts = np.ones(len(hashes), np.int64)
        if self.bound is not None:
            stays = hashes < self.bound
            hashes, counts = hashes[stays], counts[stays]
        if len(hashes):
            self._pending.append((hashes, counts))
            self._num_pending += len(hashes)
        # Merging only when the new keys outgrow the kept ones costs each key a few sorts.
        if self._num_pending > self._size:
            self._merge()

    def _merge(self) -> None:
        if not self._num_pending:
            return
        hashes = np.concatenate([self._hashes, *(part for part, _ in self._pending)])
        counts = np.concatenate([self._counts, *(part for _, part in self._pending)])
        self._pending, self._num_pending = [], 0
        order = np.argsort(hashes)
        hashes, counts = hashes[order], counts[order]
        starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
        hashes, counts = hashes[starts], np.add.reduceat(counts, starts)
        if len(hashes) > self._size:
            self.bound = hashes[self._size]
            # Copied, or the view would hold on to all that was merged.
            hashes, counts = hashes[: self._size].copy(), counts[: self._size].copy()
        self._hashes, self._counts = hashes, counts

    @property
    def is_exact(self) -> bool:
        """Tell whether no key was dropped."""
        self._merge()
        return self.bound is None

    @property
    def distinct(self) -> float:
        """Count the distinct keys, or estimate their number."""
        self._merge()
        if self.bound is None:
            return float(len(self._hashes))
        return self._size / (float(self.bound) / _ALL)

    def kept(self) -> tuple[Hashes, Ints]:
        """Give the (K,) hashes, ascending, and exact counts of the kept keys."""
        self._merge()
        return self._hashes, self._counts

    def counts_of(self, hashes: Hashes) -> Ints:
        """Give (n,) the counts of some keys, -1 where a key is not kept."""
        self._merge()
        if not len(self._hashes):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[places] == hashes, self._counts[places], -1)

    def repeated(self) -> Repeats:
        """Say how many of the keys were seen more than once."""
        _, counts = self.kept()
        again = counts > 1
        scale = self.distinct / max(len(counts), 1)
        extra = float((counts[again] - 1).sum()) * scale
        return Repeats(keys=float(again.sum()) * scale, extra=extra, is_exact=self.is_exact)

    def compare(self, other: KeySketch) -> Overlap:
        """Say which of this sketch's keys the other one has too."""
        (mine, counts), (theirs, _) = self.kept(), other.kept()
        bounds = [one.bound for one in (self, other) if one.bound is not None]
        if bounds:
            below = mine < min(bounds)
            mine, counts = mine[below], counts[below]
        found: Bools = np.isin(mine, theirs, assume_unique=True)
        return Overlap(
            num_keys=len(mine),
            shared_keys=int(found.sum()),
            num_rows=int(counts.sum()),
            shared_rows=int(counts[found].sum()),
        )


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Keys that were seen more than once; estimated where the sketch is."""

    keys: float
    """How many."""
    extra: float
    """Occurrences beyond the first of each key."""
    is_exact: bool
    """Whether these are counts and no estimates."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Of the sampled keys of one stream, those that another stream has."""

    num_keys: int
    shared_keys: int
    num_rows: int
    """Occurrences of the sampled keys."""
    shared_rows: int
    """Occurrences of those that the other stream has."""

    @property
    def new_row_share(self) -> float:
        """Share of occurrences whose key the other stream does not have."""
        return 1 - self.shared_rows / self.num_rows if self.num_rows else 0.0

    @property
    def shared_key_share(self) -> float:
        """Share of distinct keys that the other stream has."""
        return self.shared_keys / self.num_keys if self.num_keys else 0.0


class FrequentValues:
    """The most frequent values of a stream (Misra and Gries, 1982).

    A value that makes up more than 1 / (size + 1) of n is held; its count is at most
    n / (size + 1) too small.

    Args:
        size: Values held.
    """

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._held: dict[int, tuple[Any, int]] = {}

    def add(self, hashes: Hashes, counts: Ints, values: Any) -> None:
        """Count (d,) distinct values; `values` is an Arrow array of them."""
        if len(counts) > self._size:
            # The summary of a chunk: what its first value too many has is taken off all.
            order = np.argpartition(-counts, self._size)
            too_many = int(counts[order[self._size]])
            top = order[: self._size]
        else:
            too_many, top = 0, np.arange(len(counts))
        top = top[counts[top] > too_many]
        chosen = zip(
            hashes[top].tolist(), values.take(top).to_pylist(), counts[top].tolist(), strict=True
        )
        for key, value, count in chosen:
            before = self._held.get(key)
            self._held[key] = (value, count - too_many + (before[1] if before else 0))
        if len(self._held) > self._size:
            limit = sorted((count for _, count in self._held.values()), reverse=True)[self._size]
            self._held = {
                key: (value, count - limit)
                for key, (value, count) in self._held.items()
                if count > limit
            }

    def top(self, number: int, exact: KeySketch) -> list[tuple[Any, int]]:
        """Give the most frequent values with their counts.

        Args:
            number: At most so many.
            exact: A sketch of the same stream, whose counts are taken where it has a value.
        """
        keys = np.fromiter(self._held, np.uint64, len(self._held))
        counted = exact.counts_of(keys).tolist()
        found = [
            (value, max(count, known))
            for (value, count), known in zip(self._held.values(), counted, strict=True)
        ]
        return sorted(found, key=lambda one: (-one[1], str(one[0])))[:number]
