"""What an evaluation was asked for, and what it found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from rankloom.config import Config

MetricName = Literal[
    "auc",
    "gauc",
    "log_loss",
    "normalized_entropy",
    "calibration",
    "mean_absolute_error",
    "root_mean_squared_error",
]
LOWER_IS_BETTER = {
    "log_loss",
    "normalized_entropy",
    "mean_absolute_error",
    "root_mean_squared_error",
}
BINARY_METRICS: tuple[MetricName, ...] = (
    "auc",
    "gauc",
    "log_loss",
    "normalized_entropy",
    "calibration",
)
POSITIVE_METRICS: tuple[MetricName, ...] = (
    "mean_absolute_error",
    "root_mean_squared_error",
    "calibration",
)
SHORT_NAMES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "normalized_entropy": "NE",
    "calibration": "calibration",
    "mean_absolute_error": "MAE",
    "root_mean_squared_error": "RMSE",
}


class EvaluationConfig(Config):
    """The `evaluation` section of a run file."""

    metrics: tuple[MetricName, ...] = (*BINARY_METRICS, *POSITIVE_METRICS[:2])
    """Metrics to compute, where a task has them."""
    slices: tuple[str, ...] = ()
    """Columns by whose values the metrics are given too; the scenario is always one."""
    max_slice_values: PositiveInt = 100
    """Values of a slice column told apart, the first seen; the others are one slice."""
    gauc_by: Literal["user", "request"] = "user"
    """Role whose rows are a group of GAUC."""
    num_resamples: NonNegativeInt = 200
    """Bootstrap resamples for intervals; 0 for no intervals."""
    num_calibration_bins: PositiveInt = 20
    """Points of the calibration curve."""
    batch_size: PositiveInt | None = None
    """Rows in a batch; default: twice the training's."""
    memory_rows: PositiveInt = 20_000_000
    """Rows of predictions held in memory per task; more are sorted on disk."""


@dataclass(frozen=True)
class TaskMetrics:
    """One task's metrics over the rows that count for it."""

    num_rows: int
    """Rows that count."""
    metrics: dict[str, float]
    """Metric -> value; NaN where it is not defined."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Metric -> ends of its 95 % bootstrap interval."""
    one_class_group_share: float | None = None
    """Share of the groups that GAUC leaves out because they have one class."""
    one_class_row_share: float | None = None
    """Share of the rows in such groups."""
    calibration_curve: list[tuple[float, float, float]] = field(default_factory=list)
    """(mean prediction, mean label, rows) by ascending prediction."""

    def line(self) -> str:
        """Give the metrics as one line of text."""
        parts = []
        for name, value in self.metrics.items():
            text = f"{SHORT_NAMES[name]} {value:.4f}"
            if name in self.intervals:
                low, high = self.intervals[name]
                text += f" ({low:.4f}-{high:.4f})"
            parts.append(text)
        return "   ".join(parts)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    split: str
    """Which part of the log: train, valid, test or a file."""
    tasks: dict[str, TaskMetrics]
    """Task -> metrics."""
    slices: dict[str, dict[str, dict[str, TaskMetrics]]] = field(default_factory=dict)
    """Column -> value -> task -> metrics."""
    rows_per_s: float = 0.0
    """Rows scored a second, reading included."""

    def value(self, metric: str) -> float:
        """Give `task/metric`.

        Raises:
            KeyError: There is no such task or metric.
        """
        task, _, name = metric.rpartition("/")
        return self.tasks[task].metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, as stored in `evaluation.json`."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(task) for task in self.tasks)
        return "\n".join(
            f"{self.split:9} {task:{width}}  {found.line()}" for task, found in self.tasks.items()
        )


def evaluation_from_dict(values: dict[str, Any]) -> Evaluation:
    """Read back what `Evaluation.to_dict` gave."""

    def task(one: dict[str, Any]) -> TaskMetrics:
        intervals = {name: (ends[0], ends[1]) for name, ends in one["intervals"].items()}
        curve = [(point[0], point[1], point[2]) for point in one["calibration_curve"]]
        return TaskMetrics(**{**one, "intervals": intervals, "calibration_curve": curve})

    return Evaluation(
        split=values["split"],
        tasks={name: task(one) for name, one in values["tasks"].items()},
        slices={
            column: {
                value: {name: task(one) for name, one in tasks.items()}
                for value, tasks in by_value.items()
            }
            for column, by_value in values["slices"].items()
        },
        rows_per_s=values["rows_per_s"],
    )
