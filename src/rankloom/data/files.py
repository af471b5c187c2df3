"""The files of a log: found, checked by their headers, and read as ranges of row groups."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankloom.data.arrow_keys import is_string
from rankloom.data.raw import Origin
from rankloom.data.transforms import Transforms
from rankloom.data.uses import (
    ColumnUse,
    Layout,
    check_types,
    check_vocabulary_types,
    feature_uses,
    is_list_type,
    label_uses,
    role_uses,
)
from rankloom.errors import DataError, SchemaError, join_problems
from rankloom.schema import Schema

FileNames = str | Path | Sequence[str | Path]
"""Paths or glob patterns."""

CHUNK_ROWS = 65_536
"""Rows decoded at a time; a longer row group is streamed."""


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """One row group of one file."""

    path: Path
    """The file."""
    metadata: pq.FileMetaData
    """The file's header."""
    number: int
    """Of the row group in the file."""
    first_line: int
    """Number of its first line in the file."""
    num_lines: int
    """Requests in a grouped log, rows in a flat one."""
    num_rows: int
    """Rows; in a grouped log counted from the header, where an empty request counts as one."""


@dataclass(frozen=True)
class Segment:
    """A range of one row group's lines."""

    group: RowGroup
    start: int
    stop: int


@dataclass(frozen=True)
class LogFiles:
    """Files whose headers fit the schema."""

    paths: tuple[Path, ...]
    """In the order they are read in."""
    row_groups: tuple[RowGroup, ...]
    """Of all files, empty ones left out."""

    @property
    def num_lines(self) -> int:
        """Requests of a grouped log, rows of a flat one."""
        return sum(group.num_lines for group in self.row_groups)

    @property
    def num_rows(self) -> int:
        """Rows; exact for a grouped log in which no request is empty."""
        return sum(group.num_rows for group in self.row_groups)

    def segments(self) -> list[Segment]:
        """Give all lines, in order."""
        return [Segment(group, 0, group.num_lines) for group in self.row_groups]


def check_files(
    files: FileNames,
    schema: Schema,
    *,
    layout: Layout = "flat",
    with_labels: bool = True,
    training: bool = False,
    keys: Sequence[str] = (),
    transforms: Transforms | None = None,
) -> LogFiles:
    """Find the files and check their headers, before any value is read.

    Args:
        files: Paths or glob patterns; the files of one pattern are read in the order of names.
        schema: What the columns must hold.
        layout: How the log is stored.
        with_labels: Whether the columns of labels and roles must be there.
        training: Whether those of training-only features must be there.
        keys: Further columns that must be there.
        transforms: If given, id columns must have the type of their vocabulary's keys.

    Raises:
        DataError: Files are missing, empty or no Parquet, or there is no row.
        SchemaError: Columns are missing or of the wrong type.
        Both name all problems of all files.
    """
    paths, problems = find_files(files)
    uses = feature_uses(schema, training=training)
    if with_labels:
        uses += [*label_uses(schema), *role_uses(schema)]
    headers: dict[Path, pq.FileMetaData] = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except DataError as error:
            problems.append(str(error))
    if headers and not any(header.num_rows for header in headers.values()):
        problems.append(f"{_listed(headers)}: no rows. Write at least one row.")
    if problems:
        raise DataError(join_problems(problems, where="data" if problems[1:] else ""))
    schemas = {path: header.schema.to_arrow_schema() for path, header in headers.items()}
    for path, found in schemas.items():
        wrong = check_types(found, uses, layout, keys=keys)
        wrong += check_vocabulary_types(found, uses, transforms.vocabularies if transforms else {})
        problems += [f"{path}: {problem}" for problem in wrong]
    problems = problems or _changing_types(schemas, uses)
    if problems:
        raise SchemaError(join_problems(problems, where="data" if problems[1:] else ""))
    counted = _row_counting_column(uses, layout)
    groups = [
        group for path, header in headers.items() for group in row_groups_of(path, header, counted)
    ]
    return LogFiles(tuple(headers), tuple(groups))


def read_lines(
    segments: Iterable[Segment], columns: Sequence[str], *, chunk_rows: int | None = None
) -> Iterator[tuple[pa.RecordBatch, Origin]]:
    """Read lines in order, at most about `CHUNK_ROWS` rows at a time.

    Args:
        segments: Of which row groups.
        columns: Read, and nothing else.
        chunk_rows: Instead of `CHUNK_ROWS`.

    Yields:
        Lines that follow each other in one file, and where they come from.

    Raises:
        DataError: A row group cannot be read.
    """
    for segment in segments:
        group = segment.group
        try:
            yield from _read_segment(segment, columns, chunk_rows or CHUNK_ROWS)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{group.path}: row group {group.number} cannot be read. Got: {error}. "
                "The file is damaged or was changed meanwhile. Write it again."
            ) from error


def _read_segment(
    segment: Segment, columns: Sequence[str], chunk_rows: int
) -> Iterator[tuple[pa.RecordBatch, Origin]]:
    group = segment.group
    chunk_lines = max(1, chunk_rows * group.num_lines // max(group.num_rows, 1))
    with pq.ParquetFile(group.path, metadata=group.metadata) as file:
        at = 0
        for batch in file.iter_batches(chunk_lines, row_groups=[group.number], columns=columns):
            first, stop = max(at, segment.start), min(at + len(batch), segment.stop)
            if first < stop:
                origin = Origin(str(group.path), group.first_line + first)
                yield batch.slice(first - at, stop - first), origin
            at += len(batch)
            if at >= segment.stop:
                return


def find_files(files: FileNames) -> tuple[list[Path], list[str]]:
    """Expand patterns; give each file once, and a line for each pattern that names none."""
    found: dict[Path, None] = {}
    problems = []
    for pattern in [files] if isinstance(files, str | Path) else files:
        path = Path(pattern)
        # Not Path.glob: it takes no absolute patterns.
        matches = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(pattern)))]  # noqa: PTH207
        matches = [p for p in matches if not p.is_dir()]
        if path.is_dir():
            problems.append(f"{path}: is a folder. Name its files, such as {path / '*.parquet'}.")
        elif not matches:
            what = "no file matches" if glob.has_magic(str(pattern)) else "no such file"
            problems.append(f"{pattern}: {what}. Check the path; it starts in {Path.cwd()}.")
        found.update(dict.fromkeys(matches))
    if not found and not problems:
        problems.append("data: no files were named. Name at least one.")
    return list(found), problems


def read_header(path: Path) -> pq.FileMetaData:
    """Read a file's header.

    Raises:
        DataError: The file is empty, damaged or no Parquet.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: is empty (0 bytes). Write it again.")
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        first_line = str(error).splitlines()[0]
        raise DataError(
            f"{path}: is truncated or no Parquet file. Got: {first_line} Write it again."
        ) from error


def _listed(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _changing_types(schemas: dict[Path, pa.Schema], uses: Sequence[ColumnUse]) -> list[str]:
    """List id columns that hold texts in one file and numbers in another: ids would not agree."""
    problems = []
    first_seen: dict[str, tuple[Path, bool]] = {}
    for path, found in schemas.items():
        for column in dict.fromkeys(use.column for use in uses if use.table is not None):
            leaf = found.field(column).type
            while is_list_type(leaf) or pa.types.is_dictionary(leaf):
                leaf = leaf.value_type
            before, was_text = first_seen.setdefault(column, (path, is_string(leaf)))
            if was_text != is_string(leaf):
                problems.append(
                    f"{path}: column {column!r} is {leaf}, in {before} it holds "
                    f"{'texts' if was_text else 'numbers'}. Cast it to one type in all files."
                )
    return problems


def _row_counting_column(uses: Sequence[ColumnUse], layout: Layout) -> str | None:
    """Choose the column whose header tells the rows of a grouped log; none for a flat one."""
    if layout == "flat":
        return None
    per_row = [use for use in uses if use.is_row]
    if not per_row:
        raise SchemaError(
            "schema: a grouped log needs a column with one entry per candidate. Got none of side "
            "item or cross, and no task. Add one, or read the log as flat."
        )
    return next((use.column for use in per_row if not use.is_list), None)


def row_groups_of(path: Path, header: pq.FileMetaData, counted: str | None) -> Iterator[RowGroup]:
    """Give a file's row groups, empty ones left out.

    Args:
        path: The file.
        header: Its header.
        counted: Column of a grouped file with one entry per row; without one, lines are rows.
    """
    first_line = 0
    # The values of a list column are called `name.list.element`.
    prefix = None if counted is None else f"{counted}."
    for number in range(header.num_row_groups):
        group = header.row_group(number)
        num_rows = group.num_rows
        if prefix is not None:
            chunks = (group.column(index) for index in range(group.num_columns))
            num_rows = next(c.num_values for c in chunks if c.path_in_schema.startswith(prefix))
        if group.num_rows:
            yield RowGroup(
                path=path,
                metadata=header,
                number=number,
                first_line=first_line,
                num_lines=group.num_rows,
                num_rows=num_rows,
            )
        first_line += group.num_rows
