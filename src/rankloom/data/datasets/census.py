"""Census-Income (KDD): the US population survey of 1994 and 1995, the usual multi-task table.

UCI Machine Learning Repository, data set 117. The two labels are those of MMoE and PLE: an income
above 50,000 dollars, and never married.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.splits import find_folder, first_existing, write_splits
from rankloom.errors import ConfigError, DataError

FOLDER = "census_income"
_FILES = {"train": "census_income_train.parquet", "test": "census_income_test.parquet"}
_NUM_COLUMNS = 42
_INCOMES = {"- 50000.": 0, "50000+.": 1}
_MARITAL = "marital_stat"
_ADVICE = (
    "Download Census-Income (KDD) from https://archive.ics.uci.edu/dataset/117 and put "
    f"{' and '.join(_FILES.values())} (its 42 columns under UCI's names, blanks stripped) into "
    f"$RANKLOOM_DATA/{FOLDER}."
)


def prepare_census(
    destination: Path, *, valid_share: float = 0.1, seed: int = 0, report: Callable[[str], None]
) -> PreparedDataset:
    """Write train, valid and test with snake-case columns, numbers as double.

    Labels: `income` (1 above 50,000 dollars) and `never_married`. `instance_weight` says how many
    people a row stands for and is no feature; the marital status is left out, being the second
    label; the other 39 columns are features.

    Args:
        destination: Folder to write to.
        valid_share: Share of UCI's training rows that becomes the validation split.
        seed: Of the draw of those rows.
        report: Called with each line of progress.

    Raises:
        ConfigError: `valid_share` is not between 0 and 1.
        DataError: The local folder is absent or damaged, or `destination` cannot be written to.
    """
    if not 0 < valid_share < 1:
        raise ConfigError(
            f"data.valid_share: must be between 0 and 1. Got {valid_share}. Give 0.1."
        )
    folder = find_folder(FOLDER, advice=_ADVICE)
    whole, test = (
        _read(first_existing(folder, (name,), advice=_ADVICE)) for name in _FILES.values()
    )
    order = np.random.default_rng(seed).permutation(len(whole))
    num_valid = round(valid_share * len(whole))
    tables = {
        "train": whole.take(pa.array(np.sort(order[num_valid:]))),
        "valid": whole.take(pa.array(np.sort(order[:num_valid]))),
        "test": test,
    }
    rows = write_splits(tables, destination)
    notes = [
        f"census {split}: {len(table):,} rows, income {pc.mean(table['income']).as_py():.2%}, "
        f"never married {pc.mean(table['never_married']).as_py():.2%}"
        for split, table in tables.items()
    ]
    for note in notes:
        report(note)
    return PreparedDataset(name="census", folder=destination, rows=rows, notes=tuple(notes))


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read. Got: {error}. {_ADVICE}") from error
    columns = {_snake_case(name): table[name] for name in table.column_names}
    needed = {"age", "income", "instance_weight", _MARITAL}
    if len(columns) != _NUM_COLUMNS or not needed <= columns.keys():
        raise DataError(
            f"{path}: must have {_NUM_COLUMNS} columns, {', '.join(sorted(needed))} among them. "
            f"Got {len(columns)}: {', '.join(columns)}. {_ADVICE}"
        )
    income = pc.index_in(columns.pop("income"), pa.array(list(_INCOMES)))
    if income.null_count:
        raise DataError(
            f"{path}: income must be one of {list(_INCOMES)}. Got another value in "
            f"{income.null_count} rows. {_ADVICE}"
        )
    labels = {
        "income": pc.cast(income, pa.int64()),
        "never_married": pc.cast(pc.equal(columns.pop(_MARITAL), "Never married"), pa.int64()),
    }
    is_number = {name: pa.types.is_primitive(column.type) for name, column in columns.items()}
    features = {
        name: pc.cast(column, pa.float64() if is_number[name] else pa.string())
        for name, column in columns.items()
    }
    return pa.table(features | labels)


def _snake_case(name: str) -> str:
    """Turn `fill inc questionnaire for veteran's admin` into a Python name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("'", "")).strip("_")
