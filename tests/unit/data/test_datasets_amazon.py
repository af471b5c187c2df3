"""Amazon reviews: the layouts of 2014, 2018 and 2023, as generated files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import amazon
from rankloom.data.datasets.amazon import prepare_amazon
from rankloom.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test")
DAY = 86_400
Review = tuple[str, str, float, int]

# User u reviews a to e on days 1 to 5; v two things on day 2 and others later.
REVIEWS: list[Review] = [("u", item, 4.0, day * DAY) for day, item in enumerate("abcde", 1)]
REVIEWS += [("v", "f", 1.0, 2 * DAY), ("v", "a", 5.0, 2 * DAY), ("v", "g", 3.0, 3 * DAY)]
REVIEWS += [("v", "h", 5.0, 9 * DAY), ("v", "i", 2.0, 8 * DAY)]


def write_2014(folder: Path, reviews: list[Review]) -> None:
    lines = [
        json.dumps(
            {
                "reviewerID": user, "asin": item, "reviewerName": "A \"B\"", "helpful": [0, 1],
                "reviewText": "long, long", "overall": rating, "summary": "s",
                "unixReviewTime": time, "reviewTime": "01 30, 2014",
            }
        )
        for user, item, rating, time in reviews
    ]  # fmt: skip
    (folder / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def write_2023_jsonl(folder: Path, reviews: list[Review]) -> None:
    lines = [
        json.dumps(
            {
                "rating": rating, "title": "t", "text": "x", "images": [], "asin": item + "1",
                "parent_asin": item, "user_id": user, "timestamp": time * 1000 + 87,
                "helpful_vote": 0, "verified_purchase": True,
            }
        )
        for user, item, rating, time in reviews
    ]  # fmt: skip
    (folder / "All_Beauty.jsonl").write_text("\n".join(lines) + "\n")


def write_2023_csv(folder: Path, reviews: list[Review]) -> None:
    lines = [f"{user},{item},{rating},{time * 1000}," for user, item, rating, time in reviews]
    text = "\n".join(["user_id,parent_asin,rating,timestamp,history", *lines])
    (folder / "All_Beauty.csv.gz").write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "amazon"
    made.mkdir()
    return made


def prepare(to: Path, **options: object) -> dict[str, list[dict[str, object]]]:
    prepare_amazon(to, report=lambda _: None, **options)  # type: ignore[arg-type]
    return {
        split: pq.ParquetFile(to / split / "part-0.parquet").read().to_pylist() for split in SPLITS
    }


@pytest.mark.parametrize("write", [write_2014, write_2023_jsonl, write_2023_csv])
def test_all_layouts_give_the_same_rows(folder: Path, tmp_path: Path, write) -> None:
    write(folder, REVIEWS)
    rows = prepare(tmp_path / "out")
    taken = {
        split: [
            (row["user_id"], row["item_id"], row["rating"], row["history_item_id"])
            for row in rows[split]
            if row["label"] == 1
        ]
        for split in SPLITS
    }
    # Of the things reviewed in one day none is in the other's history.
    assert taken == {
        "train": [
            ("u", "b", 4, ["a"]),
            ("u", "c", 4, ["a", "b"]),
            ("v", "g", 3, ["f", "a"]),
        ],
        "valid": [("u", "d", 4, ["a", "b", "c"]), ("v", "i", 2, ["f", "a", "g"])],
        "test": [("u", "e", 4, ["a", "b", "c", "d"]), ("v", "h", 5, ["f", "a", "g", "i"])],
    }
    assert rows["test"][0]["timestamp"] == 5 * DAY
    assert rows["test"][0]["history_time"] == [DAY, 2 * DAY, 3 * DAY, 4 * DAY]


def test_histories_are_strictly_older_and_aligned(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    write_2014(
        folder,
        [(f"u{n % 9}", f"i{n}", 5.0, int(generator.integers(1, 12)) * DAY) for n in range(150)],
    )
    for split in prepare(tmp_path / "out", test_negatives=2).values():
        for row in split:
            assert row["history_time"]
            assert max(row["history_time"]) < row["timestamp"]
            assert len(row["history_item_id"]) == len(row["history_rating"])


def test_negatives_have_no_rating_and_the_time_of_the_review(folder: Path, tmp_path: Path) -> None:
    write_2014(folder, REVIEWS)
    rows = prepare(tmp_path / "out", num_negatives=2, test_negatives=7)
    assert [len(rows[split]) for split in SPLITS] == [9, 6, 16]
    for row in rows["test"][1:8]:
        assert (row["label"], row["rating"], row["timestamp"]) == (0, 0, 5 * DAY)
        assert row["item_id"] in set("fghi")


def test_the_number_of_parts_changes_no_row_but_the_drawn_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_2014(folder, REVIEWS)

    def taken(count: int) -> list[tuple[object, object, object]]:
        monkeypatch.setattr(amazon, "count_partitions", lambda _: count)
        rows = [row for split in prepare(tmp_path / "out").values() for row in split]
        assert len({row["request_id"] for row in rows}) == 7
        ones = [row for row in rows if row["label"] == 1]
        return sorted((row["user_id"], row["item_id"], row["history_time"]) for row in ones)

    assert taken(1) == taken(5)


def test_one_of_several_files_must_be_named(folder: Path, tmp_path: Path) -> None:
    write_2014(folder, REVIEWS)
    write_2023_csv(folder, REVIEWS)
    (folder / "README.md").write_text("")
    with pytest.raises(ConfigError, match=r"Got All_Beauty\.csv\.gz, reviews_Beauty_5\.json\.gz"):
        prepare(tmp_path / "out")
    prepare(tmp_path / "out", file="All_Beauty.csv.gz")
    with pytest.raises(DataError, match=r"has no other\.json\. Download"):
        prepare(tmp_path / "out", file="other.json")


def test_bad_files_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_2014(folder, [*REVIEWS, ("u", "z", 6.0, DAY)])
    with pytest.raises(DataError, match=r"_5\.json\.gz: line 11: overall must be from 1 to 5.*6"):
        prepare(tmp_path / "out")
    (folder / "reviews_Beauty_5.json.gz").unlink()
    (folder / "All_Beauty.csv").write_text("user_id,parent_asin,rating\nu,a,1\n")
    with pytest.raises(DataError, match=r"All_Beauty\.csv: has no column timestamp"):
        prepare(tmp_path / "out")
    (folder / "All_Beauty.csv").write_text("user_id,parent_asin,rating,timestamp\nu,a,1,x\n")
    with pytest.raises(DataError, match=r"All_Beauty\.csv: line 2: column timestamp must be int64"):
        prepare(tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"amazon is absent\. Download"):
        prepare(tmp_path / "out")


def test_the_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    items = generator.integers(0, 30, 150)
    write_2014(
        folder,
        [(f"u{n % 20}", f"i{items[n]}", float(1 + n % 5), n * DAY) for n in range(150)],
    )
    rows = prepare(tmp_path / "out", test_negatives=4)
    tasks = train_recipe("amazon_dcn_v2.yaml", tmp_path / "out", tmp_path / "run")
    assert {name: found.num_rows for name, found in tasks.items()} == dict.fromkeys(
        ("review", "like"), len(rows["test"])
    )
