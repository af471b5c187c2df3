from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.files import LogFiles, RowGroup
from rankloom.data.order import Order, lines_per_buffer, order_in_buffer, stream_of


def log_of(groups: list[tuple[int, int]], folder: Path) -> LogFiles:
    """Make a log of row groups that have (lines, rows)."""
    pq.write_table(pa.table({"x": [1]}), folder / "x.parquet")
    metadata = pq.read_metadata(folder / "x.parquet")
    made = [
        RowGroup(
            path=folder / "x.parquet",
            metadata=metadata,
            number=number,
            first_line=0,
            num_lines=lines,
            num_rows=rows,
        )
        for number, (lines, rows) in enumerate(groups)
    ]
    return LogFiles((folder / "x.parquet",), tuple(made))


def shares(log: LogFiles, world_size: int) -> list[list[tuple[int, int, int]]]:
    found = []
    for rank in range(world_size):
        order = Order(shuffle=False, rank=rank, world_size=world_size)
        segments = stream_of(log, order, epoch=0).segments
        found.append([(s.group.number, s.start, s.stop) for s in segments])
    return found


def test_ranks_are_balanced_by_rows_and_not_by_requests(tmp_path):
    log = log_of([(10, 100), (10, 10), (10, 10)], tmp_path)
    # 120 rows: 60 for each, which is the first six of the long requests.
    assert shares(log, 2) == [[(0, 0, 6)], [(0, 6, 10), (1, 0, 10), (2, 0, 10)]]


def test_a_rank_may_have_nothing(tmp_path):
    given = shares(log_of([(2, 2)], tmp_path), 3)
    assert [line for share in given for _, a, b in share for line in range(a, b)] == [0, 1]


def test_a_buffer_has_about_so_many_rows(tmp_path):
    assert lines_per_buffer(log_of([(10, 100), (10, 20)], tmp_path), Order(buffer_rows=30)) == 5
    assert lines_per_buffer(log_of([(2, 100)], tmp_path), Order(buffer_rows=3)) == 1


def test_each_buffer_of_each_rank_and_epoch_has_its_own_order():
    orders = {
        tuple(order_in_buffer(order, epoch=epoch, buffer=buffer, num_lines=20))
        for order in (Order(seed=1), Order(seed=2), Order(seed=1, rank=1, world_size=2))
        for epoch in (0, 1)
        for buffer in (0, 1)
    }
    assert len(orders) == 12
    assert all(sorted(order) == list(range(20)) for order in orders)


def test_without_shuffling_lines_stay_where_they_are():
    order = order_in_buffer(Order(shuffle=False), epoch=3, buffer=1, num_lines=4)
    assert np.array_equal(order, [0, 1, 2, 3])


def test_a_rank_beyond_the_world_is_refused():
    with pytest.raises(ValueError, match=r"rank must be below world_size=2"):
        Order(rank=2, world_size=2)
