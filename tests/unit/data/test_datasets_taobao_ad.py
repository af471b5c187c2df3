"""Ali display advertising, as generated files of the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import taobao_ad
from rankloom.data.datasets.taobao_ad import prepare_taobao_ad
from rankloom.errors import DataError

SPLITS = ("train", "valid", "test")
# 2017-05-06, 00:00 in Beijing, a Saturday.
START = 1_494_000_000
HOUR, DAY = 3600, 86_400

FILES = {
    "raw_sample": "user,time_stamp,adgroup_id,pid,nonclk,clk",
    "ad_feature": "adgroup_id,cate_id,campaign_id,customer,brand,price",
    # The published header ends in a blank.
    "user_profile": "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    "shopping_level,occupation,new_user_class_level ",
    "behavior_log": "user,time_stamp,btag,cate,brand",
}
ROWS = {
    "raw_sample": [
        f"1,{START + HOUR},10,430548_1007,1,0",
        f"1,{START + HOUR},11,430548_1007,0,1",
        f"2,{START + 6 * DAY},10,430539_1007,1,0",
        f"1,{START + 7 * DAY},99,430539_1007,1,0",
    ],
    "ad_feature": ["10,5,100,1000,NULL,9.9", "11,6,101,1001,7,19.0"],
    "user_profile": ["1,0,5,2,5,,3,0,3", "3,0,5,2,5,2,3,0,"],
    "behavior_log": [
        f"1,{START + HOUR},buy,9,9",
        f"1,{START + HOUR - 1},cart,5,7",
        f"2,{START + DAY},fav,6,NULL",
        f"1,{START - 60},pv,5,8",
        f"1,{START + 9 * DAY},pv,4,4",
    ],
}


def write(folder: Path, **changed: list[str]) -> None:
    for name, header in FILES.items():
        lines = [header, *(ROWS | changed)[name]]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "taobao_ad"
    made.mkdir()
    write(made)
    return made


def prepare(to: Path, **options: int) -> dict[str, pa.Table]:
    prepare_taobao_ad(to, report=lambda _: None, **options)
    return {split: pq.ParquetFile(to / split / "part-0.parquet").read() for split in SPLITS}


def test_splits_are_days_in_beijing(folder: Path, tmp_path: Path) -> None:
    seconds = {"train": (0, 6 * DAY - 1), "valid": (6 * DAY, 7 * DAY - 1), "test": (7 * DAY,)}
    write(
        folder,
        raw_sample=[f"1,{START + at},10,p,1,0" for times in seconds.values() for at in times],
    )
    tables = prepare(tmp_path / "out")
    found = {split: (tables[split]["timestamp"].to_numpy() - START).tolist() for split in SPLITS}
    assert found == {split: list(times) for split, times in seconds.items()}
    assert tables["train"]["hour"].to_pylist() == [0, 23]
    assert tables["train"]["weekday"].to_pylist() == [5, 3]


def test_only_behaviour_strictly_before_the_row_enters_its_history(
    folder: Path, tmp_path: Path
) -> None:
    tables = prepare(tmp_path / "out")
    rows = tables["train"].to_pylist()
    # The purchase of the row's own second is not in it, nor is what other users did.
    for row in rows:
        assert row["history_btag"] == ["pv", "cart"]
        assert row["history_cate"] == [5, 5]
        assert row["history_brand"] == [8, 7]
        assert row["history_time"] == [START - 60, START + HOUR - 1]
    assert tables["valid"]["history_brand"].to_pylist() == [[None]]
    assert tables["test"]["history_btag"].to_pylist() == [["pv", "cart", "buy"]]


def test_the_newest_behaviour_is_kept(folder: Path, tmp_path: Path) -> None:
    row = prepare(tmp_path / "out", max_history=1)["test"].to_pylist()[0]
    assert (row["history_btag"], row["history_first_event"]) == (["buy"], 2)


def test_attributes_are_joined_and_what_is_unknown_is_null(folder: Path, tmp_path: Path) -> None:
    tables = prepare(tmp_path / "out")
    first, second = tables["train"].to_pylist()
    assert (first["cate_id"], first["brand"], first["price"], first["clk"]) == (5, None, 9.9, 0)
    assert (second["cate_id"], second["brand"], second["price"], second["clk"]) == (6, 7, 19.0, 1)
    assert (first["age_level"], first["pvalue_level"], first["new_user_class_level"]) == (
        5,
        None,
        3,
    )
    assert first["request_id"] == second["request_id"]
    (test,) = tables["test"].to_pylist()
    assert (test["cate_id"], test["age_level"]) == (None, 5)
    assert tables["valid"]["age_level"].to_pylist() == [None]


def test_the_number_of_parts_changes_no_row(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(count: int) -> list[tuple[object, ...]]:
        monkeypatch.setattr(taobao_ad, "count_partitions", lambda _: count)
        tables = prepare(tmp_path / "out").values()
        requests = [value for table in tables for value in table["request_id"].to_pylist()]
        assert sorted(map(requests.count, requests)) == [1, 1, 2, 2]
        listed = [row for table in tables for row in table.drop("request_id").to_pylist()]
        return sorted(str(row.values()) for row in listed)

    assert rows(1) == rows(4)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("raw_sample", f"x,{START},10,p,1,0", "line 6: column user must be int64"),
        ("raw_sample", f"1,{START},10,p,1,2", "line 6: clk must be 0 or 1"),
        ("ad_feature", "12,,1,1,1,1", "line 4: cate_id must not be empty"),
        ("user_profile", "4,a,5,2,5,,3,0,3", "line 4: column cms_segid must be int64"),
        ("behavior_log", f"1,{START},pv,5", "line 7 must have 5 columns"),
    ],
)
def test_a_bad_file_is_refused(
    folder: Path, tmp_path: Path, name: str, line: str, message: str
) -> None:
    write(folder, **{name: [*ROWS[name], line]})
    with pytest.raises(DataError, match=rf"{name}\.csv: {message}.*tianchi"):
        prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_absent_files_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "behavior_log.csv").unlink()
    with pytest.raises(DataError, match=r"holds none of behavior_log\.csv"):
        prepare(tmp_path / "out")
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"taobao_ad is absent"):
        prepare(tmp_path / "out")


def test_the_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0).integers
    write(
        folder,
        raw_sample=[
            f"{draw(9)},{START + draw(8 * DAY)},{draw(5)},p{draw(2)},{n % 2},{1 - n % 2}"
            for n in range(300)
        ],
        ad_feature=[f"{n},{n % 3},{n},{n},{n % 2},{n + 0.5}" for n in range(5)],
        behavior_log=[
            f"{draw(9)},{START + draw(8 * DAY)},pv,{draw(3)},{draw(2)}" for n in range(300)
        ],
    )
    tables = prepare(tmp_path / "out")
    tasks = train_recipe("taobao_ad_dcn_v2.yaml", tmp_path / "out", tmp_path / "run")
    assert {name: found.num_rows for name, found in tasks.items()} == {"click": len(tables["test"])}
