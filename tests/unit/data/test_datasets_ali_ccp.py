"""Ali-CCP from files in the official layout that the test writes, and from the sample at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import delimited, local_folder
from rankloom.data.datasets.ali_ccp import prepare_ali_ccp
from rankloom.errors import DataError

Values = Mapping[str, Sequence[tuple[int, float]]]


def features(values: Values) -> str:
    """Write features as the official files do: field, id and number, by control characters."""
    return "\x01".join(
        f"{field}\x02{one}\x03{number}" for field, several in values.items()
        for one, number in several
    )  # fmt: skip


def common(key: str, values: Values) -> str:
    return f"{key},{sum(map(len, values.values()))},{features(values)}\n"


def row(number: int, click: int, purchase: int, key: str, values: Values) -> str:
    count = sum(map(len, values.values()))
    return f"{number},{click},{purchase},{key},{count},{features(values)}\n"


USER_A: Values = {
    "101": [(7, 1.0)], "121": [(3, 1.0)], "109_14": [(50, 0.5), (51, 1.75)], "127_14": [(9, 2.0)]
}  # fmt: skip
USER_B: Values = {"101": [(8, 1.0)], "124": [(2, 1.0)], "150_14": [(4, 0.25)]}
ITEM: Values = {
    "205": [(100, 1.0)], "206": [(50, 1.0)], "301": [(1, 1.0)], "210": [(4, 1.0), (5, 1.0)],
    "853": [(44, 0.25), (45, 1.5)],
}  # fmt: skip
OTHER: Values = {"205": [(101, 1.0)], "216": [(9, 1.0)], "301": [(2, 1.0)]}


def write(folder: Path, split: str, rows: Sequence[str], shared: Sequence[str]) -> None:
    (folder / f"sample_skeleton_{split}.csv").write_text("".join(rows))
    (folder / f"common_features_{split}.csv").write_text("".join(shared))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write 40 users with 1 to 4 rows each for training, and two users for test."""
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "ali_ccp"
    made.mkdir()
    rng = np.random.default_rng(0)
    rows, shared = [], []
    for user in range(40):
        past = [(int(one), round(float(rng.random()), 3)) for one in rng.integers(9, size=user % 5)]
        shared.append(common(f"{user:016x}", {"101": [(user, 1.0)], "109_14": past}))
        for _ in range(1 + user % 4):
            click = int(rng.random() < 0.5)
            buy = click * int(rng.random() < 0.5)
            item: Values = {"205": [(int(rng.integers(6)), 1.0)], "301": [(1, 1.0)]}
            rows.append(row(len(rows), click, buy, f"{user:016x}", item))
    write(made, "train", rows, rng.permutation(shared).tolist())
    test = [row(1, 1, 1, "a", ITEM), row(2, 0, 0, "a", OTHER), row(3, 1, 0, "b", ITEM)]
    write(made, "test", test, [common("b", USER_B), common("a", USER_A)])
    return made


def read(folder: Path, split: str) -> list[dict[str, object]]:
    return pq.ParquetFile(folder / split / "part-0.parquet").read().to_pylist()


def test_rows_are_joined_with_their_common_features(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_ali_ccp(tmp_path / "out", report=lambda _: None)
    assert prepared.rows["test"] == 3
    first, second = read(tmp_path / "out", "test")
    assert (first["request_id"], first["user_id"], first["profile"]) == ("a", 7, 3)
    assert (first["gender"], second["gender"], second["profile"]) == (None, 2, None)
    assert (first["past_category"], first["past_category_weight"]) == ([50, 51], [0.5, 1.75])
    assert (first["past_shop"], second["past_intention"]) == ([], [4])
    assert (first["click"], first["purchase"], second["click"]) == ([1, 0], [1, 0], [1])
    assert (first["item_id"], first["brand"]) == ([100, 101], [None, 9])
    assert (first["position"], first["intention"]) == ([1, 2], [[4, 5], []])
    assert first["match_intention"] == [[44, 45], []]
    assert first["match_intention_weight"] == [[0.25, 1.5], []]


def test_each_training_row_is_in_train_or_valid_with_its_whole_request(
    folder: Path, tmp_path: Path
) -> None:
    prepared = prepare_ali_ccp(tmp_path / "out", report=lambda _: None)
    assert prepared.rows["train"] + prepared.rows["valid"] == 100
    lines = read(tmp_path / "out", "train") + read(tmp_path / "out", "valid")
    assert sorted(line["user_id"] for line in lines) == list(range(40))
    assert all(len(line["click"]) == 1 + line["user_id"] % 4 for line in lines)
    assert all(len(line["past_category"]) == line["user_id"] % 5 for line in lines)
    assert prepared.rows["train"] > 70


def test_the_size_of_pieces_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_ali_ccp(tmp_path / "whole", report=lambda _: None)
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 300)
    prepare_ali_ccp(tmp_path / "pieces", report=lambda _: None)
    for split in ("train", "valid", "test"):
        assert read(tmp_path / "pieces", split) == read(tmp_path / "whole", split)
    assert sorted(path.name for path in (tmp_path / "pieces").iterdir()) == [
        "test", "train", "valid"
    ]  # fmt: skip


def test_first_of_several_ids_counts_where_there_is_room_for_one(
    folder: Path, tmp_path: Path
) -> None:
    several: Values = {"205": [(102, 1.0), (101, 1.0)], "206": [(1, 1.0), (2, 1.0)]}
    test = [row(1, 0, 0, "a", OTHER), row(2, 0, 0, "a", several)]
    write(folder, "test", test, [common("a", USER_A)])
    prepare_ali_ccp(tmp_path / "out", report=lambda _: None)
    (line,) = read(tmp_path / "out", "test")
    assert (line["item_id"], line["category"]) == ([101, 102], [None, 1])


def test_purchase_without_click_is_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    test = [row(1, 0, 1, "a", ITEM), row(2, 0, 0, "a", OTHER), row(3, 0, 1, "b", ITEM)]
    write(folder, "test", test, [common("b", USER_B), common("a", USER_A)])
    prepared = prepare_ali_ccp(tmp_path / "out", report=lambda _: None)
    assert [line["item_id"] for line in read(tmp_path / "out", "test")] == [[101]]
    assert "ali_ccp: 2 rows with a purchase but no click were left out" in prepared.notes
    assert "valid 10% of the training file's requests" in prepared.notes[0]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (
            row(2, 1, 0, "z", ITEM),
            r"line 2: common must be a key of common_features_test\.csv.*'z'",
        ),
        (row(2, 1, 0, "a", {"999": [(1, 1.0)]}), "line 2: features must hold features of 205, "),
        ("2,1,0,a,1,205\x02x\x031.0\n", "line 2: features must hold features as field 0x02 id"),
        ("2,1,0,a,1\n", r"sample_skeleton_test\.csv: line 2 must have 6 columns\. Got 5\."),
        (row(2, 3, 0, "a", ITEM), r"line 2: click must be 0 or 1\. Got 3\."),
        (row(2, 1, 0, "a", ITEM).replace(",1,", ",x,", 1), r"line 2: column click must be int64"),
    ],
)
def test_bad_rows_are_named(folder: Path, tmp_path: Path, bad: str, problem: str) -> None:
    write(folder, "test", [row(1, 1, 1, "a", ITEM), bad], [common("a", USER_A)])
    with pytest.raises(DataError, match=problem):
        prepare_ali_ccp(tmp_path / "out", report=print)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_bad_common_features_are_named(folder: Path, tmp_path: Path) -> None:
    write(folder, "test", [row(1, 1, 1, "a", ITEM)], [common("a", USER_A), "b,1,205\x021\x031.0\n"])
    with pytest.raises(DataError, match=r"common_features_test\.csv: line 2: features must hold"):
        prepare_ali_ccp(tmp_path / "out", report=print)
    (folder / "common_features_test.csv").unlink()
    with pytest.raises(DataError, match=r"holds none of common_features_test\.csv.*tianchi"):
        prepare_ali_ccp(tmp_path / "out", report=print)


def test_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_ali_ccp(tmp_path / "out", report=lambda _: None)
    tasks = train_recipe(
        "ali_ccp_mlp.yaml",
        tmp_path / "out",
        tmp_path / "run",
        {"model.interaction.hidden_dims": [16]},
    )
    assert {task: found.num_rows for task, found in tasks.items()} == dict.fromkeys(
        ("click", "buy"), prepared.rows["test"]
    )


def test_real_sample_is_written_in_the_same_form(tmp_path: Path) -> None:
    if local_folder("tiny_samples") is None or local_folder("ali_ccp") is not None:
        pytest.skip("needs tiny_samples, and no ali_ccp, in $RANKLOOM_DATA")
    prepared = prepare_ali_ccp(tmp_path, report=lambda _: None)
    assert prepared.rows == {"train": 100, "valid": 50, "test": 50}
    assert "too few rows to conclude" in prepared.notes[0]
    (line,) = read(tmp_path, "train")
    assert (sum(line["click"]), sum(line["purchase"])) == (7, 1)
    # The first row of the file.
    assert (line["consumption_1"], line["item_id"][0], line["category"][0]) == (None, None, 1)
    assert line["match_category"][0] == [1]
    assert line["match_category_weight"][0] == pytest.approx([0.07556])
    assert (line["match_shop"][0], line["intention"][0]) == ([], [1])


def test_the_form_of_the_sample_is_that_of_the_official_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_ali_ccp(tmp_path / "official", report=lambda _: None)
    names = (
        "click,purchase,101,121,122,124,125,126,127,128,129,205,206,207,210,216,508,509,702,853,"
        "301,109_14,110_14,127_14,150_14,D109_14,D110_14,D127_14,D150_14,D508,D509,D702,D853\n"
    )
    one = f"1,1,7,{'1,' * 17}2,{'0,' * 3}0,{'0.5,' * 7}0.5\n".replace("2,0,0,0,0,", "2,3,0,0,0,")
    other = one.replace("1,1,7", "0,0,8", 1)
    sample = tmp_path / "data" / "tiny_samples"
    sample.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (sample / f"ali_ccp_{split}_sample.csv").write_text(names + one + one + other)
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "data"))
    prepared = prepare_ali_ccp(tmp_path / "sample", report=lambda _: None)
    assert prepared.rows == {"train": 3, "valid": 3, "test": 3}
    first, second = read(tmp_path / "sample", "valid")
    assert (first["user_id"], first["click"], second["user_id"]) == (7, [1, 1], 8)
    paths = [tmp_path / kind / "test" / "part-0.parquet" for kind in ("official", "sample")]
    schemas = [pq.read_schema(path) for path in paths]
    assert {f.name: f.type for f in schemas[0]} == {f.name: f.type for f in schemas[1]}
