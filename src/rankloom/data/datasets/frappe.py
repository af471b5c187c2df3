"""Frappe_x1: uses of mobile apps in context, with sampled apps that the user did not use.

Linas Baltrunas, Karen Church, Alexandros Karatzoglou and Nuria Oliver, "Frappe: Understanding the
Usage and Perception of Mobile App Recommendations In-The-Wild", arXiv:1505.03014. The split 7:2:1
and the negatives are those of the BARS benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.splits import find_folder, first_existing, read_bytes, write_splits
from rankloom.errors import DataError

FOLDER = "frappe"
REBUILT_TRAIN = "frappe_x1_train_rebuilt.csv.zst"
COLUMNS = (
    "label", "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather",
    "country", "city",
)  # fmt: skip
# The official file comes first: the rebuilt one draws the apps of the training negatives anew.
_FILES = {
    "train": ("train.csv", REBUILT_TRAIN),
    "valid": ("valid.csv", "frappe_x1_valid.csv.zst"),
    "test": ("test.csv", "frappe_x1_test.csv.zst"),
}
_ADVICE = (
    "Its terms forbid passing it on: download Frappe_x1 from "
    "https://huggingface.co/datasets/reczoo/Frappe_x1 and put train.csv, valid.csv and test.csv "
    "into $RANKLOOM_DATA/frappe."
)


def prepare_frappe(destination: Path, *, report: Callable[[str], None]) -> PreparedDataset:
    """Write train, valid and test with the label and ten int64 columns of ids.

    The ids are the source's feature ids: distinct over all columns, and kept as keys for a
    vocabulary.

    Args:
        destination: Folder to write to.
        report: Called with each line of progress.

    Raises:
        DataError: The local folder is absent or damaged, or `destination` cannot be written to.
    """
    folder = find_folder(FOLDER, advice=_ADVICE)
    paths = {
        split: first_existing(folder, names, advice=_ADVICE) for split, names in _FILES.items()
    }
    tables = {split: _read(path) for split, path in paths.items()}
    rows = write_splits(tables, destination)
    notes = []
    if paths["train"].name == REBUILT_TRAIN:
        notes.append("Frappe_x1 test split, rebuilt training negatives")
    for split, table in tables.items():
        share = pc.mean(table["label"]).as_py()
        notes.append(f"frappe {split}: {len(table):,} rows, {share:.2%} positive")
    for note in notes:
        report(note)
    return PreparedDataset(name="frappe", folder=destination, rows=rows, notes=tuple(notes))


def _read(path: Path) -> pa.Table:
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(read_bytes(path)),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.int64())),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is no table of integers. Got: {error}. {_ADVICE}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}. Got {table.column_names}. {_ADVICE}"
        )
    labels = np.setdiff1d(table["label"].to_numpy(), [0, 1])
    if len(table) == 0 or len(labels) or any(column.null_count for column in table.columns):
        raise DataError(
            f"{path}: labels must be 0 or 1 and every cell filled. Got {len(table)} rows, other "
            f"labels {labels[:5].tolist()}. {_ADVICE}"
        )
    return table.select(list(COLUMNS))
