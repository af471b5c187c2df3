"""KuaiRand, as generated files of the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import kuairand
from rankloom.data.datasets.kuairand import prepare_kuairand
from rankloom.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test", "random")
# 2022-04-08, 00:00 in Beijing, a Friday.
START = 1_649_347_200
DAY = 86_400

LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    "friend_user_num_range,register_days,register_days_range,"
    + ",".join(f"onehot_feat{number}" for number in range(18))
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag"
)
USER_LINES = [
    f"{user},full_active,0,0,1,5,\"(0,10]\",312,\"[100,1k)\",0,0,3624,730+,"
    + ",".join(["1", "2", "", "1153", "4.0", *["0"] * 13])
    for user in range(1, 5)
]  # fmt: skip
VIDEO_LINES = [
    '10,100,NORMAL,2022-04-10,LongImport,1,87433.0,720,1280,9155697141.0,9.0,"12,65"',
    "11,101,AD,2022-04-01,Web,1,,720,1280,,,",
]


def shown(
    user: int, video: int, second: int, *, click: int = 0, is_rand: int = 0, tab: int = 1
) -> str:
    """Give a line of a log; `second` counts from 8 April, 00:00 in Beijing."""
    date = int(
        np.datetime64(START + 8 * 3600 + second, "s").astype("M8[D]").astype(str).replace("-", "")
    )
    time_ms = (START + second) * 1000 + 301
    return (
        f"{user},{video},{date},400,{time_ms},{click},0,0,0,0,0,{click},1385,209900,0,0,0,"
        f"{is_rand},{tab}"
    )


# User 1 clicks at seconds 100 and 200; what the others see falls between.
LINES = {
    "log_standard_4_08_to_4_21": [
        shown(1, 10, 200, click=1),
        shown(1, 11, 100, click=1, tab=4),
        shown(1, 11, 150),
        shown(2, 10, 120, click=1),
        shown(1, 12, 200, click=1),
    ],
    "log_standard_4_22_to_5_08": [shown(1, 10, 14 * DAY), shown(2, 11, 21 * DAY)],
    "log_random_4_22_to_5_08": [shown(2, 11, 20 * DAY, click=1, is_rand=1)],
}


def write(folder: Path, *, variant: str = "pure", part: str = "", **changed: list[str]) -> None:
    for name, lines in (LINES | changed).items():
        end = part if name.startswith("log_standard") else ""
        (folder / f"{name}_{variant}{end}.csv").write_text("\n".join([LOG, *lines]) + "\n")
    (folder / f"user_features_{variant}.csv").write_text("\n".join([USERS, *USER_LINES]))
    (folder / f"video_features_basic_{variant}.csv").write_text("\n".join([VIDEOS, *VIDEO_LINES]))
    # Never read: it tells the labels.
    (folder / f"video_features_statistic_{variant}.csv").write_text("damaged")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "kuairand"
    (made / "data").mkdir(parents=True)
    return made


def prepare(to: Path, **options: object) -> dict[str, list[dict[str, object]]]:
    prepared = prepare_kuairand(to, report=lambda _: None, **options)  # type: ignore[arg-type]
    return {
        split: pq.ParquetFile(to / split / "part-0.parquet").read().to_pylist()
        for split in prepared.rows
    }


def test_splits_are_days_and_the_random_log_stands_apart(folder: Path, tmp_path: Path) -> None:
    write(
        folder,
        log_standard_4_22_to_5_08=[
            shown(1, 10, (14 + day) * DAY + second)
            for day, second in ((0, 0), (6, DAY - 1), (7, 0), (16, 5))
        ],
    )
    rows = prepare(tmp_path / "out")
    found = {split: [row["timestamp"] - START for row in rows[split]] for split in rows}
    assert found == {
        "train": [100, 120, 150, 200, 200],
        "valid": [14 * DAY, 21 * DAY - 1],
        "test": [21 * DAY, 30 * DAY + 5],
        "random": [20 * DAY],
    }
    assert [row["is_rand"] for row in rows["random"]] == [1]
    assert (rows["train"][0]["hour"], rows["train"][0]["weekday"]) == (0, 4)


def test_only_clicks_strictly_before_the_row_enter_its_history(
    folder: Path, tmp_path: Path
) -> None:
    write(folder)
    rows = prepare(tmp_path / "out")
    found = [(row["video_id"], row["history_video_id"]) for row in rows["train"]]
    # Of the two clicks of second 200 neither is in the other's history.
    assert found == [(11, []), (10, []), (11, [11]), (10, [11]), (12, [11])]
    (valid,) = rows["valid"]
    assert valid["history_video_id"] == [11, 10, 12]
    assert valid["history_author_id"] == [101, 100, None]
    assert valid["history_tab"] == [4, 1, 1]
    assert valid["history_time"] == [START + 100, START + 200, START + 200]
    # A click on a video shown at random is a click.
    assert rows["test"][0]["history_video_id"] == [10, 11]


def test_the_newest_clicks_are_kept(folder: Path, tmp_path: Path) -> None:
    write(folder)
    (valid,) = prepare(tmp_path / "out", max_history=2)["valid"]
    assert (valid["history_video_id"], valid["history_first_event"]) == ([10, 12], 1)


def test_attributes_are_joined_and_what_is_unknown_is_null(folder: Path, tmp_path: Path) -> None:
    write(folder)
    train = {row["video_id"]: row for row in prepare(tmp_path / "out")["train"]}
    known, gaps, unknown = train[10], train[11], train[12]
    assert (known["author_id"], known["music_id"], known["music_type"]) == (100, 9155697141, 9)
    assert (known["tag"], known["video_type"], known["play_time_s"]) == (
        ["12", "65"],
        "NORMAL",
        1.385,
    )
    assert (gaps["author_id"], gaps["music_id"], gaps["tag"]) == (101, None, [])
    assert (unknown["author_id"], unknown["tag"], unknown["upload_type"]) == (None, [], None)
    assert (known["onehot_feat2"], known["onehot_feat3"], known["onehot_feat4"]) == (None, 1153, 4)
    assert (known["fans_user_num"], known["register_days"]) == (312, 3624)
    assert "show_cnt" not in known


def test_files_in_parts_and_the_number_of_parts_change_no_row(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows() -> list[str]:
        found = [row for split in prepare(tmp_path / "out").values() for row in split]
        assert len({row["request_id"] for row in found}) == 7
        return sorted(
            str([row[name] for name in sorted(row) if name != "request_id"]) for row in found
        )

    write(folder / "data", variant="27k", part="_part1")
    whole = rows()
    log = LINES["log_standard_4_08_to_4_21"]
    write(folder / "data", variant="27k", part="_part1", log_standard_4_08_to_4_21=log[:2])
    name = "log_standard_4_08_to_4_21_27k_part2.csv"
    (folder / "data" / name).write_text("\n".join([LOG, *log[2:]]))
    assert rows() == whole
    monkeypatch.setattr(kuairand, "count_partitions", lambda _: 4)
    assert rows() == whole


def test_the_random_log_may_be_absent(folder: Path, tmp_path: Path) -> None:
    write(folder)
    (folder / "log_random_4_22_to_5_08_pure.csv").unlink()
    assert list(prepare(tmp_path / "out")) == ["train", "valid", "test"]


def test_one_of_several_variants_must_be_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has none"):
        prepare(tmp_path / "out")
    write(folder)
    with pytest.raises(ConfigError, match=r"the folder has pure\. Got '27k'"):
        prepare(tmp_path / "out", variant="27k")
    write(folder, variant="1k")
    with pytest.raises(ConfigError, match="the folder has 1k, pure"):
        prepare(tmp_path / "out")
    prepare(tmp_path / "out", variant="1k")


def test_bad_files_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = LINES["log_random_4_22_to_5_08"][0]
    write(folder, log_random_4_22_to_5_08=[bad.replace("2,11,", "2,x,")])
    with pytest.raises(
        DataError, match=r"log_random.*_pure\.csv: line 2: column video_id must be int64"
    ):
        prepare(tmp_path / "out")
    write(folder, log_random_4_22_to_5_08=[bad.removesuffix("1,1") + "2,1"])
    with pytest.raises(DataError, match=r"log_random.*_pure\.csv: line 2: is_rand must be 0 or 1"):
        prepare(tmp_path / "out")
    broken = USER_LINES[1].replace("4.0", "4.5")
    (folder / "user_features_pure.csv").write_text("\n".join([USERS, USER_LINES[0], broken]))
    with pytest.raises(DataError, match=r"line 3: onehot_feat4 must be whole\. Got 4\.5"):
        prepare(tmp_path / "out")
    (folder / "user_features_pure.csv").write_text("user_id\n1\n")
    with pytest.raises(DataError, match=r"user_features_pure\.csv: has no column user_active"):
        prepare(tmp_path / "out")
    (folder / "user_features_pure.csv").unlink()
    with pytest.raises(DataError, match=r"has no file user_features_\*\.csv"):
        prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"kuairand is absent"):
        prepare(tmp_path / "out")


def test_the_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def draw(*bounds: int) -> int:
        return int(generator.integers(*bounds))

    def lines(first: int, last: int, is_rand: int) -> list[str]:
        return [
            shown(
                draw(1, 5), draw(10, 12), draw(first * DAY, last * DAY),
                click=draw(2), is_rand=is_rand, tab=draw(15),
            )
            for _ in range(200)
        ]  # fmt: skip

    write(
        folder,
        log_standard_4_08_to_4_21=lines(0, 14, 0),
        log_standard_4_22_to_5_08=lines(14, 31, 0),
        log_random_4_22_to_5_08=lines(14, 31, 1),
    )
    rows = prepare(tmp_path / "out")
    tasks = train_recipe("kuairand_tokenmixer_large.yaml", tmp_path / "out", tmp_path / "run")
    assert {name: found.num_rows for name, found in tasks.items()} == dict.fromkeys(
        ("click", "like", "long_view", "watch"), len(rows["test"])
    )
