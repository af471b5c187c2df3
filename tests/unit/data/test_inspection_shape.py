from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.files import check_files
from rankloom.data.inspection.chunk import Chunk, sample_columns
from rankloom.data.inspection.inspection import NO_SCHEMA, Inspection, Options, inspect_log
from rankloom.data.inspection.scan import scan
from rankloom.data.inspection.shape import find_shape
from rankloom.data.inspection.sides import constancy
from rankloom.errors import ConfigError, DataError
from rankloom.schema import Schema, SequenceColumn, SequenceFeature, SparseFeature

FLAT: dict[str, Any] = {
    "user_id": [1, 1, 2],
    "item_id": [7, 8, 7],
    "timestamp": [10, 10, 30],
    "tags": [["a"], ["b", "c"], []],
    "vector": [[0.1, 0.2], [0.3, 0.4], None],
    "hist_item_id": [[7], [7], [8, 7]],
    "hist_time": [[1], [1], [2, 3]],
    "click": [1, 0, 1],
}
GROUPED: dict[str, Any] = {
    "request_id": [5, 6],
    "user_id": [1, 2],
    "hist_item_id": [[7, 8, 9], [8]],
    "item_id": [[7, 8], [7, 8, 9]],
    "tags": [[["a"], ["b", "c"]], [[], ["a"], ["b"]]],
    "click": [[1, 0], [0, 0, 1]],
}


def inspect(tmp_path, columns: dict[str, Any] | pa.Table, **options: Any) -> Inspection:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=max(1, len(table) // 3))
    return inspect_log(tmp_path / "log.parquet", options=Options(**options))


def test_a_flat_log():
    shape = find_shape(pa.table(FLAT))
    assert shape.layout == "flat"
    assert shape.lines == ("user_id", "item_id", "timestamp", "click")
    assert (shape.bags, shape.vectors) == (("tags",), {"vector": 2})
    (history,) = shape.histories
    assert (history.name, history.columns, history.time) == (
        "hist", {"item_id": "hist_item_id"}, "hist_time"
    )  # fmt: skip
    assert shape.roles == {"user": "user_id", "item": "item_id", "event_time": "timestamp"}


def test_a_grouped_log():
    shape = find_shape(pa.table(GROUPED))
    assert shape.layout == "grouped"
    assert shape.lines == ("request_id", "user_id")
    assert shape.rows == ("item_id", "click")
    assert shape.bags == ("tags",)
    assert [one.lists for one in shape.histories] == [["hist_item_id"]]


def test_histories_are_told_apart():
    table = pa.table(
        {
            "click_hist_item": [[1, 2], [3]],
            "click_hist_time": [[1, 2], [3]],
            "buy_hist_item": [[1], [3, 4]],
            "item_history": [[5, 6], [7]],
        }
    )
    names = {one.name: one.lists for one in find_shape(table).histories}
    assert names == {
        "click_hist": ["click_hist_item", "click_hist_time"],
        "buy_hist_item": ["buy_hist_item"],
        "item_history": ["item_history"],
    }


def test_aligned_lists_with_times_are_a_history():
    table = pa.table({"read_at_time": [[1, 2], [3]], "article": [[4, 5], [6]], "t": [["x"], []]})
    (history,) = find_shape(table).histories
    assert (history.time, history.columns) == ("read_at_time", {"article": "article"})


def test_a_run_file_goes_before_names():
    schema = Schema(
        {
            "who": SparseFeature(side="user", hash_buckets=9),
            "seen": SequenceFeature(
                side="user", columns={"x": SequenceColumn(column="tags", hash_buckets=9)}
            ),
        }
    )
    shape = find_shape(pa.table(FLAT), schema=schema, layout="flat")
    assert shape.histories[0].name == "seen"
    assert shape.bags == ()


def test_rows_of_lines_whose_lists_disagree_are_left_out():
    table = pa.table(GROUPED | {"item_id": [[7], [7, 8, 9]]})
    shape = find_shape(pa.table(GROUPED))
    chunk = Chunk(table.to_batches()[0], shape)
    assert chunk.unaligned == {"tags": 1, "click": 1}
    assert (chunk.num_lines, chunk.num_rows) == (1, 3)


def test_a_chunk_gives_rows_of_both_levels():
    shape = find_shape(pa.table(GROUPED))
    chunk = Chunk(pa.table(GROUPED).to_batches()[0], shape)
    rows = chunk.rows(np.array([1, 4]))
    columns = sample_columns(shape)
    assert columns == ("request_id", "user_id", "item_id", "click", "tags")
    np.testing.assert_array_equal(rows.numbers[:, :4], [[5, 1, 8, 0], [6, 2, 9, 1]])
    assert np.isnan(rows.numbers[:, 4]).all()


def sided_log(num_rows: int = 3_000) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    user, item = generator.integers(0, 60, num_rows), generator.integers(0, 80, num_rows)
    request = np.sort(generator.integers(0, 900, num_rows))
    user = (request * 7919) % 60
    return {
        "request_id": request,
        "user_id": user,
        "item_id": item,
        "country": user % 5,
        "price": (item * 1.5),
        "hour": (request * 31) % 24,
        "distance": generator.normal(size=num_rows),
        "rare_flag": (generator.random(num_rows) < 0.002).astype(int),
        "click": generator.integers(0, 2, num_rows),
    }


def test_sides_are_found_in_the_data(tmp_path):
    sides = inspect(tmp_path, sided_log()).sides
    found = {name: sides[name].side for name in ("country", "price", "hour", "distance")}
    assert found == {"country": "user", "price": "item", "hour": "context", "distance": "cross"}
    assert "one value within 100.0% of 60 users" in sides["country"].evidence


def test_a_column_that_hardly_varies_has_no_side_by_chance(tmp_path):
    assert inspect(tmp_path, sided_log()).sides["rare_flag"].side == "cross"


def test_constancy_by_hand(tmp_path):
    columns = {"user_id": [1, 1, 2, 2, 3], "x": [5, 5, 6, 7, 8], "click": [0, 1, 0, 1, 0]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    log = check_files(tmp_path / "log.parquet", NO_SCHEMA)
    shape = find_shape(pa.table(columns))
    found = constancy(scan(log, shape, list(columns)).groups["user"])[1]
    assert (found.num_keys, found.share) == (2, 0.5)
    # Two rows agree by chance with probability (2/5)^2 + 3 (1/5)^2.
    assert found.by_chance == pytest.approx(0.28)


def test_kinds_and_reasons(tmp_path):
    generator = np.random.default_rng(1)
    n = 2_000
    columns = sided_log(n) | {
        "zip": [f"z{at}" for at in generator.integers(0, 50, n)],
        "row_id": np.arange(n),
        "spent": generator.exponential(100, n).astype(int) * (generator.random(n) < 0.5),
        "hashed": generator.integers(0, 10**9, 300)[generator.integers(0, 300, n)],
        "delta": generator.integers(-500, 500, n),
        "premium": generator.random(n) < 0.5,
        "nothing": pa.array([None] * n, pa.float64()),
        "same": np.ones(n),
        "watch_time": generator.random(n),
        "oracle_click": generator.random(n),
        "position": generator.integers(0, 10, n),
        "day_at": np.full(n, "2020-01-01", "datetime64[s]") + np.arange(n),
        "raw": pa.array([b"x"] * n),
    }
    found = inspect(tmp_path, columns).kinds
    kinds = {name: guess.kind for name, guess in found.items()}
    assert kinds == {
        "request_id": "request id", "user_id": "user id", "item_id": "item id",
        "country": "sparse", "price": "dense", "hour": "sparse", "distance": "dense",
        "rare_flag": "sparse", "click": "label", "zip": "sparse", "row_id": "row id",
        "spent": "dense", "hashed": "sparse", "delta": "dense", "premium": "dense",
        "nothing": "empty", "same": "constant", "watch_time": "outcome",
        "oracle_click": "oracle", "position": "position", "day_at": "time", "raw": "other",
    }  # fmt: skip
    assert all(guess.reason for guess in found.values())


def test_the_last_column_is_the_label_if_none_is_named_like_one(tmp_path):
    columns = {"a": list(range(10)), "b": ["x", "y"] * 5}
    found = inspect(tmp_path, columns)
    assert found.kinds["b"].kind == "label"
    assert found.tasks[0].label == "b == 'x'"


def test_asked_labels(tmp_path):
    found = inspect(tmp_path, sided_log(), labels=("price > 60",))
    assert [(task.name, task.label) for task in found.tasks] == [("price", "price > 60")]
    with pytest.raises(ConfigError, match=r"no column is named 'prise'\. Did you mean 'price'"):
        inspect(tmp_path, sided_log(), labels=("prise > 60",))
    with pytest.raises(ConfigError, match="must be a column or"):
        inspect(tmp_path, sided_log(), labels=("a b",))


def test_tasks_of_ratings_nulls_and_chains(tmp_path):
    generator = np.random.default_rng(2)
    click = generator.integers(0, 2, 1_000)
    columns = {
        "user_id": generator.integers(0, 9, 1_000),
        "rating": generator.choice([1, 2, 3, 4, 5], 1_000, p=[0.1, 0.1, 0.2, 0.5, 0.1]),
        "click": click,
        "buy": click * generator.integers(0, 2, 1_000),
        "like": pa.array(click.astype(float), mask=generator.random(1_000) < 0.1),
    }
    tasks = {task.name: task.to_dict() for task in inspect(tmp_path, columns).tasks}
    assert tasks["rating"]["label"] == "rating >= 4"
    assert tasks["buy"] == {"kind": "binary", "label": "buy", "given": "click"}
    assert tasks["like"]["mask"] == "like >= 0"


def test_limit_rows_reads_from_all_over_the_log(tmp_path):
    columns = {"x": list(range(900)), "click": [0, 1] * 450}
    found = inspect(tmp_path, columns, limit_rows=90)
    assert found.num_rows == 90
    assert found.columns["x"].high == 629  # row groups start at 0, 300 and 600


def test_what_files_do_not_share_is_left_out(tmp_path):
    pq.write_table(pa.table({"x": [1], "y": [1], "click": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"x": ["a"], "click": [0]}), tmp_path / "1.parquet")
    found = inspect_log(str(tmp_path / "*.parquet"))
    assert list(found.columns) == ["click"]
    assert [one.check for one in found.findings[:2]] == ["changing_types"] * 2
    pq.write_table(pa.table({"z": [1]}), tmp_path / "2.parquet")
    with pytest.raises(DataError, match="no column is common to all files"):
        inspect_log(str(tmp_path / "*.parquet"))
