"""Splits that are written piece by piece."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.datasets.split_writer import writing_splits
from rankloom.errors import DataError


def batch(*labels: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"label": pa.array(labels, pa.int64())})


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_and_fail(folder: Path) -> None:
    with writing_splits(folder, ("train", "test")) as writer:
        (writer.scratch / "file").write_text("")
        writer.write("train", batch(*range(100_000)))
        raise ZeroDivisionError


def test_pieces_become_row_groups_in_their_order(tmp_path: Path) -> None:
    with writing_splits(tmp_path, ("train",), sums=("label",), row_group_rows=4) as writer:
        for first in range(0, 9, 3):
            writer.write("train", batch(first, first + 1, first + 2))
    header = pq.read_metadata(tmp_path / "train" / "part-0.parquet")
    assert [header.row_group(n).num_rows for n in range(header.num_row_groups)] == [4, 4, 1]
    found = pq.ParquetFile(tmp_path / "train" / "part-0.parquet").read()
    assert found["label"].to_pylist() == list(range(9))
    assert writer.rows == {"train": 9}


def test_rows_of_a_grouped_log_are_the_entries_of_its_lists(tmp_path: Path) -> None:
    with writing_splits(tmp_path, ("train",), sums=("click",)) as writer:
        writer.write("train", pa.RecordBatch.from_pydict({"click": [[0, 1, 0], [1]]}))
    assert writer.rows == {"train": 4}
    assert writer.notes("x") == ["x train: 2 requests, 4 rows, click 50.00% (2)"]


def test_nothing_changes_when_the_block_fails(tmp_path: Path) -> None:
    with writing_splits(tmp_path, ("train", "test")) as writer:
        writer.write("train", batch(1))
        writer.write("test", batch(2))
    before = files_under(tmp_path)
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path)
    assert files_under(tmp_path) == before == ["test/part-0.parquet", "train/part-0.parquet"]
    assert pq.read_metadata(tmp_path / "train" / "part-0.parquet").num_rows == 1


def test_empty_split_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"test: would have no row"),
        writing_splits(tmp_path, ("train", "test")) as writer,
    ):
        writer.write("train", batch(1))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="cannot be written"),
        writing_splits(tmp_path / "file" / "out", ("train",)),
    ):
        pass
