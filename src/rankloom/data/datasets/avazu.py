"""Avazu click-through rate prediction: ten days of ads in mobile apps and sites, October 2014.

Kaggle, 2014. C1 and C14 to C21 are anonymous; there is no user, only devices and addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Ints
from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.click_log import ClickLog, random_splits, write_click_log
from rankloom.data.datasets.delimited import Piece
from rankloom.errors import ConfigError

Split = Literal["random", "time"]

_CODES = ("C1", "banner_pos", *(f"C{number}" for number in range(14, 22)))
_COLUMNS = (
    "id", "click", "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id",
    "app_domain", "app_category", "device_id", "device_ip", "device_model", "device_type",
    "device_conn_type", *(f"C{number}" for number in range(14, 22)),
)  # fmt: skip
_INTEGERS = {"click", "hour", "device_type", "device_conn_type", *_CODES}
LOG = ClickLog(
    name="avazu",
    file="train.csv",
    sample_folder="criteo_avazu_small",
    sample={"train": "avazu_train.csv", "valid": "avazu_dev.csv", "test": "avazu_test.csv"},
    columns={name: pa.int64() if name in _INTEGERS else pa.string() for name in _COLUMNS},
    delimiter=",",
    label="click",
    advice="Put train.csv of Kaggle's Avazu click-through rate prediction (24 columns) into "
    "$RANKLOOM_DATA/avazu.",
)
_DAY_S, _HOUR_S = 86_400, 3600
_VALID_START, _TEST_START = (
    int(np.datetime64(f"2014-10-{day}", "s").astype(np.int64)) for day in (29, 30)
)


def prepare_avazu(
    destination: Path, *, split: str = "random", seed: int = 0, report: Callable[[str], None]
) -> PreparedDataset:
    """Write train, valid and test: the source's columns without `id`, and the time in three.

    `hour` (0 to 23) and `weekday` (Monday is 0) are derived from the source's `hour`, as is
    `timestamp`, the second at which that hour begins, UTC. `id` is another one in each row.

    Args:
        destination: Folder to write to.
        split: Of the official file: `random` draws each row 8:1:1; `time` takes 29 October as
            valid and 30 October as test. The sample keeps its own split.
        seed: Of the draw.
        report: Called with each line of progress.

    Raises:
        ConfigError: `split` is unknown.
        DataError: There are no files or they are damaged, or `destination` cannot be written to.
    """
    if split not in get_args(Split):
        raise ConfigError(
            f"data.split: unknown split. Got {split!r}. Choose one of {', '.join(get_args(Split))}."
        )
    generator = np.random.default_rng(seed)
    by_draw = (
        f"each row drawn 8:1:1 (seed {seed}): the shares of BARS' Avazu_x4, whose own rows are "
        "others"
    )
    by_day = "split by time: train until 28 October 2014, valid 29 October, test 30 October"
    return write_click_log(
        LOG,
        destination,
        transform=_with_time,
        split_of=_split_by_day
        if split == "time"
        else lambda rows: random_splits(len(rows), generator),
        split_note=by_day if split == "time" else by_draw,
        report=report,
    )


def _split_by_day(rows: pa.RecordBatch) -> Ints:
    seconds = rows.column("timestamp").to_numpy()
    split: Ints = (seconds >= _VALID_START).astype(np.int64) + (seconds >= _TEST_START)
    return split


def _with_time(piece: Piece) -> pa.RecordBatch:
    """Put hour, weekday and timestamp in the place of `hour` as YYMMDDHH, and drop `id`."""
    column = piece.rows.column("hour")
    code = pc.fill_null(column, -1).to_numpy()
    month, day, hour = code // 10_000 % 100, code // 100 % 100, code % 100
    months = ((code // 1_000_000 + 30) * 12 + month - 1).astype("datetime64[M]")
    days = (months.astype("datetime64[D]") + (day - 1)).astype(np.int64)
    is_day = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    piece.refuse(
        "hour", (code < 0) | (code > 99_999_999) | ~is_day | (hour > 23), rule="must read YYMMDDHH"
    )
    columns = {name: piece.rows.column(name) for name in _COLUMNS if name not in {"id", "hour"}}
    times = {
        "timestamp": days * _DAY_S + hour * _HOUR_S,
        "hour": hour,
        # 1 January 1970 was a Thursday; Monday is 0.
        "weekday": (days + 3) % 7,
    }
    return pa.RecordBatch.from_pydict(columns | {name: pa.array(v) for name, v in times.items()})
