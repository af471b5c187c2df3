"""Score a Parquet file of new rows into another, a piece at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rankloom.api.evaluating import new_scorer
from rankloom.api.result import TrainResult, load_result
from rankloom.atomic import replacing
from rankloom.data.files import check_files
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.uses import feature_uses
from rankloom.errors import DataError, did_you_mean


def predict(
    result: TrainResult | str | Path,
    source: str | Path,
    destination: str | Path,
    *,
    columns: Sequence[str] | None = None,
    batch_rows: int = 16_384,
    report: Callable[[int], None] = lambda _: None,
) -> int:
    """Score every row of a Parquet file; labels need not be there.

    Args:
        result: What `train` gave, or a run folder.
        source: Parquet file with the features' columns, in the layout the run was trained on.
        destination: Parquet file to write, whole or not at all: the kept columns, then one column
            a task with its probability or mean. A grouped file's are lists, like its candidates.
        columns: Columns of the source to keep; default: those of the roles that are there.
        batch_rows: Lines scored at a time.
        report: Is told the number of lines done so far.

    Returns:
        The number of lines.

    Raises:
        DataError: A file cannot be read or written, or holds a value that is not allowed.
        SchemaError: Columns are missing or of the wrong type.
    """
    if not isinstance(result, TrainResult):
        result = load_result(result)
    source, destination = Path(source), Path(destination)
    run = result.run
    layout = run.config.data.layout
    check_files(source, run.schema, layout=layout, with_labels=False, transforms=result.transforms)
    decoder = Decoder(run.schema, result.transforms, layout=layout, with_labels=False)
    scorer = new_scorer(run, result.model)
    row_column = None
    if layout == "grouped":
        row_column = next((use.column for use in feature_uses(run.schema) if use.is_row), None)
    done = 0
    try:
        with pq.ParquetFile(source) as file, replacing(destination) as temporary:
            kept = _kept(run.schema.roles.to_dict(), columns, file.schema_arrow, source)
            read = list(dict.fromkeys([*kept, *decoder.columns]))
            writer: pq.ParquetWriter | None = None
            try:
                for batch in _read(file, source, columns=read, batch_rows=batch_rows):
                    where = f"{source} from line {done}"
                    scores = scorer(decode_table(batch, decoder, where=where))
                    scored = _with_scores(batch.select(kept), scores, _lengths(batch, row_column))
                    if writer is None:
                        writer = pq.ParquetWriter(temporary, scored.schema, compression="zstd")
                    writer.write_table(scored)
                    done += len(batch)
                    report(done)
            finally:
                if writer is not None:
                    writer.close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(
            f"{destination}: predictions cannot be written ({reason}). Free some space or give "
            "another place."
        ) from None
    return done


def _read(
    file: pq.ParquetFile, source: Path, *, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Give the lines of a file, none of the batches empty.

    Raises:
        DataError: The file is damaged.
    """
    try:
        for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
            if len(batch):
                yield batch
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{source}: cannot be read. Got: {' '.join(str(error).split())} The file is damaged. "
            "Write it again."
        ) from None


def _kept(
    roles: Mapping[str, str | None],
    columns: Sequence[str] | None,
    schema: pa.Schema,
    source: Path,
) -> list[str]:
    """Choose the columns of the source that the destination repeats."""
    if columns is None:
        wanted = dict.fromkeys(name for name in roles.values() if name)
        return [name for name in wanted if name in schema.names]
    problems = [
        f"{source}: column {name!r} is not there.{did_you_mean(name, schema.names)}"
        for name in columns
        if name not in schema.names
    ]
    if problems:
        raise DataError("\n".join(problems))
    return list(columns)


def _lengths(batch: pa.RecordBatch, row_column: str | None) -> np.ndarray | None:
    """Count the candidates of each line of a grouped file."""
    if row_column is None:
        return None
    column = batch.column(row_column)
    lengths = column.value_lengths().fill_null(0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def _with_scores(
    kept: pa.RecordBatch, scores: Mapping[str, Tensor], lengths: np.ndarray | None
) -> pa.Table:
    columns: dict[str, pa.Array] = {name: kept.column(name) for name in kept.schema.names}
    for task, values in scores.items():
        array = pa.array(values.numpy())
        if lengths is not None:
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            array = pa.ListArray.from_arrays(pa.array(offsets), array)
        columns[task if task not in columns else f"{task}_prediction"] = array
    return pa.table(columns)
