"""Frappe from a folder that the test writes, and from the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.datasets import local_folder
from rankloom.data.datasets.frappe import prepare_frappe
from rankloom.errors import DataError

HEADER = "label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city\r\n"
ROW = "1,64,3973,5043,5047,5053,5055,5058,5061,5069,5149\r\n"
NAMES = {
    "train": "frappe_x1_train_rebuilt.csv.zst",
    "valid": "frappe_x1_valid.csv.zst",
    "test": "frappe_x1_test.csv.zst",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "frappe"
    made.mkdir()
    for number, name in enumerate(NAMES.values()):
        put(made / name, HEADER + ROW * (number + 1) + ROW.replace("1", "0", 1))
    return made


def put(path: Path, text: str) -> None:
    compression = "zstd" if path.suffix == ".zst" else None
    with pa.output_stream(str(path), compression=compression) as stream:
        stream.write(text.encode())


def test_rows_keep_their_ids(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_frappe(tmp_path / "out", report=lambda _: None)
    assert prepared.rows == {"train": 2, "valid": 3, "test": 4}
    table = pq.ParquetFile(tmp_path / "out" / "train" / "part-0.parquet").read()
    assert table.column_names == HEADER.strip().split(",")
    assert set(table.schema.types) == {pa.int64()}
    assert table.to_pylist()[0]["city"] == 5149
    assert table["label"].to_pylist() == [1, 0]


def test_rebuilt_training_rows_are_noted(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    prepared = prepare_frappe(tmp_path / "out", report=lines.append)
    assert lines == list(prepared.notes)
    assert lines[0] == "Frappe_x1 test split, rebuilt training negatives"
    assert lines[1] == "frappe train: 2 rows, 50.00% positive"


def test_official_training_file_is_preferred(folder: Path, tmp_path: Path) -> None:
    put(folder / "train.csv", HEADER + ROW * 9)
    prepared = prepare_frappe(tmp_path / "out", report=lambda _: None)
    assert prepared.rows["train"] == 9
    assert not any("rebuilt" in note for note in prepared.notes)


def test_absent_data_say_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / NAMES["test"]).unlink()
    with pytest.raises(DataError, match=r"holds none of test\.csv.*huggingface.*reczoo/Frappe_x1"):
        prepare_frappe(tmp_path / "out", report=print)
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"is absent.*forbid.*huggingface"):
        prepare_frappe(tmp_path / "out", report=print)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEADER + ROW.replace("64", "x"), "no table of integers"),
        (HEADER.replace("city", "town") + ROW, "no column city"),
        (HEADER + ROW.replace("1", "7", 1), r"other labels \[7\]"),
        (HEADER, "Got 0 rows"),
        (HEADER + ROW.replace("64", ""), "every cell filled"),
    ],
)
def test_damaged_files_are_refused(folder: Path, tmp_path: Path, text: str, problem: str) -> None:
    put(folder / NAMES["valid"], text)
    with pytest.raises(DataError, match=rf"frappe_x1_valid\.csv\.zst.*{problem}"):
        prepare_frappe(tmp_path / "out", report=print)
    assert not (tmp_path / "out").exists()


def test_real_data_have_the_published_counts(tmp_path: Path) -> None:
    if local_folder("frappe") is None:
        pytest.skip("needs frappe in $RANKLOOM_DATA")
    prepared = prepare_frappe(tmp_path, report=lambda _: None)
    # The counts of BARS' Frappe_x1.
    assert prepared.rows == {"train": 202_027, "valid": 57_722, "test": 28_860}
    parts = [pq.ParquetFile(tmp_path / split / "part-0.parquet").read() for split in prepared.rows]
    table = pa.concat_tables(parts)
    assert len(table["user"].unique()) == 957
    assert len(table["item"].unique()) == 4082
