"""Group a flat log by request: the request's columns once, the candidates' as lists."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankloom.data.files import FileNames
from rankloom.data.regroup.arrange import (
    PART_BYTES,
    Piece,
    Rows,
    RowsBroughtTogether,
    RowsInPlace,
    whole_requests,
)
from rankloom.data.regroup.columns import Sides, grouped_schema, marked_candidates, sides_of_schema
from rankloom.data.regroup.constant import Variation, check_column_types, find_variations
from rankloom.data.regroup.log import Log, lines_at_a_time, missing_columns, open_log
from rankloom.data.regroup.requests import Requests, check_key_type, find_requests
from rankloom.data.regroup.writing import Outputs, output_names, writing_place
from rankloom.errors import ConfigError, DataError, SchemaError, join_problems
from rankloom.schema import Schema

Report = Callable[[str, int, int], None]
"""Told what is being done, the rows done so far, and all rows."""


@dataclass(frozen=True)
class Regrouped:
    """What was written."""

    num_rows: int
    """Rows: one user and one candidate each."""
    num_requests: int
    """Requests."""
    request_columns: tuple[str, ...]
    """Have one value for a request."""
    candidate_columns: tuple[str, ...]
    """Have one value for a row."""
    is_contiguous: bool = True
    """Whether the rows of each request followed each other."""
    num_empty: int = 0
    """Requests without candidates, which a flat log cannot have."""


def group_log(
    files: FileNames,
    to: str | Path,
    *,
    by: str | None = None,
    candidates: Sequence[str] | None = None,
    schema: Schema | None = None,
    report: Report = lambda *_: None,
) -> Regrouped:
    """Write a flat log with one line a request; `ungroup_log` gives the same rows again.

    A request goes to the file that has its first row. What is not known to be the request's or the
    candidates' is the request's if it is constant within every request, of the whole log.

    Args:
        files: Paths or glob patterns.
        to: A .parquet file for one, or a folder that gets a file for each; must not exist.
        by: The column that names the request; default: that of the schema's role.
        candidates: The columns with one value a row; all others are the request's then.
        schema: Says of the columns that a run reads to whom they belong.
        report: Told of the progress.

    Raises:
        ConfigError: `to` exists, or an option is missing.
        SchemaError: Columns are missing, cannot be compared, or do not fit the schema.
        DataError: A file cannot be read, a row has no request, or a column that is said to be the
            request's varies within one; the first such request is named.
    """
    log = open_log(files)
    to = Path(to)
    by = by or (schema.roles.request if schema else None)
    if by is None:
        raise ConfigError(
            "--by: is missing. Name the column that tells requests apart, or give a run file with "
            "roles.request."
        )
    names = output_names(log.paths, to)
    sides = _given_sides(log, by, candidates, schema)
    with writing_place(to) as (out, work):
        try:
            return _group(log, by, sides, [out / name for name in names], work, report)
        except pa.ArrowException as error:
            raise DataError(
                f"{log.paths[0]}: cannot be grouped. Got: {error}. Cast the column in preparation."
            ) from error


def _given_sides(
    log: Log, by: str, candidates: Sequence[str] | None, schema: Schema | None
) -> Sides:
    """Check what is asked for, and say what is known of the columns before any value is read."""
    problems = missing_columns(log, [by, *(candidates or ())])
    if by in (candidates or ()):
        problems.append(f"--candidate-columns: {by!r} names the request. Leave it out.")
    if problems:
        raise SchemaError(join_problems(problems, where="data" if problems[1:] else ""))
    for path, found in zip(log.paths, log.schemas, strict=True):
        if marked_candidates(found) is not None:
            raise SchemaError(f"{path}: is grouped already. Give a flat log.")
    check_key_type(log, by)
    check_column_types(log.schemas[0])
    if not log.num_lines:
        raise DataError(f"{log.paths[0]}: no rows. Write at least one row.")
    if candidates is not None:
        others = [name for name in log.names if name not in candidates]
        return Sides(tuple(others), tuple(candidates))
    if schema is None:
        return Sides((by,))
    known = sides_of_schema(schema)
    request = dict.fromkeys([by, *(name for name in known.request if name in log.names)])
    candidate = [name for name in known.candidate if name in log.names]
    if by in candidate:
        raise SchemaError(
            f"--by: {by!r} names the request, but is a candidate's in the run. Give another."
        )
    return Sides(tuple(request), tuple(candidate))


def _group(
    log: Log, by: str, given: Sides, paths: Sequence[Path], work: Path, report: Report
) -> Regrouped:
    sample = log.sample()
    row_bytes = max(sample.nbytes / max(len(sample), 1), 1.0)
    chunk_rows = lines_at_a_time(row_bytes)
    for seed in count():
        folder = work / str(seed)
        folder.mkdir()
        requests = find_requests(
            log, by, folder, seed=seed, report=_stage(report, "finding requests", log)
        )
        rows: Rows = RowsInPlace(log, requests, chunk_rows)
        if not requests.is_contiguous:
            rows = RowsBroughtTogether(
                log,
                requests,
                folder,
                chunk_rows=chunk_rows,
                part_rows=int(PART_BYTES // row_bytes) + 1,
                report=_stage(report, "bringing requests together", log),
            )
        variations = _variations(rows, log, given, report)
        # Texts of one hash stand for one request: another seed tells them apart.
        if by not in variations:
            break
    _refuse_variations(log, by, given, variations, rows)
    candidates = tuple(n for n in log.names if n in variations or n in given.candidate)
    if not candidates:
        raise DataError(
            f"{log.paths[0]}: no column varies within a request. Got {requests.num_requests:,} "
            f"requests in {log.num_lines:,} rows. Name the candidates' with --candidate-columns."
        )
    _write(log, rows, requests, candidates, by, paths, report)
    return Regrouped(
        num_rows=log.num_lines,
        num_requests=requests.num_requests,
        request_columns=tuple(name for name in log.names if name not in candidates),
        candidate_columns=candidates,
        is_contiguous=requests.is_contiguous,
    )


def _stage(report: Report, name: str, log: Log) -> Callable[[int], None]:
    return lambda done: report(name, done, log.num_lines)


def _variations(rows: Rows, log: Log, given: Sides, report: Report) -> dict[str, Variation]:
    names = [name for name in log.names if name not in given.candidate]
    # Most columns of candidates vary at once; they need not be read to the end.
    head = find_variations(iter([next(rows.pieces(names))]), names, report=lambda _: None)
    rest = [name for name in names if name not in head]
    found = find_variations(
        rows.pieces(rest), rest, report=_stage(report, "comparing rows of requests", log)
    )
    return head | found


def _refuse_variations(
    log: Log, by: str, given: Sides, variations: dict[str, Variation], rows: Rows
) -> None:
    """Check that what is said to be the request's is constant.

    Raises:
        DataError: Some columns are not; all are named.
    """
    problems = []
    for name in given.request:
        if name not in variations:
            continue
        variation = variations[name]
        path, row = log.origin(variation.first_row)
        values = " and ".join(map(reprlib.repr, variation.values.to_pylist()))
        key = reprlib.repr(_key_at(rows, by, variation.first_row))
        problems.append(
            f"{path}: column {name!r} is the request's, and must be constant within it. Got "
            f"{values} in the request that begins in row {row} ({by} {key}). Mend it, or name it "
            "among the candidates' columns."
        )
    if problems:
        raise DataError(join_problems(problems, where="data" if problems[1:] else ""))


def _key_at(rows: Rows, by: str, first_row: int) -> object:
    """Give the key of the request that begins in some row."""
    for piece in rows.pieces([by]):
        found = np.flatnonzero(piece.first_rows == first_row)
        if len(found):
            return piece.batch.column(0)[int(found[0])].as_py()
    raise AssertionError("every request has a row")


def _write(
    log: Log,
    rows: Rows,
    requests: Requests,
    candidates: Sequence[str],
    by: str,
    paths: Sequence[Path],
    report: Report,
) -> None:
    schemas = [grouped_schema(schema, candidates, by) for schema in log.schemas]
    done = 0
    with Outputs(paths, schemas) as outputs:
        for piece in whole_requests(rows.pieces(log.names)):
            starts = piece.starts()
            files = log.file_of(piece.first_rows[starts])
            borders = [*np.flatnonzero(np.append(True, files[1:] != files[:-1])), len(files)]
            ends = np.append(starts, len(piece.first_rows))
            for first, stop in pairwise(borders):
                part = piece.cut(int(ends[first]), int(ends[stop]))
                file = int(files[first])
                outputs.write(file, _grouped(part, schemas[file], candidates), len(part.first_rows))
            done += len(piece.first_rows)
            report("writing", done, log.num_lines)
    assert done == requests.num_rows


def _grouped(piece: Piece, schema: pa.Schema, candidates: Sequence[str]) -> list[pa.Array]:
    """Give the columns of a grouped file for whole requests."""
    starts = piece.starts()
    offsets = pa.array(np.append(starts, len(piece.first_rows)).astype(np.int32))
    first = pa.array(starts)
    return [
        pa.ListArray.from_arrays(offsets, column, type=schema.field(name).type)
        if name in candidates
        else column.take(first)
        for name, column in zip(piece.batch.schema.names, piece.batch.columns, strict=True)
    ]
