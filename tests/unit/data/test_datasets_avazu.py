"""Avazu from files in the official layout that the test writes, and from the sample at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import local_folder, prepare_dataset
from rankloom.data.datasets.avazu import prepare_avazu
from rankloom.errors import ConfigError, DataError

HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,"
    "device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
)
ROW = (
    "10000169349117863715,0,14102107,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,"
    "a99f214a,ddd2926e,44956a24,1,2,15706,320,50,1722,0,35,-1,79\n"
)


def row(click: int, hour: str, device: int = 0) -> str:
    return ROW.replace(",0,14102107,", f",{click},{hour},", 1).replace("ddd2926e", f"{device:08x}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "avazu"
    made.mkdir()
    rng = np.random.default_rng(0)
    days = [21 + n // 50 for n in range(500)]
    rows = [
        row(int(n % 5 == 0), f"1410{day}{n % 24:02}", rng.integers(9)) for n, day in enumerate(days)
    ]
    (made / "train.csv").write_text(HEADER + "".join(rows))
    return made


def read(folder: Path, split: str) -> pa.Table:
    return pq.ParquetFile(folder / split / "part-0.parquet").read()


def test_time_becomes_hour_weekday_and_second(folder: Path, tmp_path: Path) -> None:
    (folder / "train.csv").write_text(HEADER + ROW * 60)
    prepare_avazu(tmp_path / "out", report=lambda _: None)
    table = read(tmp_path / "out", "test")
    assert set(table.column_names) == (set(HEADER.strip().split(",")) - {"id"}) | {
        "weekday", "timestamp"
    }  # fmt: skip
    first = table.to_pylist()[0]
    # 21 October 2014 was a Tuesday; 1413849600 is its first second.
    assert (first["hour"], first["weekday"]) == (7, 1)
    assert first["timestamp"] == 1413849600 + 7 * 3600
    assert (first["C20"], first["C21"], first["site_id"]) == (-1, 79, "1fbe01fe")


def test_split_by_time_cuts_between_days(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_avazu(tmp_path / "out", split="time", report=lambda _: None)
    assert prepared.rows == {"train": 400, "valid": 50, "test": 50}
    assert "test 30 October" in prepared.notes[0]
    days = [set((read(tmp_path / "out", s)["timestamp"].to_numpy() // 86400) - 16364) for s in
            prepared.rows]  # fmt: skip
    # Day 16364 was 21 October 2014.
    assert days == [set(range(8)), {8}, {9}]


def test_split_by_draw_is_the_default(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_avazu(tmp_path / "out", report=lambda _: None)
    assert sum(prepared.rows.values()) == 500
    assert prepared.rows["train"] == pytest.approx(400, abs=30)
    assert "drawn 8:1:1 (seed 0)" in prepared.notes[0]


def test_unknown_split_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.split.*Got 'user'.*random, time"):
        prepare_dataset("avazu", tmp_path / "out", {"split": "user"}, report=print)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEADER.replace("device_ip", "ip") + ROW, "has no column device_ip. Got id, click"),
        (HEADER + ROW + ROW.replace(",79", ""), "line 3 must have 24 columns. Got 23"),
        (
            HEADER + ROW + ROW.replace(",1005,", ",x,"),
            r"line 3: column C1 must be int64. Got .*'x'",
        ),
        (HEADER + ROW + row(0, "14132107"), "line 3: hour must read YYMMDDHH. Got 14132107"),
        (HEADER + ROW + row(0, "14102124"), "line 3: hour must read YYMMDDHH. Got 14102124"),
        (HEADER + ROW + row(0, ""), "line 3: hour must read YYMMDDHH. Got nothing"),
        (HEADER + ROW + row(3, "14102107"), "line 3: click must be 0 or 1. Got 3"),
        (HEADER + ROW, "would have no row"),
    ],
)
def test_bad_files_are_refused(folder: Path, tmp_path: Path, text: str, problem: str) -> None:
    (folder / "train.csv").write_text(text)
    with pytest.raises(DataError, match=problem):
        prepare_avazu(tmp_path / "out", report=print)


def test_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_avazu(tmp_path / "out", report=lambda _: None)
    tasks = train_recipe(
        "avazu_rankmixer.yaml",
        tmp_path / "out",
        tmp_path / "run",
        {"model.interaction.num_layers": 1},
    )
    assert tasks["click"].num_rows == prepared.rows["test"]
    assert 0 < tasks["click"].metrics["auc"] < 1


def test_real_sample_keeps_its_split(tmp_path: Path) -> None:
    if local_folder("criteo_avazu_small") is None or local_folder("avazu") is not None:
        pytest.skip("needs criteo_avazu_small, and no avazu, in $RANKLOOM_DATA")
    prepared = prepare_avazu(tmp_path, report=lambda _: None)
    assert prepared.rows == {"train": 8087, "valid": 480, "test": 432}
    table = pa.concat_tables([read(tmp_path, split) for split in prepared.rows])
    assert table["click"].to_numpy().mean() == pytest.approx(0.174, abs=5e-4)
    assert table["timestamp"].unique().to_pylist() == [1413849600]
