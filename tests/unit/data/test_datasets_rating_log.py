"""Requests, histories and splits on a log small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.datasets.rating_log import RatingLog, write_rating_log
from rankloom.errors import ConfigError, DataError

DAY = 86_400


def make_log(events: list[tuple[str, str, int, int]]) -> RatingLog:
    """Make a log of (user, item, rating, timestamp)."""
    users = sorted({event[0] for event in events}, reverse=True)
    items = sorted({event[1] for event in events}, reverse=True)
    return RatingLog(
        users=pa.table(
            {
                "user_id": users,
                "age": [20.0 + len(user) for user in users],
                "gender": ["F"] * len(users),
                "occupation": ["writer"] * len(users),
                "zip_code": ["00000"] * len(users),
            }
        ),
        items=pa.table(
            {
                "item_id": items,
                "release_year": pa.array([None] * len(items), pa.int64()),
                "genres": pa.array([[item.upper()] for item in items], pa.list_(pa.string())),
            }
        ),
        user=np.array([users.index(event[0]) for event in events]),
        item=np.array([items.index(event[1]) for event in events]),
        rating=np.array([event[2] for event in events]),
        timestamp=np.array([event[3] for event in events]),
    )


def write(log: RatingLog, folder: Path, split: str = "user_time", max_history: int = 9) -> pa.Table:
    """Write a log and read all splits back, with the split as a column, in order of time."""
    write_rating_log(
        log,
        folder,
        name="tiny",
        split=split,  # type: ignore[arg-type]
        max_history=max_history,
        report=[].append,
    )
    parts = []
    for name in ("train", "valid", "test"):
        part = pq.ParquetFile(folder / name / "part-0.parquet").read()
        parts.append(part.append_column("split", pa.array([name] * len(part), pa.string())))
    keys = [(name, "ascending") for name in ("timestamp", "user_id", "item_id")]
    return pa.concat_tables(parts).sort_by(keys)


# User u: one request at second 10, two ratings at 20, one at 30; user v rates between them.
EVENTS = [("u", "d", 4, 30), ("u", "c", 3, 20), ("v", "a", 2, 20), ("u", "b", 2, 20)]
EVENTS += [("u", "a", 1, 10), ("v", "b", 5, 5)]


def test_rows_of_one_second_share_a_request_and_a_history(tmp_path: Path) -> None:
    table = write(make_log(EVENTS), tmp_path)
    rows = table.select(["user_id", "item_id", "request_id", "history_item_id"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("v", "b", 0, []),
        ("u", "a", 1, []),
        ("u", "b", 2, ["a"]),
        ("u", "c", 2, ["a"]),
        ("v", "a", 3, ["b"]),
        ("u", "d", 4, ["a", "b", "c"]),
    ]


def test_history_columns_are_aligned(tmp_path: Path) -> None:
    newest = write(make_log(EVENTS), tmp_path).to_pylist()[-1]
    assert newest["history_rating"] == [1, 2, 3]
    assert newest["history_time"] == [10, 20, 20]
    assert newest["history_first_event"] == 0


def test_only_the_newest_events_are_kept(tmp_path: Path) -> None:
    table = write(make_log(EVENTS), tmp_path, max_history=2)
    assert table["history_item_id"].to_pylist()[-1] == ["b", "c"]
    assert table["history_first_event"].to_pylist() == [0, 0, 0, 0, 0, 1]
    assert write(make_log(EVENTS), tmp_path, max_history=0)["history_item_id"].to_pylist() == (
        [[]] * 6
    )


def test_attributes_and_types(tmp_path: Path) -> None:
    table = write(make_log(EVENTS), tmp_path)
    assert table.to_pylist()[-1]["genres"] == ["D"]
    strings, integers = pa.list_(pa.string()), pa.list_(pa.int64())
    expected = {
        "user_id": pa.string(), "age": pa.float64(), "gender": pa.string(),
        "occupation": pa.string(), "zip_code": pa.string(), "item_id": pa.string(),
        "release_year": pa.int64(), "genres": strings, "rating": pa.int64(),
        "timestamp": pa.int64(), "hour": pa.int64(), "weekday": pa.int64(),
        "request_id": pa.int64(), "history_item_id": strings, "history_rating": integers,
        "history_time": integers, "history_first_event": pa.int64(), "split": pa.string(),
    }  # fmt: skip
    assert {field.name: field.type for field in table.schema} == (expected)


def test_hour_and_weekday_are_utc(tmp_path: Path) -> None:
    # 20 September 1997, 03:05:38 UTC, was a Saturday; the day after began at 874800000.
    table = write(make_log([("u", "a", 1, 874724738), ("u", "b", 1, 874800000)]), tmp_path)
    assert table["hour"].to_pylist() == [3, 0]
    assert table["weekday"].to_pylist() == [5, 6]


def test_user_time_cuts_each_user_by_rows(tmp_path: Path) -> None:
    events = [(user, f"i{n}", 3, n * DAY) for user in "uv" for n in range(10)]
    table = write(make_log(events), tmp_path)
    for user in "uv":
        splits = [row["split"] for row in table.to_pylist() if row["user_id"] == user]
        assert splits == ["train"] * 8 + ["valid", "test"]


def test_no_request_is_cut(tmp_path: Path) -> None:
    # Of 10 rows the cut falls into the request of rows 6 to 8; its middle is before row 8.
    events = [("u", f"i{n}", 3, n if n < 6 else 6 + (n == 9)) for n in range(10)]
    assert write(make_log(events), tmp_path)["split"].to_pylist() == ["train"] * 9 + ["test"]
    one_request = [("u", f"i{n}", 3, 7) for n in range(10)]
    assert set(write(make_log(one_request), tmp_path)["split"].to_pylist()) == {"train"}


def test_global_time_reports_the_cold_share(tmp_path: Path) -> None:
    events = [("old", f"i{n}", 3, n) for n in range(9)] + [("new", "i0", 3, 9)]
    lines: list[str] = []
    prepared = write_rating_log(
        make_log(events),
        tmp_path,
        name="tiny",
        split="global_time",
        max_history=3,
        report=lines.append,
    )
    assert prepared.rows == {"train": 8, "valid": 1, "test": 1}
    assert lines == list(prepared.notes)
    assert "cold share: 100.0%" in lines[-1]


def test_bad_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Got 'random'"):
        write(make_log(EVENTS), tmp_path, split="random")
    with pytest.raises(ConfigError, match="Got -1"):
        write(make_log(EVENTS), tmp_path, max_history=-1)


def test_unwritable_folder_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/train"):
        write(make_log(EVENTS), tmp_path / "file")


def test_failed_run_leaves_no_split_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(make_log(EVENTS), tmp_path)

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("rankloom.data.atomic.pq.write_table", full_disk)
    with pytest.raises(DataError, match="no space left"):
        write(make_log(EVENTS), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
