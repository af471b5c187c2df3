"""Writing the splits of a data set piece by piece, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankloom.atomic import replacing
from rankloom.errors import DataError

ROW_GROUP_ROWS = 65_536
"""Lines of a row group, where nothing else is said."""


@contextmanager
def writing_splits(
    folder: Path,
    splits: Sequence[str],
    *,
    sums: Sequence[str] = (),
    row_group_rows: int = ROW_GROUP_ROWS,
) -> Iterator[SplitWriter]:
    """Give a writer of splits; their files get their names when the block ends well.

    When the block fails, the folder is as it was.

    Args:
        folder: Each split becomes `<folder>/<split>/part-0.parquet`.
        splits: Their names.
        sums: Labels whose sums are kept; lists hold one entry for each candidate of a request.
        row_group_rows: Lines of a row group.

    Raises:
        DataError: A split stays empty, or the folder cannot be written to, or the disk is full.
    """
    paths = {name: folder / name / "part-0.parquet" for name in splits}
    try:
        with ExitStack() as stack:
            for place in (folder, *(path.parent for path in paths.values())):
                if not place.exists():
                    stack.callback(_remove_empty, place)
            parts = {
                name: stack.enter_context(
                    _Part(stack.enter_context(replacing(path)), tuple(sums), row_group_rows)
                )
                for name, path in paths.items()
            }
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=folder))
            yield SplitWriter(parts, scratch=Path(made))
            for name, part in parts.items():
                part.finish()
                if not part.num_rows:
                    raise DataError(
                        f"{folder / name}: would have no row. Got too few rows to split. "
                        "Give files with more rows."
                    )
            # An interruption from here on leaves splits out, never those of two different runs.
            for path in paths.values():
                path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written. Got: {error}. "
            "Free space, or choose a folder that you may write to."
        ) from error


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


class SplitWriter:
    """Collects rows of all splits into row groups; made by `writing_splits`."""

    def __init__(self, parts: Mapping[str, _Part], *, scratch: Path) -> None:
        self._parts = parts
        self.scratch = scratch
        """An empty folder for temporary files, removed at the end."""

    def write(self, split: str, lines: pa.Table | pa.RecordBatch) -> None:
        """Append lines to a split."""
        self._parts[split].add(lines)

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split; with sums of lists, the entries of the lists."""
        return {name: part.num_rows for name, part in self._parts.items()}

    def notes(self, name: str) -> list[str]:
        """Give a line for each split: its requests, rows and shares of positive labels."""
        return [f"{name} {split}: {part.note()}" for split, part in self._parts.items()]


@dataclass
class _Part:
    """One split's file, under its temporary name."""

    path: Path
    sums: tuple[str, ...]
    row_group_rows: int
    num_rows: int = 0
    _num_lines: int = 0
    _totals: dict[str, int] = field(default_factory=dict)
    _pending: list[pa.RecordBatch] = field(default_factory=list)
    _num_pending: int = 0
    _writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, lines: pa.Table | pa.RecordBatch) -> None:
        num_rows = len(lines)
        for label in self.sums:
            values = lines.column(label)
            if pa.types.is_list(values.type):
                values = pc.list_flatten(values)
                num_rows = len(values)
            self._totals[label] = self._totals.get(label, 0) + (pc.sum(values).as_py() or 0)
        self.num_rows += num_rows
        self._num_lines += len(lines)
        self._num_pending += len(lines)
        self._pending += lines.to_batches() if isinstance(lines, pa.Table) else [lines]
        if self._num_pending >= self.row_group_rows:
            self._write(self._num_pending // self.row_group_rows * self.row_group_rows)

    def finish(self) -> None:
        if self._num_pending:
            self._write(self._num_pending)
        if self._writer is not None:
            self._writer.close()

    def note(self) -> str:
        requests = f"{self._num_lines:,} requests, " if self._num_lines != self.num_rows else ""
        shares = [f"{label} {n / self.num_rows:.2%} ({n:,})" for label, n in self._totals.items()]
        return ", ".join([f"{requests}{self.num_rows:,} rows", *shares])

    def _write(self, num_lines: int) -> None:
        table = pa.Table.from_batches(self._pending)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table.slice(0, num_lines), row_group_size=self.row_group_rows)
        self._pending = table.slice(num_lines).to_batches()
        self._num_pending -= num_lines
