"""Text files of any length a piece at a time: delimited cells or JSON lines, with fixed types."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyarrow import json as arrow_json

from rankloom.errors import DataError

Types = Mapping[str, pa.DataType]
"""Columns that are read, in the order they are given, and what they hold."""

# Of text that are read at a time; no line may be longer. Arrow reads some thirty blocks ahead.
_BLOCK_BYTES = 1 << 22
_FIRST_LINE_BYTES = 1 << 16
_ROWS_BETWEEN_REPORTS = 10_000_000
_NULLS = ["", "NULL", "null", "NaN", "nan"]


@dataclass(frozen=True)
class Piece:
    """Some lines of a text file that follow each other."""

    path: Path
    first_line: int
    """Number of the first of them, from 1 on."""
    rows: pa.RecordBatch
    advice: str
    """Ends the message of an error."""

    def refuse(self, name: str, bad: npt.NDArray[np.bool_] | pa.Array, *, rule: str) -> None:
        """Raise an error that names the first bad line, if there is one.

        Args:
            name: The column at fault.
            bad: (rows,), without nulls.
            rule: Such as `must be 0 or 1`.

        Raises:
            DataError: Some line is bad.
        """
        lines = np.flatnonzero(bad)
        if len(lines):
            first = int(lines[0])
            value = self.rows.column(name)[first].as_py()
            got = "nothing" if value is None else repr(value)
            raise DataError(
                f"{self.path}: line {self.first_line + first}: {name} {rule}. Got {got}. "
                f"{self.advice}"
            )


def read_delimited(
    path: Path,
    types: Types,
    *,
    delimiter: str = ",",
    has_header: bool = True,
    filled: Collection[str] = (),
    flags: Collection[str] = (),
    advice: str,
    report: Callable[[str], None],
) -> Iterator[Piece]:
    """Read delimited text; cells may stand in double quotes.

    Args:
        path: Decompressed when its name ends in `.zst` or `.gz`.
        types: With a header, others may stand between them, in any order; blanks around a name
            are not part of it. Without one, the file has exactly these, in their order.
        delimiter: Between the cells of a line.
        has_header: Whether there must be one. Otherwise there may be: a first line that starts
            with the name of the first column.
        filled: Columns that must have a value in each line. In the others, empty cells, `NULL` and
            `NaN` become nulls.
        flags: Columns that must be 0 or 1.
        advice: Ends every message: where to get the right file.
        report: Called with a line now and then in long files, and one at the end.

    Raises:
        DataError: The file cannot be read, has no rows, lacks a column, or has a line that does
            not fit.
    """
    names = next(csv.reader([first_line(path)], delimiter=delimiter), [])
    names = [name.strip() for name in names]
    has_header = has_header or names[:1] == list(types)[:1]
    names = names if has_header else list(types)
    missing = [name for name in types if name not in names]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}. Got {', '.join(names)}. {advice}"
        )
    try:
        with pa.input_stream(str(path)) as stream:
            batches = pa.csv.open_csv(
                stream,
                pa.csv.ReadOptions(
                    column_names=names,
                    skip_rows=int(has_header),
                    block_size=_BLOCK_BYTES,
                    # With threads, Arrow does not say which line is wrong.
                    use_threads=False,
                ),
                pa.csv.ParseOptions(delimiter=delimiter),
                pa.csv.ConvertOptions(
                    column_types=dict(types),
                    include_columns=list(types),
                    null_values=_NULLS,
                    strings_can_be_null=True,
                ),
            )
            pieces = _pieces(path, batches, 1 + has_header, advice=advice, report=report)
            yield from _checked(pieces, filled=filled, flags=flags)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: {_explain(str(error), names)} {advice}") from error


def read_json_lines(
    path: Path,
    types: Types,
    *,
    filled: Collection[str] = (),
    advice: str,
    report: Callable[[str], None],
) -> Iterator[Piece]:
    """Read some fields of a file with one JSON object a line; else like `read_delimited`."""
    schema = pa.schema(list(types.items()))
    try:
        with pa.input_stream(str(path)) as stream:
            batches = arrow_json.open_json(
                stream,
                arrow_json.ReadOptions(block_size=_BLOCK_BYTES),
                arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            pieces = _pieces(path, batches, 1, advice=advice, report=report)
            yield from _checked(pieces, filled=filled, flags=())
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: {_explain(str(error), [])} {advice}") from error


def first_line(path: Path) -> str:
    """Give the start of a file up to its first line break, at most 64 KiB.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with pa.input_stream(str(path)) as stream:
            start = bytes(stream.read(_FIRST_LINE_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read. Got: {error}. Restore the file.") from error
    return start.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").strip("\r")


def _pieces(
    path: Path,
    batches: Iterator[pa.RecordBatch],
    line: int,
    *,
    advice: str,
    report: Callable[[str], None],
) -> Iterator[Piece]:
    """Number the lines of some batches, of which there must be one, and report progress."""
    num_rows = 0
    for batch in batches:
        yield Piece(path, line + num_rows, batch, advice)
        before, num_rows = num_rows, num_rows + len(batch)
        if num_rows // _ROWS_BETWEEN_REPORTS > before // _ROWS_BETWEEN_REPORTS:
            report(f"{path.name}: {num_rows:,} rows so far")
    if not num_rows:
        raise DataError(f"{path}: has no rows. {advice}")
    report(f"{path.name}: {num_rows:,} rows")


def _checked(
    pieces: Iterator[Piece], *, filled: Collection[str], flags: Collection[str]
) -> Iterator[Piece]:
    for piece in pieces:
        for name, column in zip(piece.rows.schema.names, piece.rows.columns, strict=True):
            if name in flags:
                is_flag = pc.is_in(column, pa.array([0, 1], column.type))
                piece.refuse(name, pc.invert(is_flag), rule="must be 0 or 1")
            elif name in filled:
                piece.refuse(name, column.is_null(), rule="must not be empty")
        yield piece


def _explain(message: str, names: list[str]) -> str:
    """Put what Arrow says of a line in our own words, where it is known."""
    if match := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        line, expected, got = match.groups()
        return f"line {line} must have {expected} columns. Got {got}."
    if match := re.search(
        r"column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+): (?:invalid value )?(.*)",
        message,
        re.DOTALL,
    ):
        column, row, kind, got = match.groups()
        where = f"line {row}: " if row else ""
        return f"{where}column {names[int(column)]} must be {kind}. Got {got}."
    return f"cannot be read. Got: {message}."
