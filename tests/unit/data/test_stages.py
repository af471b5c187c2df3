from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data import stages
from rankloom.data.order import Order
from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.stages import STAGES, TOGETHER, StageTimes, time_stages
from rankloom.data.transforms import Transforms
from rankloom.schema import BinaryTask, Schema, SparseFeature

SCHEMA = Schema(
    {"item": SparseFeature(side="item", num_embeddings=5000)},
    tasks={"click": BinaryTask(label="click")},
)


def reader(folder: Path, *, layout: str = "flat", buffer_rows: int = 400) -> LogReader:
    items, clicks = np.arange(1800), np.arange(1800) % 2
    columns = {"item": pa.array(items), "click": pa.array(clicks)}
    if layout == "grouped":
        offsets = pa.array([0, 0, *range(3, 1801, 3)], pa.int32())
        columns = {name: pa.ListArray.from_arrays(offsets, c) for name, c in columns.items()}
    pq.write_table(pa.table(columns), folder / "a.parquet", row_group_size=100)
    decoder = Decoder(SCHEMA, Transforms(), layout=layout)  # type: ignore[arg-type]
    order = Order(buffer_rows=buffer_rows)
    return LogReader(folder / "a.parquet", decoder, batch_size=64, order=order)


@pytest.mark.parametrize("layout", ["flat", "grouped"])
@pytest.mark.parametrize("buffer_rows", [400, 10_000])
def test_each_stage_is_timed_in_each_turn(tmp_path: Path, layout: str, buffer_rows: int) -> None:
    times = time_stages(reader(tmp_path, layout=layout, buffer_rows=buffer_rows), seconds=0.01)
    assert set(times.rows_per_s) == {*STAGES, TOGETHER}
    assert {len(rates) for rates in times.rows_per_s.values()} == {3}
    assert all(rate > 0 for rates in times.rows_per_s.values() for rate in rates)


def test_a_slow_stage_is_seen_to_be_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Decoder.decode

    def slow(self: Decoder, batch: pa.RecordBatch, origin: stages.Origin) -> stages.Block:
        stages.time.sleep(0.002 * len(batch) / 100)
        return real(self, batch, origin)

    monkeypatch.setattr(Decoder, "decode", slow)
    times = time_stages(reader(tmp_path), seconds=0.01)
    assert times.limit() == "transform"
    assert times.median("transform") < 50_000
    assert times.median(TOGETHER) < 50_000


@pytest.mark.parametrize(
    ("decode", "transform", "batch", "limit"),
    [
        # Rows a second. Transform and batch share a thread: together 50 a second, then 33.
        (40, 100, 100, "decode"),
        (40, 50, 100, "transform"),
        (40, 100, 50, "batch"),
    ],
)
def test_the_limit_is_the_slower_thread(
    decode: float, transform: float, batch: float, limit: str
) -> None:
    rates = {"decode": [decode], "transform": [transform], "batch": [batch], TOGETHER: [30.0]}
    assert StageTimes(rates).limit() == limit


def test_buffers_shrink_where_a_turn_would_take_long(tmp_path: Path) -> None:
    assert time_stages(reader(tmp_path), seconds=60e-9).buffer_rows == 64
