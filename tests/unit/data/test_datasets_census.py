"""Census-Income from a folder that the test writes, and from the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.datasets import local_folder
from rankloom.data.datasets.census import prepare_census
from rankloom.errors import ConfigError, DataError


def fake(num_rows: int, **changes: list[object]) -> pa.Table:
    numbers = range(num_rows)
    columns: dict[str, object] = {
        "age": pa.array(numbers, pa.int32()),
        "marital stat": ["Never married" if n % 2 else "Widowed" for n in numbers],
        "instance weight": [1.5] * num_rows,
        "fill inc questionnaire for veteran's admin": pa.array(
            ["No"] * num_rows, pa.large_string()
        ),
        "migration code-change in msa": ["?"] * num_rows,
        "income": ["50000+." if n % 4 == 0 else "- 50000." for n in numbers],
    }
    columns |= {f"other {place}": ["x"] * num_rows for place in range(36)}
    return pa.table(columns | changes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "census_income"
    made.mkdir()
    pq.write_table(fake(100), made / "census_income_train.parquet")
    pq.write_table(fake(8), made / "census_income_test.parquet")
    return made


def read(folder: Path, split: str) -> pa.Table:
    return pq.ParquetFile(folder / split / "part-0.parquet").read()


def test_columns_and_labels(folder: Path, tmp_path: Path) -> None:
    prepare_census(tmp_path / "out", report=lambda _: None)
    table = read(tmp_path / "out", "test")
    assert table["income"].to_pylist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert table["never_married"].to_pylist() == [0, 1] * 4
    assert table["instance_weight"].to_pylist() == [1.5] * 8
    assert "marital_stat" not in table.column_names
    assert table.schema.field("age").type == pa.float64()
    assert table.schema.field("fill_inc_questionnaire_for_veterans_admin").type == pa.string()
    assert table.schema.field("migration_code_change_in_msa").type == pa.string()
    assert len(table.column_names) == 42


def test_validation_rows_are_split_off_by_the_seed(folder: Path, tmp_path: Path) -> None:
    def ages(seed: int) -> tuple[list[float], list[float]]:
        prepared = prepare_census(tmp_path / "out", seed=seed, report=lambda _: None)
        assert prepared.rows == {"train": 90, "valid": 10, "test": 8}
        parts = [read(tmp_path / "out", split)["age"].to_pylist() for split in ("train", "valid")]
        return parts[0], parts[1]

    train, valid = ages(0)
    assert sorted(train + valid) == list(range(100))
    assert train == sorted(train)
    assert ages(0) == (train, valid)
    assert ages(1) != (train, valid)


def test_shares_are_reported(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    prepared = prepare_census(tmp_path / "out", report=lines.append)
    assert lines == list(prepared.notes)
    assert lines[2] == "census test: 8 rows, income 25.00%, never married 50.00%"


def test_absent_data_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"census_income is absent.*archive\.ics\.uci\.edu"):
        prepare_census(tmp_path / "out", report=print)


def test_damaged_files_are_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "census_income_test.parquet"
    pq.write_table(fake(2, income=["50000+.", "rich"]), path)
    with pytest.raises(DataError, match=r"income must be one of.*1 rows"):
        prepare_census(tmp_path / "out", report=print)
    pq.write_table(fake(2).drop_columns(["marital stat"]), path)
    with pytest.raises(DataError, match=r"must have 42 columns.*Got 41"):
        prepare_census(tmp_path / "out", report=print)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        prepare_census(tmp_path / "out", report=print)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_share_outside_zero_and_one_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match=f"Got {share}"):
        prepare_census(tmp_path, valid_share=share, report=print)


def test_real_data_have_the_published_counts(tmp_path: Path) -> None:
    if local_folder("census_income") is None:
        pytest.skip("needs census_income in $RANKLOOM_DATA")
    prepared = prepare_census(tmp_path, report=lambda _: None)
    assert prepared.rows == {"train": 179_571, "valid": 19_952, "test": 99_762}
    assert read(tmp_path, "test")["income"].to_numpy().mean() == pytest.approx(0.0620, abs=5e-5)
