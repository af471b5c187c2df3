"""Bad data end in one clear message: no traceback, exit code 2, and no half-written file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import Change, FailingCommands, trained
from tests.integration.small import (
    command,
    write_run_file,
)

from rankloom.api.result import RunFolder

pytestmark = pytest.mark.usefixtures("without_extras")

ROW = 7


def with_value(column: str, value: Any, kind: pa.DataType | None = None) -> Change:
    """Put a value into one row of a column."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[ROW] = value
        array = pa.array(values, kind or table.schema.field(column).type)
        return table.set_column(table.schema.get_field_index(column), column, array)

    return change


def as_type(column: str, kind: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(column)
        return table.set_column(index, column, table[column].cast(kind))

    return change


def test_missing_columns(at: FailingCommands) -> None:
    path = at.change(lambda table: table.drop_columns(["item_id", "hour"]))
    message = at.train()
    assert f"{path}: column 'item_id' (vocabulary) is missing" in message
    assert f"{path}: column 'hour' (num_embeddings) is missing" in message
    assert at.made == []


def test_a_column_missing_in_one_split_is_found_before_training(at: FailingCommands) -> None:
    valid = at.change(lambda table: table.drop_columns(["rating"]), "valid")
    test = at.change(lambda table: table.drop_columns(["age"]), "test")
    message = at.train()
    assert f"{valid}: column 'rating' (tasks.like" in message
    assert f"{test}: column 'age' (a dense feature) is missing" in message
    assert at.made == []


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("age", pa.string()),
        ("hour", pa.string()),
        ("rating", pa.string()),
        ("item_id", pa.large_binary()),
    ],
)
def test_wrong_types(at: FailingCommands, column: str, kind: pa.DataType) -> None:
    path = at.change(as_type(column, kind))
    message = at.train()
    assert f"{path}: column {column!r} is {kind}" in message
    assert at.made == []


def test_ids_of_another_type_than_those_of_the_vocabulary(at: FailingCommands) -> None:
    def numbered(table: pa.Table) -> pa.Table:
        numbers = pa.array(np.arange(len(table)))
        return table.set_column(table.schema.get_field_index("item_id"), "item_id", numbers)

    path = at.change(numbered, "valid")
    message = at.train()
    assert f"{path}: column 'item_id'" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_value("hour", None), "column 'hour' has no value. Got null in row 7."),
        (with_value("rating", None), "has no label for task 'like'. Got null in row 7."),
        (with_value("release_year", None, pa.float64()), "column 'release_year' has no number."),
        (with_value("hour", 24), "must be a whole number from 0 to 23. Got 24 in row 7."),
        (with_value("hour", -1), "must be a whole number from 0 to 23. Got -1 in row 7."),
        (with_value("release_year", np.nan, pa.float64()), "Got nan in row 7."),
        (with_value("release_year", np.inf, pa.float64()), "must be finite"),
        (with_value("age", -np.inf), "must be finite"),
        (with_value("history_rating", [9]), "column 'history_rating'"),
    ],
    ids=[
        "null id",
        "null label",
        "null number",
        "id too large",
        "negative id",
        "nan",
        "infinity",
        "minus infinity",
        "id in a history",
    ],
)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_wrong_values(at: FailingCommands, change: Change, said: str, split: str) -> None:
    path = at.change(change, split)
    message = at.train()
    assert f"{path}: column " in message
    assert said in message
    # What was trained until then is kept, and can be read.
    if at.made and split != "train":
        assert RunFolder(at.to).checkpoints.path("last") is not None


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "binary", "label": "rating"}, "must be 0 or 1 for task 'like'"),
        ({"kind": "positive", "label": "rating"}, "must be 0 or more and finite for task 'like'"),
    ],
)
def test_a_label_outside_its_range(at: FailingCommands, task: dict[str, Any], said: str) -> None:
    path = at.change(with_value("rating", -3))
    at.values["tasks"] = {"like": task}
    write_run_file(at.run_file, at.values)
    message = at.train()
    assert f"{path}: column 'rating' {said}" in message
    assert "tasks.like." in message


def test_an_empty_file(at: FailingCommands) -> None:
    at.part().write_bytes(b"")
    assert at.train() == f"{at.part()}: is empty (0 bytes). Write it again."
    assert at.made == []


def test_a_file_without_rows(at: FailingCommands) -> None:
    path = at.change(lambda table: table.slice(0, 0))
    assert at.train() == f"{path}: no rows. Write at least one row."
    assert at.made == []


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_truncated_file(at: FailingCommands, share: float) -> None:
    content = at.part().read_bytes()
    at.part().write_bytes(content[: int(share * len(content))])
    assert f"{at.part()}: is truncated or no Parquet file. Got: " in at.train()
    assert at.made == []


def damage(path: Path, column: str) -> None:
    """Overwrite the pages of one column."""
    group = pq.read_metadata(path).row_group(0)
    chunks = (group.column(number) for number in range(group.num_columns))
    chunk = next(c for c in chunks if c.path_in_schema.partition(".")[0] == column)
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[first : first + chunk.total_compressed_size] = b"x" * chunk.total_compressed_size
    path.write_bytes(content)


@pytest.mark.parametrize("column", ["user_id", "rating", "history_item_id", "genres"])
def test_a_damaged_page(at: FailingCommands, column: str) -> None:
    damage(at.part(), column)
    assert f"{at.part()}: row group 0 cannot be read. Got: " in at.train()


def test_a_history_longer_than_max_length_is_cut(at: FailingCommands) -> None:
    column = pq.read_table(at.part())["history_item_id"]
    assert max(map(len, column.to_pylist())) > 8
    assert command(at.monkeypatch, "train", at.run_file, "--to", at.to) == 0


def test_files_that_are_not_there(at: FailingCommands) -> None:
    message = at.train("--set", "data.train=nowhere/*.parquet", "--set", "data.valid=no.parquet")
    assert "nowhere/*.parquet: no file matches." in message
    assert "no.parquet: no such file." in message
    assert at.made == []


@pytest.mark.parametrize("column", ["item_id", "hour"])
def test_predicting_a_file_without_a_column(at: FailingCommands, column: str) -> None:
    trained(at)
    path = at.change(lambda table: table.drop_columns([column]), "test")
    to = at.folder / "scored.parquet"
    assert f"{path}: column {column!r} (" in at.refused("predict", at.to, path, "--to", to)
    assert not to.exists()


def test_predicting_bad_values_keeps_the_old_file(at: FailingCommands) -> None:
    trained(at)
    to = at.folder / "scored.parquet"
    to.write_bytes(b"old")
    path = at.change(with_value("hour", 99), "test")
    assert "Got 99 in row 7." in at.refused("predict", at.to, path, "--to", to)
    assert to.read_bytes() == b"old"
    assert "Did you mean 'item_id'?" in at.refused(
        "predict", at.to, path, "--to", to, "--columns", "itm_id"
    )


@pytest.mark.parametrize("column", ["user_id", "history_item_id", "genres"])
def test_predicting_a_damaged_page(at: FailingCommands, column: str) -> None:
    trained(at)
    damage(at.part("test"), column)
    to = at.folder / "scored.parquet"
    assert str(at.part("test")) in at.refused("predict", at.to, at.part("test"), "--to", to)
    assert not to.exists()
