"""Logs in delimited text with one label, official or a sample, in one pass: Criteo, Avazu."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Ints
from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.delimited import Piece, read_delimited
from rankloom.data.datasets.split_writer import writing_splits
from rankloom.data.datasets.splits import find_folder, first_existing

SPLITS = ("train", "valid", "test")
TOO_FEW = "too few rows to conclude anything about quality"
"""What the notes say of a sample."""

_TRAIN_SHARE, _TRAIN_AND_VALID_SHARE = 0.8, 0.9


@dataclass(frozen=True, kw_only=True)
class ClickLog:
    """Where a log is and what its files hold."""

    name: str
    """The data set's name, and the folder of its official file."""
    file: str
    """The official file; it may be compressed as `.gz` or `.zst`."""
    sample_folder: str
    """Folder of the sample."""
    sample: Mapping[str, str]
    """Split -> the sample's file, compressed or not."""
    columns: Mapping[str, pa.DataType]
    """Of all files, in their order; a header may be absent."""
    delimiter: str
    """Between cells."""
    label: str
    """The column of 0 and 1."""
    advice: str
    """Ends the message of an error."""

    def files(self) -> tuple[dict[str, Path], bool]:
        """Find the files.

        Returns:
            paths: Split -> file; "" for the official file, which holds all splits.
            is_sample: Whether they are the sample's.

        Raises:
            DataError: There are none.
        """
        folder = find_folder(self.name, self.sample_folder, advice=self.advice)
        is_sample = folder.name == self.sample_folder
        wanted = self.sample if is_sample else {"": self.file}
        paths = {
            split: first_existing(folder, (file, f"{file}.zst", f"{file}.gz"), advice=self.advice)
            for split, file in wanted.items()
        }
        return paths, is_sample


def write_click_log(
    log: ClickLog,
    destination: Path,
    *,
    transform: Callable[[Piece], pa.RecordBatch],
    split_of: Callable[[pa.RecordBatch], Ints],
    split_note: str,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Read a log's files in pieces and write train, valid and test.

    Args:
        log: Where it is.
        destination: Folder to write to.
        transform: Makes the columns that are written of those that were read.
        split_of: Gives each transformed row of the official file its split: 0 train, 1 valid,
            2 test.
        split_note: Says how `split_of` splits.
        report: Called with each line of progress.

    Raises:
        DataError: There are no files or they are damaged, or `destination` cannot be written to.
    """
    paths, is_sample = log.files()
    first = next(iter(paths.values()))
    how = f"with the sample's own split: {TOO_FEW}" if is_sample else split_note
    notes = [f"{log.name}: {first.parent if is_sample else first}, {how}"]
    report(notes[0])
    with writing_splits(destination, SPLITS, sums=(log.label,)) as writer:
        for split, path in paths.items():
            pieces = read_delimited(
                path,
                log.columns,
                delimiter=log.delimiter,
                has_header=False,
                flags=(log.label,),
                advice=log.advice,
                report=report,
            )
            for piece in pieces:
                rows = transform(piece)
                if is_sample:
                    writer.write(split, rows)
                else:
                    numbers = split_of(rows)
                    for number, name in enumerate(SPLITS):
                        writer.write(name, rows.filter(pa.array(numbers == number)))
    parts = writer.notes(log.name)
    for note in parts:
        report(note)
    return PreparedDataset(
        name=log.name, folder=destination, rows=writer.rows, notes=(*notes, *parts)
    )


def random_splits(num_rows: int, generator: np.random.Generator) -> Ints:
    """Draw (num_rows,) splits, 0 to 2, in the shares 8:1:1.

    The same rows follow from the same seed, however many are drawn at a time.
    """
    drawn = generator.random(num_rows)
    return (drawn >= _TRAIN_SHARE).astype(np.int64) + (drawn >= _TRAIN_AND_VALID_SHARE)
