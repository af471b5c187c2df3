"""Which negatives an epoch keeps: by their place alone, whole rows, the requests that have any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.order import Order
from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.sampling import NegativeSampling
from rankloom.data.transforms import Transforms
from rankloom.schema import BinaryTask, Schema, SparseFeature

SCHEMA = Schema(
    {
        "user": SparseFeature(side="user", num_embeddings=10_000),
        "item": SparseFeature(side="item", num_embeddings=10_000),
    },
    tasks={"click": BinaryTask(label="click", mask="shown")},
)
SAMPLING = NegativeSampling("click", 0.25, seed=1)
NUM_ROWS = 4000


def columns() -> dict[str, Any]:
    """Give rows numbered by `item`: every fifth clicked, every seventh not shown."""
    item = np.arange(NUM_ROWS)
    return {"user": item // 8, "item": item, "click": item % 5 == 0, "shown": item % 7 != 0}


def write(folder: Path, layout: str) -> str:
    """Write two files, of 1600 and 2400 rows; grouped, a request has 8."""
    table = pa.table(columns())
    if layout == "grouped":
        offsets = pa.array(np.arange(0, NUM_ROWS + 1, 8), pa.int32())
        lists = {
            name: pa.ListArray.from_arrays(offsets, table[name].combine_chunks())
            for name in ("item", "click", "shown")
        }
        table = pa.table({"user": np.arange(NUM_ROWS // 8), **lists})
    cut = 1600 * len(table) // NUM_ROWS
    pq.write_table(table.slice(0, cut), folder / "a.parquet", row_group_size=64)
    pq.write_table(table.slice(cut), folder / "b.parquet", row_group_size=64)
    return str(folder / "*.parquet")


def reader(files: str, *, layout: Any = "flat", **options: Any) -> LogReader:
    options = {"batch_size": 100, "sampling": SAMPLING, **options}
    return LogReader(files, Decoder(SCHEMA, Transforms(), layout=layout), **options)


def rows(log: LogReader, epoch: int = 0) -> list[int]:
    with log.batches(epoch) as reads:
        return [row for read in reads for row in read.batch.ids["item"].tolist()]  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_about_the_share_of_the_negatives_is_kept_and_all_other_rows(
    tmp_path: Path, layout: str
) -> None:
    log = reader(write(tmp_path, layout), layout=layout)
    kept = np.array(rows(log))
    values = columns()
    negative = values["shown"] & ~values["click"]
    assert np.isin(np.flatnonzero(~negative), kept).all()
    count = negative.sum()
    num_kept = negative[kept].sum()
    # Four standard errors.
    assert abs(num_kept - 0.25 * count) < 4 * (count * 0.25 * 0.75) ** 0.5
    assert log.rows_per_epoch == NUM_ROWS - count + round(0.25 * count)
    assert reader(write(tmp_path, layout), layout=layout, sampling=None).rows_per_epoch == NUM_ROWS


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_neither_order_nor_buffers_nor_ranks_change_what_is_kept(
    tmp_path: Path, layout: str
) -> None:
    files = write(tmp_path, layout)
    as_stored = rows(reader(files, layout=layout))
    assert as_stored == sorted(as_stored)
    shuffled = rows(reader(files, layout=layout, order=Order(seed=3, buffer_rows=320)))
    assert shuffled != as_stored
    assert sorted(shuffled) == as_stored
    ranks = [Order(seed=3, buffer_rows=200, rank=rank, world_size=2) for rank in (0, 1)]
    parts = [rows(reader(files, layout=layout, order=order)) for order in ranks]
    assert sorted(parts[0] + parts[1]) == as_stored
    assert set(rows(reader(files, layout=layout), epoch=1)) != set(as_stored)
    other = replace(SAMPLING, seed=2)
    assert set(rows(reader(files, layout=layout, sampling=other))) != set(as_stored)


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_a_resumed_epoch_goes_on_with_the_same_batches(tmp_path: Path, layout: str) -> None:
    log = reader(write(tmp_path, layout), layout=layout, order=Order(buffer_rows=500))
    with log.batches(epoch=2) as reads:
        everything = list(reads)
    for number in (0, 3, len(everything) - 2):
        with log.batches(2, everything[number].position) as reads:
            rest = list(reads)
        ids = [read.batch.ids["item"].tolist() for read in rest]  # type: ignore[union-attr]
        expected = everything[number + 1 :]
        assert ids == [read.batch.ids["item"].tolist() for read in expected]  # type: ignore[union-attr]
        assert [read.position for read in rest] == [read.position for read in expected]


def test_a_request_keeps_its_rows_together_and_goes_when_all_are_left_out(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(
            {
                "user": [1, 2, 3],
                "item": [[1, 2, 3], [4, 5], [6]],
                "click": [[0, 1, 0], [0, 0], [1]],
                "shown": [[1, 1, 1], [1, 1], [1]],
            }
        ),
        tmp_path / "log.parquet",
    )
    log = reader(
        str(tmp_path / "log.parquet"),
        layout="grouped",
        sampling=NegativeSampling("click", 1e-9, seed=0),
    )
    with log.batches(0) as reads:
        (read,) = reads
    assert read.batch.ids["user"].tolist() == [1, 3]  # type: ignore[union-attr]
    assert read.batch.ids["item"].tolist() == [2, 6]  # type: ignore[union-attr]
    assert read.batch.request_index.tolist() == [0, 1]
    assert read.position == 3
