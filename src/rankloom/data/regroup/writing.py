"""Parquet files written side by side, that appear together when all are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from rankloom.data.files import CHUNK_ROWS
from rankloom.errors import ConfigError, DataError

GROUP_ROWS = CHUNK_ROWS
"""Rows of a row group, about. As many as the reader decodes at a time: there are several in a
shuffled buffer, and the reader begins none that it leaves half read for long."""
GROUP_BYTES = 1 << 27
"""Arrow's memory of a row group, at most about."""


def output_names(sources: Sequence[Path], to: Path) -> list[Path]:
    """Give where each file goes, below a place that becomes `to`.

    Args:
        sources: The files that are read.
        to: A name that ends in .parquet for a file, another one for a folder of files with the
            sources' names.

    Raises:
        ConfigError: `to` exists, is a file for several sources, or two sources have one name.
    """
    if os.path.lexists(to):
        raise ConfigError(f"{to}: is there already. Remove it, or give another place with --to.")
    if to.suffix == ".parquet":
        if len(sources) > 1:
            raise ConfigError(
                f"{to}: must be a folder for several files. Got {len(sources)}. Give a name "
                "without .parquet."
            )
        return [Path()]
    names = [path.name for path in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{to}: cannot hold files of one name. Got several of {', '.join(twice)}. "
            "Give the files of each folder by themselves."
        )
    return [Path(name) for name in names]


@contextmanager
def writing_place(to: Path) -> Iterator[tuple[Path, Path]]:
    """Give where to write, under another name, and a folder for what is needed meanwhile.

    When the block ends well, what was written gets its name; when it fails, all is gone.

    Raises:
        DataError: It cannot be written.
    """
    # Absolute: `.` has no name.
    place = Path(os.path.abspath(to))  # noqa: PTH100 (a link stays a link)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        try:
            (temporary / "work").mkdir(parents=True)
            yield temporary / "out", temporary / "work"
            (temporary / "out").rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(
            f"{to}: cannot be written ({reason}). Free some space, or give another place."
        ) from error


class Outputs:
    """Writes files one after the other, each in row groups of a good size.

    Args:
        paths: The files.
        schemas: Of each.
    """

    def __init__(self, paths: Sequence[Path], schemas: Sequence[pa.Schema]) -> None:
        self._paths, self._schemas = list(paths), list(schemas)
        self._number = -1
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.Table] = []
        self._num_rows = self._num_bytes = 0

    def write(self, number: int, arrays: Sequence[pa.Array], num_rows: int) -> None:
        """Add lines to a file.

        Args:
            number: Of the file; never below that of an earlier call.
            arrays: The columns.
            num_rows: The rows they have: in a grouped file more than lines.
        """
        self._go_to(number)
        table = pa.Table.from_arrays(list(arrays), schema=self._schemas[number])
        self._held.append(table)
        self._num_rows += num_rows
        self._num_bytes += table.nbytes
        if self._num_rows >= GROUP_ROWS or self._num_bytes >= GROUP_BYTES:
            self._end_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the files; those that nothing was written to have no rows."""
        if kind is None:
            self._go_to(len(self._paths))
        elif self._writer is not None:
            self._writer.close()

    def _go_to(self, number: int) -> None:
        while self._number < number:
            if self._writer is not None:
                self._end_group()
                self._writer.close()
                self._writer = None
            self._number += 1
            if self._number < len(self._paths):
                path, schema = self._paths[self._number], self._schemas[self._number]
                path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def _end_group(self) -> None:
        if self._held:
            assert self._writer is not None
            table = pa.concat_tables(self._held)
            self._writer.write_table(table, row_group_size=len(table))
        self._held = []
        self._num_rows = self._num_bytes = 0
