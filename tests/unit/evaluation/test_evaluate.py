from __future__ import annotations

import json
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rankloom import metrics
from rankloom.data.batch import Batch
from rankloom.evaluation import Evaluation, EvaluationConfig, evaluate_model
from rankloom.evaluation.evaluate import key_columns
from rankloom.evaluation.result import TaskMetrics, evaluation_from_dict
from rankloom.schema import BinaryTask, PositiveTask, Roles, Schema

SCHEMA = Schema(
    {},
    roles=Roles(user="user", request="request", scenario="page"),
    tasks={
        "click": BinaryTask(label="c", mask="shown", weight="w"),
        "watch": PositiveTask(label="s"),
    },
)
ROWS = 60


@pytest.fixture
def log(generator: torch.Generator) -> dict[str, Tensor]:
    def draw(high: int) -> Tensor:
        return torch.randint(high, (ROWS,), generator=generator)

    return {
        "click": draw(2).float(),
        "watch": draw(50).float(),
        "shown": draw(4) > 0,
        "w": draw(3).float() + 1,
        "user": draw(7),
        "request": draw(20),
        "page": draw(3) - 1,  # keys may be negative
        # Coarse, so that there are ties.
        "p": (draw(9) + 1) / 10,
        "seconds": draw(50).double() + 0.5,
    }


class FakeScorer:
    """Gives what the batch carries as its vectors."""

    model = SimpleNamespace(schema=SCHEMA)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        return {"click": batch.vectors["p"], "watch": batch.vectors["seconds"]}


def batches(log: dict[str, Tensor], *sizes: int) -> Iterator[Batch]:
    start = 0
    for size in sizes:
        part = {name: value[start : start + size] for name, value in log.items()}
        start += size
        yield Batch(
            ids={},
            numbers={},
            vectors={"p": part["p"], "seconds": part["seconds"]},
            sequences={},
            request_index=torch.arange(size),
            num_requests=size,
            labels={name: part[name] for name in SCHEMA.tasks},
            masks={"click": part["shown"]},
            weights={"click": part["w"]},
            keys={name: part[name] for name in ("user", "request", "page")},
        )


def evaluate(log: dict[str, Tensor], *sizes: int, **options: Any) -> Evaluation:
    config = EvaluationConfig(**{"num_resamples": 0, **options})
    scorer: Any = FakeScorer()
    return evaluate_model(scorer, batches(log, *sizes), config, split="valid")


def assert_click(found: TaskMetrics, log: dict[str, Tensor], keep: Tensor, by: str) -> None:
    """Compare with the metrics of the plain columns."""
    rows = keep & log["shown"]
    labels, p, weights = (log[name][rows].numpy() for name in ("click", "p", "w"))
    grouped = metrics.gauc(log[by][rows].numpy(), labels, p, weights)
    expected = {
        "auc": metrics.auc(labels, p, weights),
        "gauc": grouped.value,
        "log_loss": metrics.log_loss(labels, p, weights),
        "normalized_entropy": metrics.normalized_entropy(labels, p, weights),
        "calibration": metrics.calibration_ratio(labels, p, weights),
    }
    assert found.num_rows == len(labels)
    assert found.metrics == pytest.approx(expected, rel=1e-12)
    assert found.one_class_group_share == pytest.approx(grouped.one_class_group_share)
    assert found.one_class_row_share == pytest.approx(grouped.one_class_row_share)


ALL = torch.ones(ROWS, dtype=torch.bool)


@pytest.mark.parametrize("sizes", [(60,), (1, 58, 1), (20, 20, 20)])
@pytest.mark.parametrize("by", ["user", "request"])
def test_equals_the_metrics_of_the_whole_columns(
    log: dict[str, Tensor], sizes: tuple[int, ...], by: str
) -> None:
    found = evaluate(log, *sizes, gauc_by=by)
    assert_click(found.tasks["click"], log, ALL, by)
    labels, seconds = log["watch"].numpy(), log["seconds"].numpy()
    difference = seconds.astype(np.float64) - labels
    assert found.tasks["watch"].metrics == pytest.approx(
        {
            "mean_absolute_error": np.abs(difference).mean(),
            "root_mean_squared_error": math.sqrt((difference**2).mean()),
            "calibration": seconds.sum() / labels.sum(),
        }
    )
    assert found.tasks["watch"].num_rows == ROWS
    assert found.rows_per_s > 0


def test_results_larger_than_memory_are_the_same(log: dict[str, Tensor]) -> None:
    small = evaluate(log, 20, 20, 20, memory_rows=7).tasks["click"]
    assert_click(small, log, ALL, "user")


def test_the_scenario_is_always_a_slice(log: dict[str, Tensor]) -> None:
    found = evaluate(log, 25, 35, slices=("user",))
    assert list(found.slices) == ["page", "user"]
    assert set(found.slices["page"]) == {"-1", "0", "1"}
    for key, by_task in found.slices["page"].items():
        assert_click(by_task["click"], log, log["page"] == int(key), "user")
        assert by_task["watch"].num_rows == int((log["page"] == int(key)).sum())
    assert set(found.slices["user"]) == set(map(str, range(7)))


def test_values_beyond_the_limit_are_one_slice(log: dict[str, Tensor]) -> None:
    log["page"][:3] = torch.tensor([1, -1, 0])
    found = evaluate(log, 2, 58, max_slice_values=2).slices["page"]
    # The first batch has -1 and 1; what comes later, 0 here, has no slice of its own.
    assert list(found) == ["-1", "1", "(other)"]
    assert_click(found["(other)"]["click"], log, log["page"] == 0, "user")


def test_slices_are_named_by_the_caller(log: dict[str, Tensor]) -> None:
    names = {-1: "home", 0: "search", 1: "cart"}
    scorer: Any = FakeScorer()
    config = EvaluationConfig(num_resamples=0)
    done: list[int] = []
    found = evaluate_model(
        scorer,
        batches(log, 40, 20),
        config,
        split="valid",
        slice_name=lambda column, key: f"{column}={names[key]}",
        report=done.append,
    )
    assert set(found.slices["page"]) == {"page=home", "page=search", "page=cart"}
    assert done == [40, 60]


def test_only_the_metrics_asked_for(log: dict[str, Tensor]) -> None:
    found = evaluate(log, 60, metrics=("auc", "mean_absolute_error"))
    assert [list(one.metrics) for one in found.tasks.values()] == [["auc"], ["mean_absolute_error"]]
    assert found.tasks["click"].one_class_group_share is None


def test_a_task_that_no_row_counts_for_is_not_defined(log: dict[str, Tensor]) -> None:
    log["shown"][:] = False
    found = evaluate(log, 30, 30, num_resamples=5).tasks["click"]
    assert found.num_rows == 0
    assert all(math.isnan(value) for value in found.metrics.values())
    assert (found.intervals, found.calibration_curve) == ({}, [])


def test_intervals_hold_the_value_and_slices_have_none(log: dict[str, Tensor]) -> None:
    found = evaluate(log, 60, num_resamples=50)
    click = found.tasks["click"]
    assert set(click.intervals) == {"auc", "gauc", "log_loss"}
    for name, (low, high) in click.intervals.items():
        assert low < click.metrics[name] < high
    assert evaluate(log, 60, num_resamples=50) == Evaluation(**{**vars(found), "rows_per_s": ANY})
    assert not any(t.intervals for one in found.slices["page"].values() for t in one.values())


class _Any(float):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = float.__hash__


ANY = _Any()


def test_the_calibration_curve_covers_the_rows_that_count(log: dict[str, Tensor]) -> None:
    curve = evaluate(log, 60, num_calibration_bins=4).tasks["click"].calibration_curve
    predictions, _, weights = zip(*curve, strict=True)
    assert len(curve) <= 4
    assert list(predictions) == sorted(predictions)
    assert sum(weights) == pytest.approx(log["w"][log["shown"]].sum().item())


def test_survives_json(log: dict[str, Tensor]) -> None:
    found = evaluate(log, 60, num_resamples=5)
    assert evaluation_from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.value("click/auc") == found.tasks["click"].metrics["auc"]


def test_one_line_for_each_task() -> None:
    click = TaskMetrics(3, {"auc": 0.5, "log_loss": 0.25}, intervals={"auc": (0.4, 0.6)})
    found = Evaluation("test", {"click": click, "like_it": TaskMetrics(3, {"auc": math.nan})})
    assert str(found).splitlines() == [
        "test      click    AUC 0.5000 (0.4000-0.6000)   log loss 0.2500",
        "test      like_it  AUC nan",
    ]


def test_names_the_key_columns_it_needs() -> None:
    config = EvaluationConfig(slices=("hour", "page"), gauc_by="request")
    assert key_columns(SCHEMA, config) == ("request", "page", "hour")
    assert key_columns(Schema({}), EvaluationConfig()) == ()
