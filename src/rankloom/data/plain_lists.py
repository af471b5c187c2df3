"""What may stand for a list of values where a request is given; it imports little.

Shapes: n lists, V values of them all.
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankloom.data.columns import Array, Ints
from rankloom.data.texts import Texts


@dataclass(frozen=True, eq=False)
class Ragged:
    """Lists of different lengths, none of them null, without Python's lists."""

    values: Array | Texts
    """(V,) of all lists, one after the other."""
    offsets: Ints
    """(n + 1,), from 0 on. List i is `values[offsets[i]:offsets[i + 1]]`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, at: int) -> list[Any]:
        inside = np.arange(self.offsets[at], self.offsets[at + 1])
        found: list[Any] = self.values.take(inside).tolist()
        return found

    def __iter__(self) -> Iterator[list[Any]]:
        return (self[at] for at in range(len(self)))

    def tolist(self) -> list[list[Any]]:
        """Give Python's lists."""
        values, at = as_list(self.values), self.offsets.tolist()
        return [values[first:stop] for first, stop in itertools.pairwise(at)]


def shown(value: Any) -> str:
    """Write a value as errors show it: briefly, and whatever it is."""
    if isinstance(value, np.generic | np.ndarray):
        # A few more than are written: an array may hold millions.
        value = np.asanyarray(value)[(slice(7),) * value.ndim].tolist()
    elif isinstance(value, Texts | Ragged):
        value = list(itertools.islice(value, 7))
    try:
        return "null" if value is None else reprlib.repr(value)
    except ValueError:
        # Python writes no number of more than 4300 digits.
        return "a huge number"


def as_list(value: Any) -> Any:
    """Give an array with dimensions as a list of Python's values, all else as it is."""
    if isinstance(value, Texts | Ragged):
        return value.tolist()
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    # Times stay what they are: as plain integers they would be of an unknown unit.
    return value.tolist() if value.ndim == 1 and value.dtype.kind not in "mM" else list(value)


def is_list(value: Any) -> bool:
    """Tell whether a value is one for each candidate: a list, or what stands for one."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, list | tuple | Texts | Ragged)
