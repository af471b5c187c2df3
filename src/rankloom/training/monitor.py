"""Which validation metric decides on the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankloom.errors import ConfigError
from rankloom.evaluation.result import BINARY_METRICS, LOWER_IS_BETTER, POSITIVE_METRICS
from rankloom.schema import BinaryTask, Schema
from rankloom.training.config import EarlyStoppingConfig

# Those that say how well rows are ranked, or else predicted; calibration alone says neither.
BINARY_ORDER = ("auc", "log_loss", "normalized_entropy", "gauc")
POSITIVE_ORDER = ("mean_absolute_error", "root_mean_squared_error")


def monitored_metric(
    schema: Schema,
    stopping: EarlyStoppingConfig | None,
    metrics: Sequence[str],
    *,
    has_groups: bool,
) -> str:
    """Give the `task/metric` that decides which checkpoint is the best.

    Args:
        schema: Its first task is the default.
        stopping: May name another task and metric.
        metrics: What an evaluation computes, where a task has it.
        has_groups: Whether there are groups for GAUC.

    Raises:
        ConfigError: No such metric is computed.
    """
    known = {
        f"{task}/{name}": task
        for task in schema.tasks
        for name in (
            BINARY_METRICS if isinstance(schema.tasks[task], BinaryTask) else POSITIVE_METRICS
        )
        if name in metrics and name != "calibration" and (name != "gauc" or has_groups)
    }
    if stopping and stopping.metric:
        if stopping.metric not in known:
            raise ConfigError(
                "training.early_stopping.metric: must be task/metric as evaluation.metrics has "
                f"it. Got {stopping.metric!r}. Known: {', '.join(known) or 'none'}."
            )
        return stopping.metric
    first = next(iter(schema.tasks))
    order = BINARY_ORDER if isinstance(schema.tasks[first], BinaryTask) else POSITIVE_ORDER
    found = next((name for name in order if f"{first}/{name}" in known), None)
    if found is None:
        raise ConfigError(
            "evaluation.metrics: must hold a metric to choose the best checkpoint by. Got "
            f"{', '.join(metrics) or 'none'}. Add one of {', '.join(order)}."
        )
    return f"{first}/{found}"


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Whether a value of `task/metric` is better than the best so far; NaN is worse than all."""
    if best is None or math.isnan(best):
        return True
    return value < best if metric.rpartition("/")[2] in LOWER_IS_BETTER else value > best
