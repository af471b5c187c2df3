"""The files of a log whatever its columns: of the same types, read a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankloom.data.columns import Ints, offsets_of
from rankloom.data.files import (
    CHUNK_ROWS,
    FileNames,
    RowGroup,
    Segment,
    find_files,
    read_header,
    read_lines,
    row_groups_of,
)
from rankloom.data.raw import Origin
from rankloom.errors import DataError, SchemaError, did_you_mean, join_problems

CHUNK_BYTES = 1 << 26
"""Arrow's memory of what is read at a time, about."""
SAMPLE_LINES = 256


@dataclass(frozen=True)
class Log:
    """Files with the same columns, in the order they were given in."""

    paths: tuple[Path, ...]
    """The files, empty ones too."""
    schemas: tuple[pa.Schema, ...]
    """Of each file; they differ in metadata only."""
    row_groups: tuple[RowGroup, ...]
    """Of all files, in order."""
    file_starts: Ints
    """(files + 1,) lines before each file, and in all."""

    @property
    def names(self) -> list[str]:
        """The columns."""
        names: list[str] = self.schemas[0].names
        return names

    @property
    def num_lines(self) -> int:
        """Lines of all files."""
        return int(self.file_starts[-1])

    def sample(self) -> pa.RecordBatch:
        """Give the first lines."""
        if not self.row_groups:
            return pa.RecordBatch.from_pylist([], self.schemas[0])
        group = self.row_groups[0]
        segment = Segment(group, 0, min(SAMPLE_LINES, group.num_lines))
        return next(read_lines([segment], self.names, chunk_rows=SAMPLE_LINES))[0]

    def batches(
        self, columns: Sequence[str], chunk_lines: int
    ) -> Iterator[tuple[pa.RecordBatch, Origin]]:
        """Read all lines in order.

        Args:
            columns: Read, and nothing else.
            chunk_lines: Lines at a time, at most.

        Yields:
            Lines of one file, and where they come from.

        Raises:
            DataError: A row group cannot be read.
        """
        segments = [Segment(group, 0, group.num_lines) for group in self.row_groups]
        yield from read_lines(segments, columns, chunk_rows=chunk_lines)

    def file_of(self, lines: Ints) -> Ints:
        """Give the (n,) numbers of the files that (n,) lines of the log stand in."""
        return np.searchsorted(self.file_starts, lines, side="right") - 1

    def origin(self, line: int) -> tuple[Path, int]:
        """Give the file that a line of the log stands in, and its number there."""
        file = int(self.file_of(np.array([line]))[0])
        return self.paths[file], line - int(self.file_starts[file])


def open_log(files: FileNames) -> Log:
    """Find files and check that they have the same columns.

    Raises:
        DataError: Files are missing, empty or no Parquet.
        SchemaError: Their columns differ.
        Both name all problems of all files.
    """
    paths, problems = find_files(files)
    headers: dict[Path, pq.FileMetaData] = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(join_problems(problems, where="data" if problems[1:] else ""))
    schemas = {path: header.schema.to_arrow_schema() for path, header in headers.items()}
    problems = _differences(schemas)
    if problems:
        raise SchemaError(join_problems(problems, where="data" if problems[1:] else ""))
    groups = [g for path, header in headers.items() for g in row_groups_of(path, header, None)]
    lines = np.array([header.num_rows for header in headers.values()], np.int64)
    return Log(tuple(headers), tuple(schemas.values()), tuple(groups), offsets_of(lines))


def lines_at_a_time(bytes_per_line: float) -> int:
    """Give how many lines of some bytes of Arrow's memory to work on at a time."""
    return int(min(max(CHUNK_BYTES // max(bytes_per_line, 1), 1), CHUNK_ROWS))


def missing_columns(log: Log, wanted: Sequence[str]) -> list[str]:
    """List the columns that are not there, a problem each."""
    return [
        f"{log.paths[0]}: column {name!r} is missing."
        f"{did_you_mean(name, log.names) or ' Name one that is there.'}"
        for name in dict.fromkeys(wanted)
        if name not in log.names
    ]


def _differences(schemas: dict[Path, pa.Schema]) -> list[str]:
    """Name each file whose columns are not those of the first one."""
    (first_path, first), *others = schemas.items()
    problems = []
    for path, schema in others:
        if len(set(schema.names)) < len(schema.names) or schema.equals(first):
            continue
        wrong = [
            f"{name!r} is {_kind(schema, name)}, there {_kind(first, name)}"
            for name in dict.fromkeys([*first.names, *schema.names])
            if _kind(schema, name) != _kind(first, name)
        ]
        found = "; ".join(wrong) or f"another order of columns: {', '.join(schema.names)}"
        problems.append(
            f"{path}: must have the columns of {first_path}. Got {found}. "
            "Write the files alike, or give them one by one."
        )
    problems += [
        f"{path}: two columns have one name. Got {', '.join(schema.names)}. Rename one."
        for path, schema in schemas.items()
        if len(set(schema.names)) < len(schema.names)
    ]
    return problems


def _kind(schema: pa.Schema, name: str) -> str:
    if name not in schema.names:
        return "missing"
    field = schema.field(name)
    return f"{field.type}{'' if field.nullable else ' not null'}"
