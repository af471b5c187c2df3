"""Weights of rows: in the loss and in every metric, checked where they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import SPLITS, everything_in, small_train, small_values
from tests.integration.test_bad_input import with_value

from rankloom.api import evaluate

pytestmark = pytest.mark.usefixtures("without_extras")

WEIGHTED = {"tasks.like.weight": "weight", "tasks.love.weight": "weight"}
EXACT = ("auc", "gauc", "log_loss", "normalized_entropy", "calibration")


def with_weights(log: Path, folder: Path, weight_of: Any) -> Path:
    """Copy the small log with a weight for each row, made from its number."""
    for split in SPLITS:
        table = pq.read_table(log / split / "part-0.parquet")
        (folder / split).mkdir(parents=True)
        weights = pa.array(weight_of(np.arange(len(table))).astype(np.float64))
        pq.write_table(table.append_column("weight", weights), folder / split / "part-0.parquet")
    return folder


def test_a_metric_counts_a_row_as_often_as_its_weight_says(log: Path, tmp_path: Path) -> None:
    data = with_weights(log, tmp_path / "data", lambda row: row % 4)
    result, _ = small_train(small_values(data), tmp_path / "run", {"training.epochs": 1} | WEIGHTED)
    table = pq.read_table(data / "test" / "part-0.parquet")
    rows = np.repeat(np.arange(len(table)), np.arange(len(table)) % 4)
    one = table.set_column(
        table.column_names.index("weight"), "weight", pa.array([1.0] * len(table))
    )
    pq.write_table(one.take(pa.array(rows)), tmp_path / "repeated.parquet")
    weighted = evaluate(result, "test").tasks
    repeated = evaluate(result, "repeated", files=(str(tmp_path / "repeated.parquet"),)).tasks
    for task in ("like", "love"):
        for name in EXACT:
            found, expected = (one[task].metrics[name] for one in (weighted, repeated))
            assert found == pytest.approx(expected, rel=1e-9), (task, name)


def test_rows_without_weight_do_not_train(log: Path, tmp_path: Path) -> None:
    """Their labels may be turned; under another weight that is another training."""
    data = with_weights(log, tmp_path / "data", lambda row: (row % 3 > 0) * 2.0)
    path = data / "train" / "part-0.parquet"
    table = pq.read_table(path)
    rating = table["rating"].to_numpy()
    found = []
    for chosen in (np.zeros(len(table), bool), np.arange(len(table)) % 3 == 0):
        turned = pa.array(np.where(chosen, 6 - rating, rating))
        index = table.column_names.index("rating")
        pq.write_table(table.set_column(index, "rating", turned), path)
        for overrides in (WEIGHTED, {}):
            name = f"run-{len(found)}"
            result, _ = small_train(
                small_values(data), tmp_path / name, {"training.epochs": 1} | overrides
            )
            found.append(everything_in(result.folder.path)["metrics"])
    weighted, plain, weighted_turned, plain_turned = found
    assert weighted == weighted_turned
    assert plain != plain_turned
    assert weighted != plain


@pytest.mark.parametrize(
    ("value", "got"), [(-0.5, "-0.5"), (float("nan"), "nan"), (None, "null"), (1e39, "1e+39")]
)
def test_a_weight_that_is_none_is_named(at: FailingCommands, value: Any, got: str) -> None:
    for split in SPLITS:
        at.change(lambda t: t.append_column("weight", pa.array([1.0] * len(t))), split)
    path = at.change(with_value("weight", value))
    message = at.train("--set", "tasks.like.weight=weight")
    assert message.startswith(
        f"{path}: column 'weight' must be 0 or more and finite as the weight of task 'like'. "
        f"Got {got} in row 7. Fill it in preparation, or set tasks.like.mask."
    )


def test_a_negative_weight_of_a_task_is_refused(at: FailingCommands) -> None:
    message = at.train("--set", "tasks.like.loss_weight=-1")
    assert "tasks.like.loss_weight: must be at least 0.0. Got -1" in message
    assert at.made == []
