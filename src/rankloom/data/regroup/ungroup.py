"""Write a log that is grouped by request with one line a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Ints, offsets_of
from rankloom.data.files import FileNames
from rankloom.data.raw import Origin, RawColumn, check_same_lengths, list_lengths
from rankloom.data.regroup.columns import flat_schema, marked_candidates, sides_of_schema
from rankloom.data.regroup.constant import check_column_types
from rankloom.data.regroup.group import Regrouped, Report
from rankloom.data.regroup.log import Log, lines_at_a_time, missing_columns, open_log
from rankloom.data.regroup.writing import Outputs, output_names, writing_place
from rankloom.data.uses import is_list_type
from rankloom.errors import ConfigError, SchemaError, join_problems
from rankloom.schema import Schema


def ungroup_log(
    files: FileNames,
    to: str | Path,
    *,
    candidates: Sequence[str] | None = None,
    schema: Schema | None = None,
    report: Report = lambda *_: None,
) -> Regrouped:
    """Write a grouped log with one line a row, requests and candidates in the order they have.

    Args:
        files: Paths or glob patterns.
        to: A .parquet file for one, or a folder that gets a file for each; must not exist.
        candidates: The columns that are lists of candidates; default: those that the file names.
        schema: Names them otherwise, in a file that was not written by `group_log`; columns that
            it does not read are the candidates' if their lists have one entry for each everywhere.
        report: Told of the progress, in requests.

    Raises:
        ConfigError: `to` exists, or nothing names the candidates' columns.
        SchemaError: Columns are missing, or are no lists.
        DataError: A file cannot be read, or the lists of a request differ in length.
    """
    log = open_log(files)
    to = Path(to)
    names = output_names(log.paths, to)
    chosen = _candidates(log, candidates, schema)
    schemas = [flat_schema(one, chosen) for one in log.schemas]
    check_column_types(schemas[0])
    num_rows = num_empty = done = 0
    with writing_place(to) as (out, _), Outputs([out / name for name in names], schemas) as outputs:
        for batch, origin in log.batches(log.names, _lines_at_a_time(log, chosen)):
            offsets = _row_offsets(batch, chosen, origin)
            file = int(log.file_of(np.array([done]))[0])
            outputs.write(file, list(_rows(batch, chosen, np.diff(offsets))), int(offsets[-1]))
            num_rows += int(offsets[-1])
            num_empty += int(np.count_nonzero(np.diff(offsets) == 0))
            done += len(batch)
            report("writing", done, log.num_lines)
    return Regrouped(
        num_rows=num_rows,
        num_requests=log.num_lines,
        request_columns=tuple(name for name in log.names if name not in chosen),
        candidate_columns=tuple(chosen),
        num_empty=num_empty,
    )


def _candidates(log: Log, given: Sequence[str] | None, schema: Schema | None) -> list[str]:
    if given is not None:
        problems = missing_columns(log, given)
        if problems:
            raise SchemaError(join_problems(problems, where="data" if problems[1:] else ""))
        chosen = list(given)
    elif schema is not None:
        sides = sides_of_schema(schema)
        read = [name for name in sides.candidate if name in log.names]
        aligned = _aligned(log, sides.unknown(log.names), read[0]) if read else []
        chosen = [name for name in log.names if name in {*read, *aligned}]
    else:
        marks = [marked_candidates(one) for one in log.schemas]
        for path, mark in zip(log.paths, marks, strict=True):
            if mark is None or mark != marks[0]:
                what = "does not say" if mark is None else "says otherwise than the first file"
                raise ConfigError(
                    f"{path}: {what} which columns are lists of candidates. Name them with "
                    "--candidate-columns, or give the run file with --run."
                )
        chosen = marks[0] or []
    if not chosen:
        raise ConfigError(
            "--candidate-columns: must name a column with one entry per candidate. Got none."
        )
    return chosen


def _aligned(log: Log, names: Sequence[str], candidate: str) -> list[str]:
    """Give the columns that have one entry per candidate in every line of the log.

    Args:
        log: Grouped.
        names: Columns of which nothing is known.
        candidate: A column of the candidates.
    """
    left = [name for name in names if is_list_type(log.schemas[0].field(name).type)]
    if not left or not is_list_type(log.schemas[0].field(candidate).type):
        return []
    for batch, _ in log.batches([candidate, *left], _lines_at_a_time(log, [candidate])):
        lengths = list_lengths(batch.column(candidate))
        left = [n for n in left if np.array_equal(list_lengths(batch.column(n)), lengths)]
    return left


def _lines_at_a_time(log: Log, candidates: Sequence[str]) -> int:
    """Give how many requests to read at a time, so that their rows fit."""
    sample = log.sample()
    if not len(sample):
        return 1
    of_rows = sum(sample.column(name).nbytes for name in candidates)
    rows = int(list_lengths(sample.column(candidates[0])).sum())
    flat_bytes = of_rows + (sample.nbytes - of_rows) * rows / len(sample)
    rows_at_a_time = lines_at_a_time(flat_bytes / max(rows, 1))
    return max(1, rows_at_a_time * len(sample) // max(rows, 1))


def _row_offsets(batch: pa.RecordBatch, candidates: Sequence[str], origin: Origin) -> Ints:
    """Give where the rows of each request begin, checked to be so in all lists."""
    first = candidates[0]
    offsets = offsets_of(list_lengths(batch.column(first)))
    for name in candidates[1:]:
        raw = RawColumn(name, batch.column(name), origin)
        others = offsets_of(list_lengths(raw.array))
        check_same_lengths(offsets, first, others, RawColumn(name, raw.array, origin, (others,)))
    return offsets


def _rows(batch: pa.RecordBatch, candidates: Sequence[str], num_rows: Ints) -> Iterator[pa.Array]:
    """Give the columns of a flat file."""
    line = pa.array(np.repeat(np.arange(len(batch)), num_rows))
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        yield column.flatten() if name in candidates else column.take(line)
