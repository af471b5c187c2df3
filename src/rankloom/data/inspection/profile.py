"""What each column holds: nulls, distinct values, extremes, lengths of lists; one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.inspection.coded import Coded
from rankloom.data.inspection.sketch import FrequentValues, KeySketch
from rankloom.data.raw import list_lengths

MAX_LIST_VALUES = 1 << 17
"""Values of a list column that are counted in a chunk: the lists of its first lines."""
NUM_FREQUENT = 16


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a column holds."""

    name: str
    type: str
    """As Arrow says it, lists included."""
    num_values: int
    """Values: of lists, those within them that were counted."""
    num_nulls: int
    """Nulls among the values, and null lists."""
    num_nan: int
    num_infinite: int
    distinct: float
    """Distinct values; see `is_exact`."""
    is_exact: bool
    """Whether `distinct` is a count and no estimate."""
    low: float | None
    """Smallest number; none for texts."""
    high: float | None
    frequent: tuple[tuple[Any, int], ...]
    """The most frequent values and how often each was seen, at least."""
    rarest: int
    """Occurrences of the rarest distinct value (of the sampled ones)."""
    mean_length: float | None = None
    """Of the lists; none for columns without lists."""
    max_length: int | None = None

    @property
    def null_share(self) -> float:
        """Share of nulls and NaN among the values."""
        return (self.num_nulls + self.num_nan) / max(self.num_values, 1)

    @property
    def is_all_null(self) -> bool:
        """Tell whether there is no value at all."""
        return self.num_values == 0 or self.num_nulls + self.num_nan == self.num_values

    @property
    def is_constant(self) -> bool:
        """Tell whether all values are one, and none is null."""
        return self.distinct == 1 and self.num_nulls == 0


class ColumnProfile:
    """Follows one column.

    Args:
        name: Of the column.
        kind: Its Arrow type.
    """

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self.name, self.kind = name, kind
        self.sketch = KeySketch()
        self._frequent = FrequentValues()
        self._values = self._nulls = self._nan = self._infinite = 0
        self._low, self._high = np.inf, -np.inf
        self._lists = self._entries = self._longest = 0

    def add(self, coded: Coded) -> None:
        """Take in a chunk's values."""
        counts = coded.counts
        self._values += len(coded)
        self._nulls += len(coded) - int(counts.sum())
        # A dictionary may hold values that stand nowhere.
        used = np.flatnonzero(counts)
        numbers = coded.numbers[used]
        if len(numbers):
            finite = np.isfinite(numbers)
            if not finite.all() and pa.types.is_floating(coded.dictionary.type):
                self._nan += int(counts[used][np.isnan(numbers)].sum())
                self._infinite += int(counts[used][np.isinf(numbers)].sum())
            if finite.any():
                self._low = min(self._low, float(numbers[finite].min()))
                self._high = max(self._high, float(numbers[finite].max()))
        hashes, seen = coded.hashes, counts
        dictionary = coded.dictionary
        if len(used) < len(counts):
            hashes, seen = hashes[used], seen[used]
            dictionary = dictionary.take(pa.array(used))
        self.sketch.add(hashes, seen)
        self._frequent.add(hashes, seen, dictionary)

    def add_lists(self, array: pa.Array) -> None:
        """Take in a chunk's lists: all lengths, nulls and extremes, and some of the values."""
        lengths = list_lengths(array)
        values = array.flatten()
        self._lists += len(lengths)
        self._entries += len(values)
        self._longest = max(self._longest, int(lengths.max(initial=0)))
        if len(values) > MAX_LIST_VALUES:
            rest = values.slice(MAX_LIST_VALUES)
            values = values.slice(0, MAX_LIST_VALUES)
            if pa.types.is_integer(rest.type) or pa.types.is_floating(rest.type):
                extremes = pc.min_max(rest).as_py()
                if extremes["min"] is not None:
                    self._low = min(self._low, float(extremes["min"]))
                    self._high = max(self._high, float(extremes["max"]))
        self.add(Coded.of(values))

    def summary(self) -> Summary:
        """Say what was seen."""
        _, counts = self.sketch.kept()
        has_numbers = self._low <= self._high
        return Summary(
            name=self.name,
            type=str(self.kind).replace("element: ", "").replace("item: ", ""),
            num_values=self._values,
            num_nulls=self._nulls,
            num_nan=self._nan,
            num_infinite=self._infinite,
            distinct=self.sketch.distinct,
            is_exact=self.sketch.is_exact and self._counted_all,
            low=self._low if has_numbers else None,
            high=self._high if has_numbers else None,
            frequent=tuple(self._frequent.top(NUM_FREQUENT, self.sketch)),
            rarest=int(counts.min()) if len(counts) else 0,
            mean_length=self._entries / self._lists if self._lists else None,
            max_length=self._longest if self._lists else None,
        )

    @property
    def _counted_all(self) -> bool:
        return not self._lists or self._entries == self._values
