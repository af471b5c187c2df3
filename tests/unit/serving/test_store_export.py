"""Writing items: one row an item, out of catalogues and logs, or nothing at all."""

from __future__ import annotations

import decimal
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.serving.store_world import ALL_KINDS, INDEXES, ITEM_KINDS, some_items

from rankloom.data.plain_lists import as_list
from rankloom.errors import ArtifactError, ConfigError, DataError, RankLoomError, SchemaError
from rankloom.schema import DenseFeature, Roles, Schema, SparseFeature, VectorFeature
from rankloom.serving.store import item_export
from rankloom.serving.store.item_export import ExportedItems, export_items
from rankloom.serving.store.items import ItemStore

PRICES = Schema(
    {
        "item": SparseFeature(side="item", hash_buckets=50),
        "price": DenseFeature(side="item", default=0.0),
        "tags": SparseFeature(side="item", num_embeddings=9, pooling="sum"),
        "rank": DenseFeature(side="cross"),
        "age": DenseFeature(side="user"),
    },
    roles=Roles(item="item"),
)


def write(folder: Path, table: pa.Table, *, row_group_size: int = 3) -> Path:
    path = folder / "source.parquet"
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def exported(
    folder: Path, table: pa.Table, schema: Schema = PRICES, **options: Any
) -> ExportedItems:
    source = write(folder, table)
    return export_items(source, folder / "to", schema, indexes=INDEXES, **options)


def looked_up(folder: Path, ids: list[Any], column: str) -> list[Any]:
    values = ItemStore(folder / "to").look_up(ids, [column]).columns[column]
    return as_list(values)


def refused(folder: Path, kind: type[RankLoomError], table: pa.Table, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        exported(folder, table, **options)
    assert sorted(path.name for path in folder.iterdir()) == ["source.parquet"]
    return str(caught.value)


def log(items: list[Any], prices: list[Any], tags: list[Any] | None = None) -> pa.Table:
    return pa.table({"item": items, "price": prices, "tags": tags or [[1]] * len(items)})


def test_the_last_row_of_an_item_counts(tmp_path):
    table = log([5, 7, 5, 9, 7, 5], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    done = exported(tmp_path, table)
    assert looked_up(tmp_path, [5, 7, 9], "price") == [6.0, 5.0, 4.0]
    assert (done.num_items, done.num_rows, done.num_nameless) == (3, 6, 0)
    assert (done.item, done.columns) == ("item", ("price", "tags"))
    assert done.num_bytes == sum(path.stat().st_size for path in done.folder.iterdir())


@pytest.mark.parametrize("is_text", [False, True])
def test_a_log_is_read_in_pieces(tmp_path, monkeypatch, is_text):
    monkeypatch.setattr(item_export, "MERGE_ROWS", 20)
    monkeypatch.setattr(item_export, "CHUNK_LINES", 7)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 60, 500).tolist()
    ids = [f"item {one}" if is_text else one * 10**15 for one in drawn]
    tags = [rng.integers(0, 9, one % 4).tolist() for one in drawn]
    exported(tmp_path, log(ids, list(map(float, range(500))), tags))
    last = {one: row for row, one in enumerate(ids)}
    assert looked_up(tmp_path, list(last), "price") == [float(row) for row in last.values()]
    assert looked_up(tmp_path, list(last), "tags") == [tags[row] for row in last.values()]


def test_a_grouped_log_gives_what_its_rows_give(tmp_path):
    flat = log([5, 7, 5, 9], [1.0, 2.0, 3.0, 4.0], [[1], [2, 3], [], [4]])
    lines = [flat.slice(0, 1), flat.slice(1, 0), flat.slice(1, 3)]
    grouped = {n: [line[n].to_pylist() for line in lines] for n in flat.column_names}
    done = exported(tmp_path, pa.table({**grouped, "age": [1.0, 2.0, 3.0]}))
    assert (done.num_items, done.num_rows) == (3, 4)
    assert looked_up(tmp_path, [5, 7, 9], "price") == [3.0, 2.0, 4.0]
    assert looked_up(tmp_path, [5, 7, 9], "tags") == [[], [2, 3], [4]]


def test_lists_of_a_grouped_log_must_be_as_long_as_the_ids(tmp_path):
    table = pa.table({"item": [[1, 2]], "price": [[1.0]], "tags": [[[1], [2]]]})
    message = refused(tmp_path, DataError, table)
    assert "column 'price' must have lists as long as 'item'. Got 1 entries beside 2" in message


def test_rows_without_an_id_are_left_out_and_counted(tmp_path):
    done = exported(tmp_path, log([5, None, 7], [1.0, 2.0, 3.0]))
    assert (done.num_items, done.num_nameless) == (2, 1)
    message = "names no item. Got no row with an id"
    with pytest.raises(DataError, match=message):
        export_items(
            write(tmp_path, log([None], [1.0]).set_column(0, "item", pa.array([None], pa.int64()))),
            tmp_path / "other",
            PRICES,
            indexes=INDEXES,
        )


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (pa.array([1.5, -2.0], pa.float16()), [1.5, -2.0]),
        (pa.array([True, False]), [1, 0]),
        (pa.array([decimal.Decimal("1.25"), None]), [1.25, None]),
        (pa.array([3, None], pa.int16()), [3, None]),
        (pa.array([2**63, 1], pa.uint64()), [2**63, 1]),
    ],
)
def test_numbers_of_every_type_are_kept(tmp_path, prices, expected):
    exported(tmp_path, pa.table({"item": [1, 2], "price": prices, "tags": [[1], [2]]}))
    found = looked_up(tmp_path, [1, 2], "price")
    assert [None if one is None or one != one else one for one in found] == expected


def test_dictionaries_and_lists_of_fixed_size_are_opened(tmp_path):
    schema = Schema(
        {
            "brand": SparseFeature(side="item", hash_buckets=9),
            "tags": SparseFeature(side="item", hash_buckets=9, pooling="sum"),
            "image": VectorFeature(side="item", dim=2, default="zeros"),
        },
        roles=Roles(item="item"),
    )
    words = pa.array(["b", "a"]).dictionary_encode()
    image = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    tags = pa.array([["x"], ["y"]], pa.list_(pa.dictionary(pa.int8(), pa.string()), 1))
    ids = pa.array(["one", "two"]).dictionary_encode()
    table = pa.table({"item": ids, "brand": words, "tags": tags, "image": image})
    exported(tmp_path, table, schema)
    assert looked_up(tmp_path, ["two", "one"], "brand") == ["a", "b"]
    assert looked_up(tmp_path, ["two", "one"], "tags") == [["y"], ["x"]]
    assert looked_up(tmp_path, ["two", "one"], "image") == [None, [1.0, 2.0]]


def test_an_item_that_cannot_be_scored_is_named(tmp_path):
    rows = some_items()
    rows[17]["price"] = float("inf")
    table = pa.Table.from_pylist(rows, schema=pa.schema(ITEM_KINDS))
    message = refused(tmp_path, DataError, table, schema=ALL_KINDS)
    assert message == "item 17: column 'price' must be finite (below 3.4e38). Got inf. Clip it."


def test_a_table_may_be_defined_by_a_users_feature(tmp_path):
    schema = Schema(
        {
            "likes": SparseFeature(side="user", table="brand", num_embeddings=3),
            "brand": SparseFeature(side="item", table="brand"),
        },
        roles=Roles(item="item"),
    )
    table = pa.table({"item": [1, 2], "brand": [2, 3]})
    message = refused(tmp_path, DataError, table, schema=schema)
    assert message.startswith("item 2: column 'brand' must be a whole number from 0 to 2. Got 3")


@pytest.mark.parametrize("null", [[1, None], None])
def test_null_that_nothing_stands_for_is_named(tmp_path, null):
    table = log(["a", "b"], [1.0, 2.0], [[1], null])
    message = refused(tmp_path, DataError, table)
    assert message.startswith("item 'b': column 'tags' has no value. Got null")


def test_columns_that_clients_send_may_be_left_out(tmp_path):
    table = log([1], [1.0]).drop_columns(["tags"])
    message = refused(tmp_path, SchemaError, table)
    assert "column 'tags' (num_embeddings) is missing" in message
    assert message.endswith("Columns that clients send are left out with --columns.")
    assert exported(tmp_path, table, columns=["price"]).columns == ("price",)


@pytest.mark.parametrize("name", ["rank", "age", "item", "prize"])
def test_only_items_columns_can_be_looked_up(tmp_path, name):
    message = refused(tmp_path, ConfigError, log([1], [1.0]), columns=[name])
    assert f"Got {name}. Choose from: price, tags." in message


def test_something_must_be_looked_up(tmp_path):
    message = refused(tmp_path, ConfigError, log([1], [1.0]), columns=[])
    assert "at least one must be looked up" in message


def test_the_ids_may_be_another_column_than_the_role(tmp_path):
    table = log([1], [1.0]).append_column("sku", pa.array(["x"]))
    assert exported(tmp_path, table, item="sku").item == "sku"
    assert looked_up(tmp_path, ["x"], "item") == [1]


def test_without_a_role_the_ids_must_be_named(tmp_path):
    schema = Schema({"price": DenseFeature(side="item")})
    message = refused(tmp_path, ConfigError, log([1], [1.0]), schema=schema)
    assert message.startswith("--item: the artifact states no roles.item.")


def test_ids_must_be_whole_numbers_or_texts(tmp_path):
    message = refused(tmp_path, SchemaError, log([1.5], [1.0]))
    assert "column 'item' is double" in message


def test_a_folder_that_is_there_is_kept(tmp_path):
    exported(tmp_path, log([1], [1.0]))
    with pytest.raises(ArtifactError, match="is there already"):
        exported(tmp_path, log([2], [1.0]))
    assert looked_up(tmp_path, [1], "price") == [1.0]


def test_progress_is_reported_to_the_end(tmp_path):
    told: list[tuple[str, int, int]] = []
    exported(tmp_path, log([1, 2, 3, 4], [1.0] * 4), report=lambda *one: told.append(one))
    last = [list(of_stage)[-1] for _, of_stage in itertools.groupby(told, lambda one: one[0])]
    stages = ("finding items", "reading items", "checking items")
    assert last == [(stage, 4, 4) for stage in stages]
