from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.columns import Plain
from rankloom.data.labels import decode_task
from rankloom.data.raw import Origin, RawColumn
from rankloom.errors import DataError
from rankloom.schema import BinaryTask, PositiveTask, Task


def decode(task: Task, **columns: object) -> dict[str, list[float]]:
    def read(name: str) -> RawColumn:
        return RawColumn(name, pa.array(columns[name]), Origin("log.parquet"))

    found = decode_task("t", task, read)
    return {f: c.values.tolist() for (f, _), c in found.items() if isinstance(c, Plain)}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("y >= 2", [0, 1, 1]),
        ("y > 2", [0, 0, 1]),
        ("y == 2", [0, 1, 0]),
        ("y != 2", [1, 0, 1]),
        ("y <= 2", [1, 1, 0]),
        ("y < 2", [1, 0, 0]),
    ],
)
def test_comparisons_with_a_number(label, expected):
    assert decode(BinaryTask(label=label), y=[1, 2, 3]) == {"labels": expected}
    assert decode(BinaryTask(label=label), y=[1.0, 2.0, 3.0]) == {"labels": expected}


def test_comparisons_with_a_text():
    assert decode(BinaryTask(label="y == 'buy'"), y=["buy", "see"])["labels"] == [1, 0]
    assert decode(BinaryTask(label="y != 'buy'"), y=["buy", "see"])["labels"] == [0, 1]


@pytest.mark.parametrize("values", [[True, False], [1, 0], [1.0, 0.0]])
def test_a_column_alone_is_the_label(values):
    assert decode(BinaryTask(label="y"), y=values)["labels"] == [1, 0]


@pytest.mark.parametrize("values", [[0, 1, 2], [0.0, 1.0, 0.5], [1, 0, -1]])
def test_a_binary_label_is_0_or_1(values):
    with pytest.raises(DataError, match=rf"'y' must be 0 or 1 .* Got {values[2]} in row 2. Comp"):
        decode(BinaryTask(label="y"), y=values)


@pytest.mark.parametrize("value", [-0.5, float("inf"), 1e39])
def test_a_positive_label_is_0_or_more_and_finite(value):
    assert decode(PositiveTask(label="y"), y=[0.0, 3.5])["labels"] == [0, 3.5]
    with pytest.raises(DataError, match=r"must be 0 or more and finite"):
        decode(PositiveTask(label="y"), y=[0.0, value])


@pytest.mark.parametrize("task", [BinaryTask(label="y"), BinaryTask(label="y > 2")])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_needs_a_mask(task, missing):
    with pytest.raises(DataError, match=r"has no label for task 't'. Got .* in row 1. Set tasks.t"):
        decode(task, y=[1.0, missing])
    with pytest.raises(DataError, match="has no label"):
        decode(BinaryTask(label="y == 'a'"), y=["a", None])


def test_masked_out_rows_may_hold_anything():
    task = BinaryTask(label="y", mask="m", weight="w")
    found = decode(task, y=[1.0, None, 7.0, 0.0], m=[1, 0, None, 1], w=[2.0, -1.0, None, 0.5])
    assert found == {
        "masks": [True, False, False, True],
        "labels": [1, 0, 0, 0],
        "weights": [2.0, 0, 0, 0.5],
    }


def test_masked_out_texts_may_be_null():
    found = decode(BinaryTask(label="y == 'a'", mask="m"), y=["a", None], m=[True, False])
    assert found == {"labels": [1, 0], "masks": [True, False]}


def test_masked_in_rows_may_not():
    with pytest.raises(DataError, match="has no label"):
        decode(BinaryTask(label="y", mask="m == 'yes'"), y=[None, 1.0], m=["yes", "no"])


@pytest.mark.parametrize("weight", [-1.0, None, float("nan"), float("inf")])
def test_a_weight_is_0_or_more_and_finite(weight):
    with pytest.raises(DataError, match="'w' must be 0 or more and finite as the weight of task"):
        decode(BinaryTask(label="y", weight="w"), y=[0, 1], w=[1.0, weight])


def test_labels_are_float32_and_masks_bool():
    def read(name: str) -> RawColumn:
        return RawColumn(name, pa.array([0, 1]), Origin("log.parquet"))

    found = decode_task("t", BinaryTask(label="y", mask="m"), read)
    kinds = {f: c.values.dtype for (f, _), c in found.items() if isinstance(c, Plain)}
    assert kinds == {"labels": np.dtype("f4"), "masks": np.dtype("bool")}
