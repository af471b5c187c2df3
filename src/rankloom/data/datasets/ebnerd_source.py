"""Reading EBNeRD's Parquet files in pieces, every column checked and brought to one type."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankloom.data.columns import Ints
from rankloom.data.raw import list_lengths
from rankloom.data.uses import accepts, is_list_type
from rankloom.errors import DataError

ADVICE = (
    "Put the folders train and validation of ebnerd_small or ebnerd_large (recsys.eb.dk), each "
    "with behaviors.parquet and history.parquet, into $RANKLOOM_DATA/ebnerd."
)
_NEVER_NULL = ("impression_id", "user_id")
_CHUNK_LINES = 4096


@dataclass(frozen=True)
class Chunk:
    """Some rows of a Parquet file."""

    path: Path
    rows: pa.RecordBatch

    def integers(self, name: str) -> pa.Array:
        """Give a column as int64."""
        found = self._cast(name, self.rows.column(name), pa.int64())
        return self._filled(name, found) if name in _NEVER_NULL else found

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Give a new array of a column's numbers, NaN for null."""
        column = self._cast(name, self.rows.column(name), pa.float64())
        return np.array(column.to_numpy(zero_copy_only=False))

    def seconds(self, name: str) -> Ints:
        """Give a column of times as whole seconds since 1970, rounded down."""
        return self._as_seconds(name, self.rows.column(name))

    def lists(self, name: str) -> tuple[Ints, Ints]:
        """Give the lengths of a column's lists, 0 for null, and their whole numbers."""
        lengths, values = self._opened(name)
        numbers = self._filled(name, self._cast(name, values, pa.int64())).to_numpy()
        return lengths, numbers

    def list_numbers(self, name: str, lengths: Ints) -> npt.NDArray[np.float64]:
        """Give the numbers of lists that have these lengths, NaN for null."""
        values = self._cast(name, self._of_lengths(name, lengths), pa.float64())
        numbers: npt.NDArray[np.float64] = values.to_numpy(zero_copy_only=False)
        return numbers

    def list_seconds(self, name: str, lengths: Ints) -> Ints:
        """Give the times of lists that have these lengths as whole seconds."""
        return self._as_seconds(name, self._of_lengths(name, lengths))

    def _opened(self, name: str) -> tuple[Ints, pa.Array]:
        column = self.rows.column(name)
        if not is_list_type(column.type):
            raise self._error(name, f"must hold lists. Got {column.type}.")
        return list_lengths(column), column.flatten()

    def _of_lengths(self, name: str, lengths: Ints) -> pa.Array:
        found, values = self._opened(name)
        if not np.array_equal(found, lengths):
            raise self._error(name, "must have lists as long as those of the articles. Got others.")
        return values

    def _as_seconds(self, name: str, values: pa.Array) -> Ints:
        if not pa.types.is_timestamp(values.type):
            raise self._error(name, f"must hold times. Got {values.type}.")
        micros = self._filled(name, pc.cast(values, pa.timestamp("us"), safe=False))
        seconds: Ints = pc.cast(micros, pa.int64()).to_numpy() // 1_000_000
        return seconds

    def _filled(self, name: str, values: pa.Array) -> pa.Array:
        if values.null_count:
            raise self._error(name, f"must have no empty value. Got {values.null_count}.")
        return values

    def _cast(self, name: str, values: pa.Array, kind: pa.DataType) -> pa.Array:
        if not accepts("numbers", values.type):
            raise self._error(name, f"must hold numbers. Got {values.type}.")
        try:
            return pc.cast(values, kind)
        except pa.ArrowInvalid as error:
            raise self._error(name, f"must hold {kind}. Got: {error}.") from error

    def _error(self, name: str, problem: str) -> DataError:
        return DataError(f"{self.path}: column {name!r} {problem} {ADVICE}")


def read_chunks(path: Path, columns: Collection[str]) -> Iterator[Chunk]:
    """Read some columns of a Parquet file in pieces.

    Raises:
        DataError: It cannot be read or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(
                    f"{path}: has no column {', '.join(missing)}. "
                    f"Got {', '.join(file.schema_arrow.names)}. {ADVICE}"
                )
            for rows in file.iter_batches(_CHUNK_LINES, columns=list(columns)):
                yield Chunk(path, rows)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read. Got: {error}. {ADVICE}") from error
