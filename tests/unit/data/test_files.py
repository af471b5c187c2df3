from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.files import check_files
from rankloom.data.transforms import Transforms
from rankloom.data.vocabulary import Vocabulary
from rankloom.errors import DataError, SchemaError
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)

SCHEMA = Schema(
    {
        "user_id": SparseFeature(side="user", vocabulary=VocabularyConfig()),
        "item_id": SparseFeature(side="item", num_embeddings=9),
        "price": DenseFeature(side="item", default=0.0),
    },
    roles=Roles(user="user_id"),
    tasks={"click": BinaryTask(label="click")},
)
GOOD = {"user_id": ["a"], "item_id": [1], "price": [1.0], "click": [0]}


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({**GOOD, **columns}), path)
    return path


def test_patterns_give_files_by_name_and_each_once(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.parquet")
    log = check_files([tmp_path / "c.parquet", str(tmp_path / "*.parquet")], SCHEMA)
    assert [path.stem for path in log.paths] == ["c", "a", "b"]
    assert (log.num_lines, log.num_rows) == (3, 3)


def test_all_problems_of_files_come_at_once(tmp_path):
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    whole = write(tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    names = ["empty.parquet", "text.parquet", "cut.parquet", "gone.parquet", "no-*.parquet", ""]
    with pytest.raises(DataError) as error:
        check_files([tmp_path / name for name in names], SCHEMA)
    lines = str(error.value).splitlines()
    assert lines[0] == "data has 6 mistakes:"
    for name, what in {
        "empty.parquet": "is empty (0 bytes)",
        "text.parquet": "is truncated or no Parquet file",
        "cut.parquet": "is truncated or no Parquet file",
        "gone.parquet": "no such file",
        "no-*.parquet": "no file matches",
    }.items():
        assert any(f"{name}: {what}" in line for line in lines)
    assert any("is a folder" in line for line in lines)


def test_no_files_and_no_rows_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"no files were named"):
        check_files([], SCHEMA)
    pq.write_table(pa.table(GOOD).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"no rows. Write at least one row"):
        check_files(tmp_path / "none.parquet", SCHEMA)


def test_a_file_without_rows_among_others_is_passed_over(tmp_path):
    pq.write_table(pa.table(GOOD).slice(0, 0), tmp_path / "a.parquet")
    write(tmp_path / "b.parquet")
    assert check_files(str(tmp_path / "*.parquet"), SCHEMA).num_rows == 1


def test_all_missing_and_wrong_columns_of_all_files_come_at_once(tmp_path):
    write(tmp_path / "a.parquet", item_id=["x"], price=["cheap"])
    pq.write_table(
        pa.table({"user_idd": ["a"], "item_id": [1], "price": [1]}), tmp_path / "b.parquet"
    )
    with pytest.raises(SchemaError) as error:
        check_files(str(tmp_path / "*.parquet"), SCHEMA)
    assert str(error.value) == (
        "data has 4 mistakes:\n"
        f"  {tmp_path}/a.parquet: column 'item_id' is string, the schema says num_embeddings "
        "(whole numbers). Cast it in preparation or declare it with hash_buckets.\n"
        f"  {tmp_path}/a.parquet: column 'price' is string, the schema says a dense feature "
        "(numbers). Cast it in preparation or declare it as a sparse feature.\n"
        f"  {tmp_path}/b.parquet: column 'user_id' (vocabulary) is missing. Did you mean "
        "'user_idd'?\n"
        f"  {tmp_path}/b.parquet: column 'click' (tasks.click.label) is missing. "
        "Add it to the log, or take it out of the run file."
    )


def test_labels_and_roles_are_not_needed_for_scoring(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({k: v for k, v in GOOD.items() if k != "click"}), path)
    assert check_files(path, SCHEMA, with_labels=False).num_rows == 1


def test_an_id_column_keeps_its_type_in_all_files(tmp_path):
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", user_id=[1])
    with pytest.raises(SchemaError, match=r"b.parquet: column 'user_id' is int64, in .*a.parquet"):
        check_files(str(tmp_path / "*.parquet"), SCHEMA)


def test_ids_have_the_type_of_the_vocabulary(tmp_path):
    keys = Vocabulary(pa.array([1, 2]), np.ones(2, np.int64))
    path = write(tmp_path / "a.parquet")
    with pytest.raises(SchemaError, match=r"'user_id' is string, the vocabulary .* whole numbers"):
        check_files(path, SCHEMA, transforms=Transforms({"user_id": keys}))


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(SchemaError, match=r"column 'surface' \(a key\) is missing"):
        check_files(write(tmp_path / "a.parquet"), SCHEMA, keys=("surface",))
    with pytest.raises(SchemaError, match=r"column 'price' is double, a key must be"):
        check_files(write(tmp_path / "a.parquet"), SCHEMA, keys=("price",))


GROUPED = {"user_id": ["a"], "item_id": [[1, 2]], "price": [[1.0, 2.0]], "click": [[0, 1]]}


def test_a_grouped_log_has_lists_for_candidates(tmp_path):
    pq.write_table(pa.table(GROUPED), tmp_path / "a.parquet")
    log = check_files(tmp_path / "a.parquet", SCHEMA, layout="grouped")
    assert (log.num_lines, log.num_rows) == (1, 2)
    with pytest.raises(SchemaError, match=r"Read the log with layout: grouped"):
        check_files(tmp_path / "a.parquet", SCHEMA)
    with pytest.raises(SchemaError, match=r"or read the log as flat"):
        check_files(write(tmp_path / "b.parquet"), SCHEMA, layout="grouped")


def test_each_kind_of_list_is_checked(tmp_path):
    schema = Schema(
        {
            "tags": SparseFeature(
                side="user", hash_buckets=9, pooling="sum", weights="tag_weights"
            ),
            "image": VectorFeature(side="user", dim=2),
            "seen": SequenceFeature(
                side="user", columns={"item": SequenceColumn(num_embeddings=5)}, time="seen_time"
            ),
        },
        roles=Roles(event_time="at"),
    )
    good = {
        "tags": [["a"]],
        "tag_weights": [[1.0]],
        "image": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        "seen_item": [[1]],
        "seen_time": [[1]],
        "at": [5],
    }
    pq.write_table(pa.table(good), tmp_path / "good.parquet")
    assert check_files(tmp_path / "good.parquet", schema).num_rows == 1
    bad = {name: [1.5] for name in good}
    pq.write_table(pa.table(bad), tmp_path / "bad.parquet")
    with pytest.raises(SchemaError) as error:
        check_files(tmp_path / "bad.parquet", schema)
    for name in good:
        assert f"column {name!r} is double" in str(error.value)
