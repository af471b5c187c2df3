"""Which events a row's history holds, and tables divided by a key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.datasets.histories import Histories
from rankloom.data.datasets.partitions import Partitions, count_partitions, left_join
from rankloom.errors import ConfigError

# User 7 at seconds 1 to 4, out of order, and user 3 between them.
EVENT_USER = np.array([7, 3, 7, 7, 3, 7])
EVENT_TIME = np.array([3, 2, 1, 4, 9, 3])
NAMES = ["c", "x", "a", "e", "y", "d"]


def histories(rows: list[tuple[int, int]], max_history: int = 9) -> list[list[str]]:
    made = Histories(
        np.array([user for user, _ in rows]),
        np.array([time for _, time in rows]),
        events=pa.table({"name": NAMES}),
        event_user=EVENT_USER,
        event_time=EVENT_TIME,
        max_history=max_history,
    )
    return made.columns(np.arange(len(rows)))["history_name"].to_pylist()


def test_only_events_strictly_before_the_row_are_in_its_history() -> None:
    rows = [(7, 3), (7, 4), (7, 5), (3, 2), (3, 3), (7, 1), (8, 99), (1, 99)]
    wanted = [["a"], list("acd"), list("acde"), [], ["x"], [], [], []]
    assert histories(rows) == wanted


@pytest.mark.parametrize("seed", range(3))
def test_no_event_of_the_row_s_second_or_later_and_no_other_user_s_enters(seed: int) -> None:
    generator = np.random.default_rng(seed)
    event_user, event_time = generator.integers(0, 5, 200), generator.integers(-9, 30, 200)
    row_user, row_time = generator.integers(0, 6, 80), generator.integers(-9, 31, 80)
    made = Histories(
        row_user,
        row_time,
        events=pa.table({"user": event_user, "time": event_time}),
        event_user=event_user,
        event_time=event_time,
        max_history=4,
    ).columns(np.arange(80))
    for row in range(80):
        times = made["history_time"][row].as_py()
        older = np.sort(event_time[(event_user == row_user[row]) & (event_time < row_time[row])])
        assert times == older[-4:].tolist()
        assert set(made["history_user"][row].as_py()) <= {row_user[row]}
        assert made["history_first_event"][row].as_py() == max(len(older) - 4, 0)


def test_the_newest_events_are_kept() -> None:
    assert histories([(7, 5)], max_history=2) == [["d", "e"]]
    assert histories([(7, 5)], max_history=0) == [[]]
    with pytest.raises(ConfigError, match="Got -1"):
        histories([(7, 5)], max_history=-1)


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_parts_hold_all_rows_of_their_keys_in_order(tmp_path: Path, kind: pa.DataType) -> None:
    pieces = [
        pa.record_batch({"key": pa.array([n % 7 for n in numbers]).cast(kind), "n": list(numbers)})
        for numbers in (range(50), range(50, 100))
    ]
    parts = list(Partitions(tmp_path / "parts", key="key", count=3).fill(iter(pieces)))
    assert sum(map(len, parts)) == 100
    assert sum(len(part) > 0 for part in parts) > 1
    seen: set[object] = set()
    for part in parts:
        assert seen.isdisjoint(part["key"].to_pylist())
        seen |= set(part["key"].to_pylist())
        assert (np.diff(part["n"].to_numpy()) > 0).all()


def test_a_join_keeps_rows_without_a_match() -> None:
    table = pa.table({"ad": [3, 1, 2, 1]})
    other = pa.table({"id": [1, 2], "price": [0.5, 0.7]})
    joined = left_join(table, other, key="ad", other_key="id")
    assert joined.to_pydict() == {"ad": [3, 1, 2, 1], "price": [None, 0.5, 0.7, 0.5]}


def test_the_number_of_parts_follows_the_size_of_the_text(tmp_path: Path) -> None:
    path, packed = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    for each in (path, packed):
        with each.open("wb") as file:
            file.truncate(1 << 28)
    assert count_partitions([path]) == 5
    assert count_partitions([packed]) == 21
    assert count_partitions([packed] * 100) == 256
