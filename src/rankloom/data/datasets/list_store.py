"""Lists of any total length on disk, of which any can be taken: histories beside a larger log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rankloom.data.columns import Array, Ints, expand_ranges, offsets_of


class ListStore:
    """Aligned columns of lists that are appended once, then read at random.

    Memory holds the lengths only; the values are files that the system maps.

    Args:
        folder: Where the files are made; the caller removes it.
        name: Begins the files' names.
        columns: Name -> type of the values.
    """

    def __init__(self, folder: Path, name: str, columns: Mapping[str, npt.DTypeLike]) -> None:
        self._paths = {column: folder / f"{name}.{column}" for column in columns}
        self._types = {column: np.dtype(kind) for column, kind in columns.items()}
        self._lengths: list[Ints] = []
        self._maps: dict[str, Array] = {}
        self.offsets: Ints = np.zeros(1, np.int64)
        """(n + 1,) where each list is, once `seal` was called."""

    def add(self, lengths: Ints, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append lists.

        Args:
            lengths: (n,).
            values: Column -> (V,) all lists' values, one after the other.
        """
        self._lengths.append(lengths)
        for column, path in self._paths.items():
            with path.open("ab") as file:
                values[column].astype(self._types[column], copy=False).tofile(file)

    def seal(self) -> None:
        """End appending; from here on lists can be taken."""
        self.offsets = offsets_of(np.concatenate([np.empty(0, np.int64), *self._lengths]))
        self._lengths.clear()
        for column, path in self._paths.items():
            kind = self._types[column]
            # An empty file cannot be mapped.
            is_empty = not self.offsets[-1]
            self._maps[column] = np.empty(0, kind) if is_empty else np.memmap(path, kind, mode="r")

    def take(self, column: str, starts: Ints, lengths: Ints) -> Array:
        """Read ranges of a column.

        Args:
            column: Its name.
            starts: (n,) positions among all values, such as `offsets[:-1]`.
            lengths: (n,).

        Returns:
            (sum of lengths,).
        """
        return self._maps[column][expand_ranges(starts, lengths)]


def list_array(lengths: Ints, values: Array | pa.Array) -> pa.Array:
    """Make lists of these (n,) lengths of values that follow each other."""
    return pa.ListArray.from_arrays(pa.array(offsets_of(lengths), pa.int32()), pa.array(values))
