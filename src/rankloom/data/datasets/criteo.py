"""Criteo Display Advertising Challenge: a week of display ads, 13 counts and 26 hashed categories.

Kaggle, 2014. The columns' meaning is undisclosed. Criteo has subsampled clicks and other rows at
different rates. Rows are in the order of time, which is not given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.click_log import ClickLog, random_splits, write_click_log

LOG = ClickLog(
    name="criteo",
    file="train.txt",
    sample_folder="criteo_avazu_small",
    sample={"train": "criteo_train.csv", "valid": "criteo_dev.csv", "test": "criteo_test.csv"},
    columns={
        "label": pa.int64(),
        **{f"I{number}": pa.int64() for number in range(1, 14)},
        **{f"C{number}": pa.string() for number in range(1, 27)},
    },
    delimiter="\t",
    label="label",
    advice="Put train.txt of the Criteo Display Advertising Challenge (40 columns with tabs "
    "between them, no header) into $RANKLOOM_DATA/criteo.",
)


def prepare_criteo(
    destination: Path, *, seed: int = 0, report: Callable[[str], None]
) -> PreparedDataset:
    """Write train, valid and test: label, I1 to I13 (int64), C1 to C26 (texts); null where empty.

    The rows of the official train.txt are drawn 8:1:1. The sample keeps its own split.

    Args:
        destination: Folder to write to.
        seed: Of the draw.
        report: Called with each line of progress.

    Raises:
        DataError: There are no files or they are damaged, or `destination` cannot be written to.
    """
    generator = np.random.default_rng(seed)
    return write_click_log(
        LOG,
        destination,
        transform=lambda piece: piece.rows,
        split_of=lambda rows: random_splits(len(rows), generator),
        split_note=f"each row drawn 8:1:1 (seed {seed}): the shares of BARS' Criteo_x4, whose "
        "own rows are others",
        report=report,
    )
