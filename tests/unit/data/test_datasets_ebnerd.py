"""EBNeRD from files in the official layout that the test writes, and from the sample at hand."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import is_clear
from tests.integration.small import command
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import ebnerd_source, local_folder
from rankloom.data.datasets.ebnerd import prepare_ebnerd
from rankloom.errors import ConfigError, DataError

START = dt.datetime(2023, 5, 18, 7)  # noqa: DTZ001 - the files' times have no zone
BEHAVIORS = pa.schema(
    {
        "impression_id": pa.uint32(),
        "article_id": pa.int32(),
        "impression_time": pa.timestamp("us"),
        "read_time": pa.float32(),
        "scroll_percentage": pa.float32(),
        "device_type": pa.int8(),
        "article_ids_inview": pa.large_list(pa.int32()),
        "article_ids_clicked": pa.large_list(pa.int32()),
        "user_id": pa.uint32(),
        "is_sso_user": pa.bool_(),
        "gender": pa.int8(),
        "postcode": pa.int8(),
        "age": pa.int8(),
        "is_subscriber": pa.bool_(),
        "session_id": pa.uint32(),
        "next_read_time": pa.float32(),
        "next_scroll_percentage": pa.float32(),
    }
)
HISTORY = pa.schema(
    {
        "user_id": pa.uint32(),
        "impression_time_fixed": pa.large_list(pa.timestamp("us")),
        "scroll_percentage_fixed": pa.large_list(pa.float32()),
        "article_id_fixed": pa.large_list(pa.int32()),
        "read_time_fixed": pa.large_list(pa.float32()),
    }
)


def at(second: float) -> dt.datetime:
    return START + dt.timedelta(seconds=second)


def impression(number: int, **changes: Any) -> dict[str, Any]:
    shown = [100 + number % 7, 110, 120 + number % 3]
    values: dict[str, Any] = {
        "impression_id": number,
        "impression_time": at(60 * number),
        "read_time": 11.0,
        "device_type": 2,
        "article_ids_inview": shown,
        "article_ids_clicked": [shown[number % 3]],
        "user_id": number % 5,
        "is_sso_user": False,
        "is_subscriber": True,
        "session_id": number,
        "next_read_time": 8.0,
    }
    return values | changes


def events(user: int, *found: tuple[float, int, float, float | None]) -> dict[str, Any]:
    """Give a user's history of (second, article, seconds read, per cent scrolled)."""
    time, article, read, scroll = zip(*found, strict=True)
    return {
        "user_id": user,
        "impression_time_fixed": [at(second) for second in time],
        "scroll_percentage_fixed": list(scroll),
        "article_id_fixed": list(article),
        "read_time_fixed": list(read),
    }


def write(folder: Path, behaviors: list[dict[str, Any]], history: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(behaviors, BEHAVIORS), folder / "behaviors.parquet")
    pq.write_table(pa.Table.from_pylist(history, HISTORY), folder / "history.parquet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "ebnerd"
    history = [
        events(user, *((-50 + n, 100 + n, 3.0, 50.0) for n in range(3 + user))) for user in range(4)
    ]
    write(made / "train", [impression(n) for n in range(60)], history)
    write(made / "validation", [impression(n) for n in range(60, 100)], history)
    return made


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    return pq.ParquetFile(folder / split / "part-0.parquet").read().to_pylist()


def test_an_impression_is_a_line_with_its_candidates(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_ebnerd(tmp_path / "out", report=lambda _: None)
    assert prepared.rows == {"train": 180, "valid": 60, "test": 60}
    line = read(tmp_path / "out", "train")[1]
    assert (line["request_id"], line["user_id"], line["session_id"]) == (1, 1, 1)
    assert (line["is_sso_user"], line["is_subscriber"], line["gender"]) == (0, 1, None)
    assert line["item_id"] == [101, 110, 121]
    assert (line["click"], line["read_time_s"]) == ([0, 1, 0], [0, 8, 0])
    # 18 May 2023 was a Thursday; 07:01.
    assert (line["hour"], line["weekday"], line["timestamp"]) == (7, 3, 1684393260)
    assert {"read_time", "scroll_percentage", "next_read_time"}.isdisjoint(line)


def test_history_ends_strictly_before_the_impression(folder: Path, tmp_path: Path) -> None:
    history = [events(0, (-9, 1, 0, None), (600, 2, 1, 0), (600.9, 3, 3, 9), (601, 4, 70, 100))]
    shown = [impression(n, user_id=0, impression_time=at(second)) for n, second in
             enumerate((-9, 600, 600.7, 601, 602, 99999))]  # fmt: skip
    write(folder / "train", shown, history)
    prepare_ebnerd(tmp_path / "out", report=lambda _: None)
    lines = read(tmp_path / "out", "train")
    assert [line["history_item_id"] for line in lines] == [
        [], [1], [1], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]
    ]  # fmt: skip
    assert lines[-1]["history_read"] == [0, 1, 2, 6]
    assert lines[-1]["history_scroll"] == [0, 1, 1, 11]


def test_history_is_sorted_and_keeps_its_newest_events(folder: Path, tmp_path: Path) -> None:
    history = [
        events(1, (-1, 13, 1, 1), (-3, 11, 1, 1), (-2, 12, 1, 1)),
        events(0, (-8, 5, 1, 1)),
    ]
    shown = [impression(n, user_id=user) for n, user in enumerate((0, 1, 2))]
    write(folder / "train", shown, history)
    prepare_ebnerd(tmp_path / "out", max_history=2, report=lambda _: None)
    lines = read(tmp_path / "out", "train")
    assert [line["history_item_id"] for line in lines] == [[5], [12, 13], []]
    assert [line["history_first_event"] for line in lines] == [0, 1, 0]
    times = [line["history_time"] for line in lines]
    assert [b - a for a, b in [times[1]]] == [1]


def test_seconds_read_are_null_where_they_are_unknown(folder: Path, tmp_path: Path) -> None:
    shown = [
        impression(0, article_ids_clicked=[110, 120], next_read_time=5.0),
        impression(1, next_read_time=None),
        impression(2, article_ids_inview=[], article_ids_clicked=[]),
        impression(3, article_ids_clicked=[999]),
    ]
    write(folder / "train", shown, [events(0, (-8, 5, 1, 1))])
    prepare_ebnerd(tmp_path / "out", report=lambda _: None)
    lines = read(tmp_path / "out", "train")
    assert [line["request_id"] for line in lines] == [0, 1, 3]
    assert [line["click"] for line in lines] == [[0, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert [line["read_time_s"] for line in lines] == [[0, None, None], [0, None, 0], [0, 0, 0]]


def test_validation_is_cut_in_two_by_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [impression(n) for n in range(60, 100)]
    write(folder / "validation", shown[::-1], [events(0, (-8, 5, 1, 1))])
    monkeypatch.setattr(ebnerd_source, "_CHUNK_LINES", 7)
    prepared = prepare_ebnerd(tmp_path / "out", report=lambda _: None)
    numbers = {s: {line["request_id"] for line in read(tmp_path / "out", s)} for s in prepared.rows}
    assert numbers["train"] == set(range(60))
    assert numbers["valid"] == set(range(60, 80))
    assert numbers["test"] == set(range(80, 100))
    assert "halves" not in prepared.notes[0]
    assert "later half of the official validation" in prepared.notes[0]


def changed(schema: pa.Schema, name: str, kind: pa.DataType) -> pa.Schema:
    return schema.set(schema.get_field_index(name), pa.field(name, kind))


def test_bad_files_are_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "train" / "behaviors.parquet"
    good = pq.read_table(path)

    def refused(table: pa.Table) -> str:
        pq.write_table(table, path)
        with pytest.raises(DataError) as caught:
            prepare_ebnerd(tmp_path / "out", report=print)
        assert not [made for made in (tmp_path / "out").rglob("*") if made.is_file()]
        assert is_clear(str(caught.value)), caught.value
        return str(caught.value)

    message = refused(good.drop_columns(["age", "device_type"]))
    assert "behaviors.parquet: has no column device_type, age. Got impression_id" in message
    texts = pa.array(["x"] * len(good))
    place = good.column_names.index
    message = refused(good.set_column(place("age"), "age", texts))
    assert "column 'age' must hold numbers. Got string." in message
    message = refused(good.set_column(place("impression_time"), "impression_time", texts))
    assert "column 'impression_time' must hold times. Got string." in message
    message = refused(good.set_column(place("article_ids_inview"), "article_ids_inview", texts))
    assert "column 'article_ids_inview' must hold lists. Got string." in message
    nulls = pa.array([None] * len(good), pa.uint32())
    message = refused(good.set_column(place("user_id"), "user_id", nulls))
    assert "column 'user_id' must have no empty value. Got 60." in message
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"behaviors\.parquet: cannot be read"):
        prepare_ebnerd(tmp_path / "out", report=print)


def test_lists_of_a_history_must_agree(folder: Path, tmp_path: Path) -> None:
    history = events(0, (-8, 5, 1, 1)) | {"read_time_fixed": [1.0, 2.0]}
    write(folder / "train", [impression(0)], [history])
    with pytest.raises(DataError, match=r"'read_time_fixed' must have lists as long as"):
        prepare_ebnerd(tmp_path / "out", report=print)


def test_absent_files_and_a_wrong_option(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigError, match="max_history: must not be negative"):
        prepare_ebnerd(tmp_path / "out", max_history=-1, report=print)
    (folder / "validation" / "history.parquet").unlink()
    assert command(monkeypatch, "data", "prepare", "ebnerd", "--to", tmp_path / "out") == 2
    message = capsys.readouterr().err.strip()
    assert is_clear(message), message
    assert "validation: holds none of history.parquet." in message


def test_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    prepare_ebnerd(tmp_path / "out", report=lambda _: None)
    tasks = train_recipe(
        "ebnerd_tokenmixer_large.yaml",
        tmp_path / "out",
        tmp_path / "run",
        {"model.interaction.num_layers": 1, "training.hoist": False},
    )
    assert {task: found.num_rows for task, found in tasks.items()} == {"click": 60, "read": 60}
    assert 0 < tasks["click"].metrics["auc"] < 1


def test_real_sample_has_its_counts_and_older_histories(tmp_path: Path) -> None:
    if local_folder("ebnerd_tiny") is None or local_folder("ebnerd") is not None:
        pytest.skip("needs ebnerd_tiny, and no ebnerd, in $RANKLOOM_DATA")
    prepared = prepare_ebnerd(tmp_path, report=lambda _: None)
    assert sum(prepared.rows.values()) == 10_848
    assert "too few rows to conclude" in prepared.notes[0]
    newest = -math.inf
    for split in ("train", "valid", "test"):
        lines = read(tmp_path, split)
        assert min(line["timestamp"] for line in lines) >= newest
        newest = max(line["timestamp"] for line in lines)
        for line in lines:
            assert (np.diff([*line["history_time"], line["timestamp"]]) >= 0).all()
            assert line["history_time"][-1] < line["timestamp"]
    clicks = sum(sum(line["click"]) for s in prepared.rows for line in read(tmp_path, s))
    assert clicks / 10_848 == pytest.approx(0.0965, abs=5e-5)
