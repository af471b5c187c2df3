"""Evaluate a model on a log, in one pass: exact metrics, overall and by slice.

Shapes: B rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rankloom.data.batch import Batch
from rankloom.evaluation.predict import Scorer
from rankloom.evaluation.result import (
    BINARY_METRICS,
    POSITIVE_METRICS,
    Evaluation,
    EvaluationConfig,
    TaskMetrics,
)
from rankloom.metrics import (
    BinarySums,
    PositiveSums,
    ScoreStore,
    calibration_curve,
    gauc_interval,
    log_losses,
    mean_interval,
)
from rankloom.schema import BinaryTask, Schema

Columns = npt.NDArray[Any]
SAMPLE_ROWS = 500_000
OTHER = "(other)"


def evaluate_model(
    scorer: Scorer,
    batches: Iterable[Batch],
    config: EvaluationConfig,
    *,
    split: str,
    slice_name: Callable[[str, int], str] = lambda _, key: str(key),
    scratch: Path | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Score every row once and compute the metrics of every task.

    Args:
        scorer: The model.
        batches: The log, with labels and with `keys` for groups and slices.
        config: What to compute.
        split: Name of the log, for the result.
        slice_name: From a slice column and its key to the value's name.
        scratch: Where results larger than memory are sorted; default: a temporary folder.
        report: Is told the number of rows done so far.
    """
    schema = scorer.model.schema
    columns = tuple(dict.fromkeys([*_scenario(schema), *config.slices]))
    with ExitStack() as stack:
        if scratch is None:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        whole = {
            task: stack.enter_context(_Accumulator(task, schema, config, scratch))
            for task in schema.tasks
        }
        parts: dict[str, dict[int | None, dict[str, _Accumulator]]] = {c: {} for c in columns}
        num_rows, began = 0, time.perf_counter()
        for batch in batches:
            rows = _Rows.of(batch, scorer(batch), schema, config)
            for task, accumulator in whole.items():
                accumulator.add(rows.of_task(task))
            for column in columns:
                for key, part in _split(batch.keys[column].numpy()):
                    by_key = parts[column]
                    at = key if key in by_key or len(by_key) < config.max_slice_values else None
                    if at not in by_key:
                        by_key[at] = {
                            task: stack.enter_context(_Accumulator(task, schema, config, scratch))
                            for task in schema.tasks
                        }
                    for task, accumulator in by_key[at].items():
                        accumulator.add(rows.of_task(task, part))
            num_rows += batch.num_rows
            report(num_rows)
        elapsed = time.perf_counter() - began
        return Evaluation(
            split=split,
            tasks={task: one.result(intervals=True) for task, one in whole.items()},
            slices={
                column: {
                    OTHER if key is None else slice_name(column, key): {
                        task: one.result(intervals=False) for task, one in tasks.items()
                    }
                    for key, tasks in sorted(by_key.items(), key=lambda item: item[0] is None)
                }
                for column, by_key in parts.items()
            },
            rows_per_s=num_rows / elapsed if elapsed > 0 else 0.0,
        )


def key_columns(schema: Schema, config: EvaluationConfig) -> tuple[str, ...]:
    """Name the columns that `Batch.keys` must hold for an evaluation."""
    group = _group(schema, config)
    wanted = [*([group] if group else []), *_scenario(schema), *config.slices]
    return tuple(dict.fromkeys(wanted))


class _Rows:
    """One batch's labels and predictions as NumPy columns."""

    def __init__(self, tasks: Mapping[str, tuple[Columns, Columns, Columns | None]]) -> None:
        self.tasks = tasks
        self.masks: dict[str, Columns] = {}
        self.groups: Columns | None = None

    @classmethod
    def of(
        cls, batch: Batch, predicted: Mapping[str, Any], schema: Schema, config: EvaluationConfig
    ) -> _Rows:
        rows = cls(
            {
                task: (
                    batch.labels[task].numpy(),
                    predicted[task].numpy(),
                    batch.weights[task].numpy() if task in batch.weights else None,
                )
                for task in schema.tasks
            }
        )
        rows.masks = {task: mask.numpy() for task, mask in batch.masks.items()}
        group = _group(schema, config)
        rows.groups = batch.keys[group].numpy() if group else None
        return rows

    def of_task(
        self, task: str, part: Columns | None = None
    ) -> tuple[Columns, Columns, Columns | None, Columns | None]:
        """Give (labels, predictions, weights, groups) of the rows that count."""
        labels, predictions, weights = self.tasks[task]
        keep = part
        if task in self.masks:
            mask = self.masks[task]
            keep = mask.nonzero()[0] if part is None else part[mask[part]]
        if keep is None:
            return labels, predictions, weights, self.groups

        def take(column: Columns | None) -> Columns | None:
            return None if column is None else column[keep]

        return labels[keep], predictions[keep], take(weights), take(self.groups)


class _Accumulator:
    """One task's sums and scores, over all rows or over one slice."""

    def __init__(self, task: str, schema: Schema, config: EvaluationConfig, scratch: Path) -> None:
        self.is_binary = isinstance(schema.tasks[task], BinaryTask)
        self.config = config
        self.has_groups = _group(schema, config) is not None
        self.sums: BinarySums | PositiveSums = BinarySums() if self.is_binary else PositiveSums()
        self.store = ScoreStore(scratch, memory_rows=config.memory_rows)
        self.sample: list[tuple[Columns, Columns, Columns | None]] = []
        self.num_sampled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def add(self, rows: tuple[Columns, Columns, Columns | None, Columns | None]) -> None:
        """Add rows that count."""
        labels, predictions, weights, groups = rows
        if not len(labels):
            return
        self.sums.update(labels, predictions, weights)
        if self.is_binary:
            self.store.append(labels, predictions, groups if self.has_groups else None, weights)
        elif self.num_sampled < SAMPLE_ROWS:
            self.sample.append((labels, predictions, weights))
            self.num_sampled += len(labels)

    def result(self, *, intervals: bool) -> TaskMetrics:
        """Compute the metrics of all rows added."""
        wanted = self.config.metrics
        known = BINARY_METRICS if self.is_binary else POSITIVE_METRICS
        names = [n for n in known if n in wanted and (n != "gauc" or self.has_groups)]
        found: dict[str, float] = {}
        left_out: dict[str, float] = {}
        for name in names:
            if name == "auc":
                found[name] = self.store.auc()
            elif name == "gauc":
                grouped = self.store.gauc()
                found[name] = grouped.value
                left_out = {
                    "one_class_group_share": grouped.one_class_group_share,
                    "one_class_row_share": grouped.one_class_row_share,
                }
            elif name == "calibration":
                found[name] = self.sums.calibration_ratio
            else:
                found[name] = getattr(self.sums, name)
        with_curve = intervals and self.sums.num_rows > 0
        return TaskMetrics(
            num_rows=self.sums.num_rows,
            metrics=found,
            intervals=self._intervals(names) if with_curve and self.config.num_resamples else {},
            calibration_curve=self._curve() if with_curve else [],
            **left_out,
        )

    def _intervals(self, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        options: dict[str, Any] = {"num_resamples": self.config.num_resamples, "seed": 0}
        found: dict[str, tuple[float, float]] = {}
        if "auc" in names:
            found["auc"] = self.store.auc_interval(**options)
        if "gauc" in names:
            found["gauc"] = gauc_interval(*self.store.per_group_auc(), **options)
        if "log_loss" in names:
            labels, predictions, weights = self._sampled()
            found["log_loss"] = mean_interval(log_losses(labels, predictions), weights, **options)
        return found

    def _curve(self) -> list[tuple[float, float, float]]:
        labels, predictions, weights = self._sampled()
        curve = calibration_curve(
            labels, predictions, self.config.num_calibration_bins, sample_weights=weights
        )
        columns = (curve.mean_predictions, curve.mean_labels, curve.weights)
        return [tuple(map(float, point)) for point in zip(*columns, strict=True)]  # type: ignore[misc]

    def _sampled(self) -> tuple[Columns, Columns, Columns | None]:
        if self.is_binary:
            rows = self.store.sample(SAMPLE_ROWS, seed=0)
            return rows.labels, rows.predictions, rows.sample_weights
        labels, predictions = (np.concatenate([s[i] for s in self.sample]) for i in (0, 1))
        weights = [s[2] for s in self.sample if s[2] is not None]
        return labels, predictions, np.concatenate(weights) if weights else None


def _split(keys: npt.NDArray[np.int64]) -> Iterable[tuple[int, npt.NDArray[np.intp]]]:
    """Give each distinct key with the numbers of its rows."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    for part in np.split(order, starts[1:]):
        yield int(keys[part[0]]), part


def _group(schema: Schema, config: EvaluationConfig) -> str | None:
    group: str | None = getattr(schema.roles, config.gauc_by)
    return group


def _scenario(schema: Schema) -> list[str]:
    return [schema.roles.scenario] if schema.roles.scenario else []
