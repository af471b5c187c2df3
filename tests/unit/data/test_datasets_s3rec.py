"""Sequences to rows with drawn negatives, on files that the test writes and on the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import local_folder
from rankloom.data.datasets.s3rec import prepare_s3rec
from rankloom.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test")


def write(folder: Path, lines: list[str], attributes: dict[str, list[int]] | None = None) -> None:
    known = {"1": [7, 8], "2": [7]} if attributes is None else attributes
    (folder / "Beauty.txt").write_text("\n".join(lines) + "\n")
    (folder / "Beauty_item2attributes.json").write_text(json.dumps(known))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "s3rec_sequences"
    made.mkdir()
    # User 5 takes 1 to 5; user 6 takes 3, 1, 9, 2, 8.
    write(made, ["5 1 2 3 4 5", "6 3 1 9 2 8"])
    return made


def prepare(to: Path, **options: object) -> dict[str, list[dict[str, object]]]:
    prepare_s3rec(to, report=lambda _: None, **options)  # type: ignore[arg-type]
    return {split: read(to, split).to_pylist() for split in SPLITS}


def read(folder: Path, split: str) -> pa.Table:
    return pq.ParquetFile(folder / split / "part-0.parquet").read()


def test_the_last_item_is_for_the_test_and_the_one_before_for_validation(
    folder: Path, tmp_path: Path
) -> None:
    rows = prepare(tmp_path / "out")
    taken = {
        split: [
            (row["user_id"], row["item_id"], row["history_item_id"])
            for row in rows[split]
            if row["label"] == 1
        ]
        for split in SPLITS
    }
    # The first item of each user has no history and is an event only.
    assert taken == {
        "train": [(5, 2, [1]), (5, 3, [1, 2]), (6, 1, [3]), (6, 9, [3, 1])],
        "valid": [(5, 4, [1, 2, 3]), (6, 2, [3, 1, 9])],
        "test": [(5, 5, [1, 2, 3, 4]), (6, 8, [3, 1, 9, 2])],
    }


def test_negatives_are_never_taken_by_their_user_and_share_the_request(
    folder: Path, tmp_path: Path
) -> None:
    rows = prepare(tmp_path / "out", num_negatives=3, test_negatives=20)
    assert [len(rows[split]) for split in SPLITS] == [4 * 4, 2 * 4, 2 * 21]
    own = {5: {1, 2, 3, 4, 5}, 6: {3, 1, 9, 2, 8}}
    requests: dict[object, list[dict[str, object]]] = {}
    for row in (row for split in SPLITS for row in rows[split]):
        requests.setdefault(row["request_id"], []).append(row)
        assert (row["item_id"] in own[row["user_id"]]) == (row["label"] == 1)
    assert len(requests) == 8
    for request in requests.values():
        assert [row["label"] for row in request] == [1] + [0] * (len(request) - 1)
        assert all(row["history_item_id"] == request[0]["history_item_id"] for row in request)
    # All items that the user did not take are drawn at some time.
    drawn = {row["item_id"] for row in rows["test"] if row["user_id"] == 5 and not row["label"]}
    assert drawn == {8, 9}


def test_the_seed_decides_the_negatives(folder: Path, tmp_path: Path) -> None:
    first = prepare(tmp_path / "out")
    assert prepare(tmp_path / "out") == first
    assert prepare(tmp_path / "out", seed=1) != first


def test_attributes_history_length_and_notes(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    prepared = prepare_s3rec(tmp_path / "out", max_history=2, report=lines.append)
    row = read(tmp_path / "out", "test").to_pylist()[0]
    assert (row["history_item_id"], row["history_first_event"]) == ([3, 4], 2)
    found = {
        row["item_id"]: row["attributes"] for row in read(tmp_path / "out", "train").to_pylist()
    }
    assert (found[1], found[2], found[3]) == ([7, 8], [7], [])
    assert lines[0] == "Beauty: 2 users, 7 items, 10 events"
    assert lines[1:] == list(prepared.notes)
    assert "4 for each item in train and valid, 99 in test" in lines[2]
    assert "not the HR@k or NDCG@k" in lines[2]


def test_damaged_files_are_refused(folder: Path, tmp_path: Path) -> None:
    for lines, message in (
        (["5 1 x"], r"Beauty\.txt: must have whole numbers only"),
        (["5 1 2", "6"], r"Beauty\.txt: must have a user and items a line\. Got line 2"),
        (["5 1 2", "5 3 4"], r"Beauty\.txt: must have each user in one line"),
        (["5 1 2 3 4"], "a user took all 4 items"),
    ):
        write(folder, lines)
        with pytest.raises(DataError, match=message):
            prepare(tmp_path / "out")
    write(folder, ["5 1 2 3 4", "6 5 6 7 8"], {"1": ["x"]})
    with pytest.raises(DataError, match=r"item2attributes\.json: must be an object of items"):
        prepare(tmp_path / "out")
    (folder / "Beauty.txt").unlink()
    with pytest.raises(DataError, match=r"holds none of Beauty\.txt.*RUCAIBox"):
        prepare(tmp_path / "out")


def test_absent_data_and_bad_options_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, message in (
        ({"subset": "Books"}, "Got 'Books'"),
        ({"num_negatives": 0}, r"data\.num_negatives: must be positive\. Got 0"),
        ({"test_negatives": -1}, r"data\.test_negatives: must be positive\. Got -1"),
        ({"max_history": -1}, r"data\.max_history: must not be negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(tmp_path / "out", **options)
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"s3rec_sequences is absent"):
        prepare(tmp_path / "out")


def test_the_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    write(
        folder,
        [f"{u} {' '.join(map(str, generator.permutation(30)[:6] + 1))}" for u in range(1, 21)],
    )
    prepare(tmp_path / "out", test_negatives=5)
    tasks = train_recipe("s3rec_rankmixer.yaml", tmp_path / "out", tmp_path / "run")
    assert {name: found.num_rows for name, found in tasks.items()} == {"take": 20 * 6}


def test_real_data_have_the_published_counts(tmp_path: Path) -> None:
    if local_folder("s3rec_sequences") is None:
        pytest.skip("needs s3rec_sequences in $RANKLOOM_DATA")
    lines: list[str] = []
    prepared = prepare_s3rec(tmp_path, num_negatives=1, test_negatives=1, report=lines.append)
    assert lines[0] == "Beauty: 22,363 users, 12,101 items, 198,502 events"
    positives = {"train": 198_502 - 3 * 22_363, "valid": 22_363, "test": 22_363}
    assert prepared.rows == {split: 2 * count for split, count in positives.items()}
